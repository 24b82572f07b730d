"""Read a file that this project wrote: a regular file, whole, with the keys and the types that it must have.

What is wrong is a ``ValueError`` that names the key, the value and what was expected; the caller adds the path and what
to do. A shape is written as the file is:

=====================  =======================================================================
``int``, ``str``, …    a value of this type; ``float`` takes whole numbers, ``int`` no booleans
``None``               null
``(A, B)``             either
``[A]``                a list of these
``{"a": A, "b?": B}``  a mapping with at least ``a``; ``b`` may be missing, and others are not looked at
``{str: A}``           a mapping with values of this shape
=====================  =======================================================================
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

Shape = Any
_WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    str: "text",
    bool: "true or false",
    dict: "a mapping",
    list: "a list",
    None: "null",
}
#: NumPy's letters for the kinds of arrays.
_KINDS = {"i": "whole numbers", "f": "numbers", "b": "true or false", "U": "text"}
#: Aliases in a YAML file; a few more, one inside the other, would stand for gigabytes.
MOST_ALIASES = 20
_LONGEST_VALUE = 60


def refuse_special(path: str | Path) -> None:
    """Refuse a pipe or a device, which might never end; a path that does not exist is left to whoever opens it.

    Raises
    ------
    ValueError
    """
    path = Path(path)
    if path.exists() and not path.is_file() and not path.is_dir():
        raise ValueError("it is a pipe or a device, not a regular file")


def read_text(path: str | Path) -> str:
    """Return the text of a regular file in UTF-8.

    Raises
    ------
    OSError, ValueError
        If it cannot be read.
    """
    refuse_special(path)
    return Path(path).read_text(encoding="utf-8")


def read_json(path: str | Path, shape: Shape = dict) -> Any:
    """Return the content of a JSON file of this shape.

    Raises
    ------
    OSError, ValueError
        If it cannot be read, is no JSON, or is of another shape.
    """
    return parse_json(read_text(path), shape)


def parse_json(text: str, shape: Shape = dict) -> Any:
    """Return the content of a JSON text of this shape; ValueError if it is none."""
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    check_shape(content, shape)
    return content


def read_yaml(path: str | Path, shape: Shape = dict) -> Any:
    """Return the content of a YAML file of this shape.

    Raises
    ------
    OSError, ValueError
        If it cannot be read, is no YAML, gives a key twice, or is of another shape.
    """
    content = parse_yaml(read_text(path))
    check_shape(content, shape)
    return content


def parse_yaml(text: str) -> Any:
    """Return the content of a YAML text.

    Raises
    ------
    ValueError
        If it is no YAML, gives a key twice, or has more than 20 aliases or one inside itself.
    """
    try:
        return yaml.load(text, Loader=_StrictLoader)
    except (
        yaml.YAMLError,
        AttributeError,
        IndexError,
        KeyError,
        TypeError,
    ) as error:  # the last: a tag without its value
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def read_npz(path: str | Path, arrays: Mapping[str, tuple[str, int]]) -> dict[str, npt.NDArray[Any]]:
    """Return arrays of an ``.npz`` file.

    Parameters
    ----------
    path : path
    arrays : {name: (kinds, n_dimensions)}
        What is read: NumPy's letters of the kinds that are allowed (``"iu"``, ``"f"``, ``"U"``), and the number of
        dimensions. A name that ends with ``?`` may be missing; others are not read.

    Raises
    ------
    OSError, ValueError
        If it cannot be read, is damaged, or an array is missing or of another kind.
    """
    refuse_special(path)
    try:
        with np.load(path, allow_pickle=False) as stored:
            if not isinstance(stored, np.lib.npyio.NpzFile):
                raise ValueError("it is no archive of arrays")
            names = [name.removesuffix("?") for name in arrays if not name.endswith("?") or name[:-1] in stored.files]
            content = {name: np.asarray(stored[name]) for name in names}
    except (KeyError, EOFError, TypeError, SyntaxError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:
        raise ValueError(" ".join(str(error).split()).strip("'\"") or type(error).__name__) from error
    for name, array in content.items():
        kinds, n_dimensions = arrays.get(name) or arrays[f"{name}?"]
        if array.dtype.kind not in kinds or array.ndim != n_dimensions:
            expected = _KINDS.get(kinds[0], kinds)
            raise ValueError(
                f"{name} must be {expected} in {n_dimensions} dimensions; it is {array.dtype} of shape {array.shape}"
            )
    return content


def check_shape(value: object, shape: Shape, name: str = "it") -> None:
    """Refuse a value of another shape.

    Parameters
    ----------
    value : object
    shape : type, None, tuple, list or dict
        See this module.
    name : str
        How an error calls the value.

    Raises
    ------
    ValueError
    """
    if isinstance(shape, tuple):
        if not any(_is_of(value, choice) for choice in shape):
            raise ValueError(_mismatch(name, value, shape))
        for choice in shape:
            if _is_of(value, choice):
                check_shape(value, choice, name)
                return
    elif not _is_of(value, shape):
        raise ValueError(_mismatch(name, value, (shape,)))
    elif isinstance(shape, list):
        for number, item in enumerate(value):  # type: ignore[var-annotated,arg-type]
            check_shape(item, shape[0], f"{name}[{number}]")
    elif isinstance(shape, dict):
        _check_keys(value, shape, "" if name == "it" else f"{name}.")  # type: ignore[arg-type]


def _check_keys(value: Mapping[str, Any], shape: Mapping[Any, Shape], prefix: str) -> None:
    for key, part in shape.items():
        if key is str:
            for name, item in value.items():
                check_shape(item, part, f"{prefix}{name}")
            continue
        plain = key.removesuffix("?")
        if plain in value:
            check_shape(value[plain], part, f"{prefix}{plain}")
        elif plain == key:
            raise ValueError(f"{prefix}{key} is missing")


def _is_of(value: object, shape: Shape) -> bool:
    """Return whether a value is of the outermost type of a shape."""
    if shape is None:
        return value is None
    if isinstance(shape, (dict, list)):
        return isinstance(value, type(shape))
    if shape is object:
        return True
    if isinstance(value, bool):
        return bool(shape is bool)
    return isinstance(value, (int, float) if shape is float else shape)


def _mismatch(name: str, value: object, shapes: tuple[Shape, ...]) -> str:
    plain = [type(shape) if isinstance(shape, (dict, list)) else shape for shape in shapes]
    text = repr(value)
    shown = text if len(text) <= _LONGEST_VALUE else f"{text[:_LONGEST_VALUE]}…"
    return f"{name} must be {' or '.join(_WORDS.get(shape, str(shape)) for shape in plain)}; it is {shown}"


class _StrictLoader(yaml.SafeLoader):
    """The safe loader, which also refuses a key that is given twice and aliases that multiply."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self.n_aliases = 0
        self.unfinished: list[str | None] = []

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            self.n_aliases += 1
            if self.n_aliases > MOST_ALIASES or event.anchor in self.unfinished:
                raise yaml.composer.ComposerError(
                    None,
                    None,
                    f"at most {MOST_ALIASES} aliases are read, and none inside itself; write *{event.anchor} out",
                    None,
                )
        anchor = getattr(event, "anchor", None)
        self.unfinished.append(anchor)
        try:
            return super().compose_node(parent, index)
        finally:
            self.unfinished.pop()

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        for number, key in enumerate(keys):
            if key in keys[:number]:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep=deep)
