"""What a checkpoint of RecBole holds, read without running anything that it names."""

from __future__ import annotations

import io
import pickle
import pickletools
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from spectral_probe.errors import ModelError

#: Packages whose names a checkpoint holds: of its configuration, and of the score of the best epoch.
KNOWN_PACKAGES = ("numpy", "recbole", "yaml")
_PROTOCOL = 2
_TEXT = ("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "UNICODE")
_BYTES = ("SHORT_BINBYTES", "BINBYTES", "BINBYTES8")
#: Operations of later protocols on sets, and those of protocol 2 that make a list or a tuple of the same values.
_SETS = {"EMPTY_SET": b"]", "ADDITEMS": b"e", "FROZENSET": b"t"}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of RecBole.

    Attributes
    ----------
    path : Path
    config : dict
        Settings of the model, its training and its data, by RecBole's names.
    tensors : {name: tensor}
        Weights by RecBole's names, on the CPU.
    """

    path: Path
    config: dict[str, Any]
    tensors: dict[str, torch.Tensor]


class StandIn:
    """Takes the place of every class and function that a checkpoint names, and does nothing but keep its state."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.state: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, dict) else {}


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Return the settings and the weights of a checkpoint that RecBole wrote.

    RecBole pickles its configuration object. The file is read by ``torch.load(weights_only=True)``, where a
    :class:`StandIn` takes the place of every name of RecBole, YAML and NumPy; a file with another name is refused. So
    RecBole is not needed, and nothing that the file names is imported or called.

    Raises
    ------
    ModelError
        If the file cannot be read, names what no checkpoint of RecBole names, or lacks the settings or the weights.
    """
    path = Path(path)
    try:
        source = _readable(path)
        names = get_unsafe_globals_in_checkpoint(source)
        strange = sorted(name for name in names if name.split(".")[0] not in KNOWN_PACKAGES)
        if strange:
            raise ModelError(
                f"A checkpoint of RecBole names classes of {', '.join(KNOWN_PACKAGES)}; {path} also names "
                f"{', '.join(strange[:3])}. Nothing of it was run. Do not load this file if you do not know who wrote "
                "it; else save its configuration as a plain dictionary, see docs/recbole.md."
            )
        source.seek(0)
        with safe_globals([(StandIn, name) for name in names]):
            content = torch.load(source, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as error:
        if isinstance(error, ModelError):
            raise
        reason = str(error).strip().split("\n")[0][:200]
        raise ModelError(
            f"{path} cannot be read as a checkpoint of RecBole: {reason}. Give the .pth file that RecBole saved."
        ) from error
    return _checked(path, content)


def _checked(path: Path, content: Any) -> Checkpoint:
    """Return the parts of a checkpoint that are used."""
    content = content if isinstance(content, dict) else {}
    config, tensors = content.get("config"), content.get("state_dict")
    if isinstance(config, StandIn):
        config = config.state.get("final_config_dict")
    if not isinstance(config, dict) or not isinstance(tensors, dict):
        raise ModelError(
            f"A checkpoint of RecBole holds 'config' and 'state_dict'; {path} holds {sorted(map(str, content))[:6]}. "
            "The number of attention heads, for one, is in the configuration alone. Give the file as RecBole saved it, "
            "or see docs/recbole.md."
        )
    if not all(isinstance(tensor, torch.Tensor) for tensor in tensors.values()):
        raise ModelError(f"The 'state_dict' of {path} must hold tensors alone. Give the file as RecBole saved it.")
    return Checkpoint(path, config, {str(name): tensor.float() for name, tensor in tensors.items()})


def _readable(path: Path) -> io.BytesIO:
    """Return the bytes of a file, with its pickle in the protocol that ``weights_only=True`` reads.

    RecBole saves with protocol 4, of which PyTorch's restricted reader does not know all operations.
    """
    content = io.BytesIO(path.read_bytes())
    if not zipfile.is_zipfile(content):
        content.seek(0)
        return content
    source, rewritten = zipfile.ZipFile(content), io.BytesIO()
    with zipfile.ZipFile(rewritten, "w", zipfile.ZIP_STORED) as target:
        for name in source.namelist():
            record = source.read(name)
            target.writestr(name, as_protocol_2(record) if name.rpartition("/")[2] == "data.pkl" else record)
    rewritten.seek(0)
    return rewritten


def as_protocol_2(pickled: bytes) -> bytes:
    """Return a pickle in the operations of protocol 2; a pickle of protocol 2 or below as it is.

    Operations are rewritten one by one, and none is carried out. Bytes become text, sets become lists, and a text that
    is used again is written again.

    Raises
    ------
    ValueError
        If the pickle is malformed.
    """
    if len(pickled) < 2 or pickled[0] != pickle.PROTO[0] or pickled[1] <= _PROTOCOL:
        return pickled
    operations = list(pickletools.genops(pickled))
    ends = [position for _, _, position in operations[1:]] + [len(pickled)]
    parts: list[bytes] = []
    texts: list[str | None] = []  # of each part, the text that it puts on the stack
    memo: list[str | None] = []  # of each numbered object, the text that it is

    def write(part: bytes, text: str | None = None) -> None:
        parts.append(part)
        texts.append(text)

    def write_text(text: str) -> None:
        encoded = text.encode("utf-8", "surrogatepass")
        write(pickle.BINUNICODE + len(encoded).to_bytes(4, "little") + encoded, text)

    argument: Any
    for (operation, argument, start), end in zip(operations, ends, strict=True):
        name = operation.name
        if name == "PROTO":
            write(pickle.PROTO + bytes([_PROTOCOL]))
        elif name in _TEXT:
            write_text(argument)
        elif name in _BYTES:
            write_text(argument.decode("latin-1"))
        elif name in _SETS:
            write(_SETS[name])
        elif name == "MEMOIZE":
            memo.append(texts[-1])
            if texts[-1] is None:
                write(pickle.LONG_BINPUT + (len(memo) - 1).to_bytes(4, "little"))
        elif name in ("BINGET", "LONG_BINGET") and argument < len(memo) and memo[argument] is not None:
            write_text(str(memo[argument]))
        elif name == "STACK_GLOBAL":
            module, attribute = texts[-2:]
            if module is None or attribute is None or "\n" in module + attribute:
                raise ValueError("a class or function is named by something else than two texts")
            del parts[-2:], texts[-2:]
            write(f"c{module}\n{attribute}\n".encode())
        elif name != "FRAME":
            write(pickled[start:end])
    return b"".join(parts)
