"""GGUF files: converted once into a folder of safetensors in the cache, and read from there.

transformers dequantises the weights and takes back the order in which llama.cpp stores queries and keys. What it would
drop without a word is refused here: damaged files, unused tensors, scaled rotary frequencies.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import torch

from spectral_probe.backbones.gguf_format import describe_formats
from spectral_probe.backbones.gguf_rotary import FACTORS, llama3_settings
from spectral_probe.backbones.hub_access import quiet
from spectral_probe.backbones.hub_errors import failure, first_line
from spectral_probe.backbones.packaged import GGUF_INSTALL, has_gguf_reader
from spectral_probe.errors import MissingDependencyError, ModelError, ResourceError
from spectral_probe.storage.atomic import disk_errors, whole_folder, write_text
from spectral_probe.storage.cache import CACHE_VARIABLE, cache_root
from spectral_probe.storage.known_hashes import known_file_hash

logger = logging.getLogger("spectral_probe")

#: Increased whenever the same file would be converted to something else; conversions of before are then not used.
CONVERSION = 1
FACTS_FILE = "gguf.json"
_NEXT_STEP = f"Free some space, or set {CACHE_VARIABLE} to a folder on another disk."
_SPLIT = re.compile(r"-\d{5}-of-\d{5}\.gguf$")


def find_gguf(name: str) -> Path | None:
    """Return the GGUF file that a name means: the file, or the only one in a folder without safetensors weights.

    Raises
    ------
    ModelError
        If the name ends with ``.gguf`` and there is no such file, or a folder holds several.
    """
    path = Path(name).expanduser()
    if path.suffix.lower() == ".gguf" and not path.is_dir():
        if not path.is_file():
            raise ModelError(f"There is no file {name!r}. Check the path of the GGUF file.")
        return path
    if not path.is_dir() or any(path.glob("*.safetensors")):
        return None
    files = sorted(file for file in path.iterdir() if file.suffix.lower() == ".gguf")
    if len(files) > 1:
        shown = ", ".join(file.name for file in files[:3])
        raise ModelError(
            f"A folder is read as a model if it holds exactly one GGUF file; {name!r} holds {len(files)} ({shown}). "
            "Give the path of one of them; parts of a split model must be merged first."
        )
    return files[0] if files else None


def converted_folder(file: Path) -> tuple[Path, str]:
    """Return the folder of a GGUF file's model, converted on first use, and its number format in words.

    The folder is in the cache under the SHA-256 of the file. Of two processes that convert at the same time, the first
    that is done keeps its folder.

    Raises
    ------
    MissingDependencyError
        If the file is not converted yet and the package ``gguf`` is not installed.
    ModelError
        If the file is damaged, of an architecture that is not supported, or holds something that would be dropped.
    ResourceError
        If memory or disk do not suffice.
    """
    try:
        sha256 = known_file_hash(file)
    except OSError as error:
        raise ModelError(f"{str(file)!r} cannot be read: {error}. Check its permissions.") from error
    folder = cache_root() / "gguf" / str(CONVERSION) / sha256
    if not folder.is_dir():
        _convert(file, folder)
    return folder, _facts(folder)["number_format"]


def gguf_config(file: Path) -> Any:
    """Return the configuration of a GGUF file's model; no weights are read.

    Raises
    ------
    MissingDependencyError, ModelError
        See :func:`converted_folder`.
    """
    from transformers import AutoConfig

    _open(file)
    try:
        with quiet():
            config: Any = AutoConfig.from_pretrained(str(file.parent), gguf_file=file.name)
    except Exception as error:  # transformers raises many types
        raise _unreadable(file, first_line(error)) from error
    config.dtype = torch.float32
    return config


def _facts(folder: Path) -> dict[str, Any]:
    """Return what a conversion wrote about itself, after comparing the sizes of its files."""
    try:
        facts: dict[str, Any] = json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))
        is_whole = all((folder / name).stat().st_size == size for name, size in facts["sizes"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        is_whole = False
    if not is_whole:
        raise ModelError(
            f"The converted model in {str(folder)!r} is damaged. Delete that folder; the next run converts the file "
            "again."
        )
    return facts


def _open(file: Path) -> Any:
    """Return a reader of a GGUF file whose tensors all lie within the file."""
    if not has_gguf_reader():
        raise MissingDependencyError(
            f"{str(file)!r} is read with the package gguf, which is not installed. Run: {GGUF_INSTALL}"
        )
    from gguf import GGUFReader

    try:
        with file.open("rb") as stream:
            beginning = stream.read(4)
    except OSError as error:
        raise ModelError(f"{str(file)!r} cannot be read: {error}. Check its permissions.") from error
    if beginning != b"GGUF":
        raise ModelError(
            f"A GGUF file begins with the bytes 'GGUF'; {str(file)!r} begins with {beginning!r}. Download it again; a "
            "repository cloned without git-lfs holds small text files in place of the weights."
        )
    try:
        reader = GGUFReader(file)
        is_whole = all(tensor.data_offset + tensor.n_bytes <= file.stat().st_size for tensor in reader.tensors)
    except Exception as error:  # NumPy, struct and Unicode errors, KeyError, and the reader's own ValueError
        raise ModelError(
            f"The GGUF file {str(file)!r} is damaged or not complete ({first_line(error)}). Download it again."
        ) from error
    if not is_whole or not reader.tensors:
        raise ModelError(f"The GGUF file {str(file)!r} is not complete: tensors are missing. Download it again.")
    if _SPLIT.search(file.name):
        raise ModelError(
            f"{file.name!r} is one part of a split model. Merge the parts with llama.cpp's gguf-split --merge, and "
            "give the result."
        )
    return reader


def _convert(file: Path, folder: Path) -> None:
    """Dequantise a GGUF file and save model, tokenizer and facts to a folder of the cache."""
    reader = _open(file)
    n_elements = sum(int(tensor.n_elements) for tensor in reader.tensors)
    with disk_errors(folder.parent, next_step=_NEXT_STEP):
        folder.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder.parent).free
    if 4 * n_elements > free:
        raise ResourceError(
            f"{file.name!r} takes {4 * n_elements / 2**30:.1f} GiB as float32; {str(folder.parent)!r} has "
            f"{free / 2**30:.1f} GiB free. {_NEXT_STEP}"
        )
    logger.info("converting %s to float32 in %s; this is done once", file.name, folder.parent)
    model = _load(file, reader)
    tokenizer, problem = _tokenizer(file)
    facts: dict[str, Any] = {
        "file": file.name,
        "number_format": describe_formats(reader.tensors),
        "tokenizer": problem or "converted",
    }
    with disk_errors(folder, next_step=_NEXT_STEP), whole_folder(folder) as partial:
        with quiet():
            model.save_pretrained(partial)
            if tokenizer is not None:
                tokenizer.save_pretrained(partial)
        facts["sizes"] = {path.name: path.stat().st_size for path in sorted(partial.glob("*.safetensors"))}
        write_text(partial / FACTS_FILE, json.dumps(facts, indent=2))


def _load(file: Path, reader: Any) -> Any:
    """Return the float32 model of a GGUF file, without the traces of quantisation that forbid saving it."""
    from transformers import AutoModelForCausalLM

    try:
        with quiet():
            load: Any = AutoModelForCausalLM.from_pretrained
            model, report = load(
                str(file.parent),
                gguf_file=file.name,
                dtype=torch.float32,
                output_loading_info=True,
                **_dequantised(),
            )
    except Exception as error:
        known = failure(str(file), error)
        if isinstance(known, ResourceError):
            raise known from error
        raise _unreadable(file, first_line(error)) from error
    n_factors = _scale_rotary(reader, model)
    _refuse_losses(file, reader, model, report, n_factors)
    for name in ("hf_quantizer", "is_quantized", "quantization_method"):
        if name in vars(model):
            delattr(model, name)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.config.architectures = [type(model).__name__]
    model.config.dtype = torch.float32
    return model


def _dequantised() -> dict[str, Any]:
    """Return the option that unpacks the weights on every device; older versions of transformers always do."""
    from transformers.utils import quantization_config

    make: Any = getattr(quantization_config, "GgufConfig", None)
    return {} if make is None else {"quantization_config": make(dequantize=True)}


def _scale_rotary(reader: Any, model: Any) -> int:
    """Set a Llama 3 model's scaled rotary frequencies in its configuration; return how many factors were used."""
    tensor = next((tensor for tensor in reader.tensors if tensor.name == FACTORS), None)
    if tensor is None or model.config.model_type != "llama":
        return 0
    settings = llama3_settings(model.config, tensor.data)
    if settings is None:
        return 0
    model.config.rope_parameters = settings
    return int(tensor.n_elements)


