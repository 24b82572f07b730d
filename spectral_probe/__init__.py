"""Layer-wise graph spectra of sequence models, with their exact nulls.

Names are imported when they are first used; ``__init__.pyi`` lists them with their modules.
"""

import lazy_loader

__version__ = "0.2.0.dev0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
