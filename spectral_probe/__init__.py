"""Layer-wise graph spectra of sequence models, with their exact nulls."""

__version__ = "0.1.0"
