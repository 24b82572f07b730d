"""Sequential recommenders and the data they are trained on, as plug-ins of the instrument.

Names are imported when they are first used; ``__init__.pyi`` lists them with their modules.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