def _refuse_losses(file: Path, reader: Any, model: Any, report: dict[str, Any], n_used: int) -> None:
    """Raise ModelError if the model is not the one in the file: transformers leaves out what it does not know."""
    missing = sorted(report.get("missing_keys") or ()) + sorted(map(str, report.get("mismatched_keys") or ()))
    if missing:
        raise _unreadable(file, f"{len(missing)} weights of the model are not in the file, first {missing[0]}")
    in_file = sum(int(tensor.n_elements) for tensor in reader.tensors) - n_used
    in_model = sum(parameter.numel() for parameter in model.parameters())
    if in_file != in_model:
        extra = _untaken(reader, model)
        named = f" ({', '.join(extra[:3])}{f' and {len(extra) - 3} more' if len(extra) > 3 else ''})" if extra else ""
        raise _unreadable(
            file,
            f"the file holds {in_file:,} numbers and the model read from it {in_model:,}; some were left out{named}",
        )
    scaling = [key for key in reader.fields if key.endswith(".rope.scaling.type")]
    wanted = str(reader.fields[scaling[0]].contents()) if scaling else "none"
    rope: dict[str, Any] = getattr(model.config, "rope_parameters", None) or {}
    if wanted != "none" and rope.get("rope_type", "default") == "default":
        raise _unreadable(file, f"it scales its rotary frequencies ({wanted}), and this would be left out")
    bad = next((name for name, value in model.state_dict().items() if not bool(torch.isfinite(value).all())), None)
    if bad is not None:
        raise ModelError(f"The GGUF file {str(file)!r} is damaged: {bad} is not finite. Download it again.")


