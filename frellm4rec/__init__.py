"""Sequential recommenders and the data they are trained on, as plug-ins of the instrument.

Names are imported when they are first used; ``__init__.pyi`` lists them with their modules. Besides these, class and
config of every registered model are importable from here: ``from frellm4rec import ItemKNN, ItemKNNConfig``.
"""

from typing import Any

import lazy_loader

_listed, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    try:
        return _listed(name)
    except AttributeError:
        if not name[:1].isupper():
            raise
        from frellm4rec.models.registry import class_named

        return class_named(name)
