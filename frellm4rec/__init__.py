"""Sequential recommenders and the data they are trained on, as plug-ins of the instrument."""