def _untaken(reader: Any, model: Any) -> list[str]:
    """Return the tensors that transformers has no module for; those it merges into one are not judged."""
    from transformers import modeling_gguf_pytorch_utils as reading

    processors: Any = getattr(reading, "TENSOR_PROCESSORS", {})
    try:
        make = processors.get(str(model.config.model_type), reading.TensorProcessor)
        taken = set(reading.get_gguf_hf_weights_map(model, make(config=vars(model.config))))
    except Exception:  # its inner workings may change; without them only tensors of other kinds are named
        return [tensor.name for tensor in reader.tensors if tensor.name.startswith(("rope", "v.", "mm."))]
    return [tensor.name for tensor in reader.tensors if tensor.name not in taken and "_exps." not in tensor.name]


def _tokenizer(file: Path) -> tuple[Any, str]:
    """Return the tokenizer of a GGUF file and an empty string, or None and why there is none."""
    from transformers import AutoTokenizer

    try:
        with quiet():
            return AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name), ""
    except Exception as error:  # tokenizers raise many types, among them a bare Exception from Rust
        reason = f"none: {first_line(error)} ({type(error).__name__})"
        logger.warning("%s: no tokenizer could be read, so titles cannot (%s)", file.name, reason)
        return None, reason


def _unreadable(file: Path, reason: str) -> ModelError:
    from transformers import __version__

    return ModelError(
        f"The GGUF file {str(file)!r} cannot be read by transformers {__version__}: {reason.rstrip('.')}. Give a "
        "folder with the model's safetensors weights instead."
    )
