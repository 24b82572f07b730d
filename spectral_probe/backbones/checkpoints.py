"""Read a folder or a repository into a decoder, and refuse incomplete weights."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from spectral_probe.backbones.configs import check_config, without_pooler
from spectral_probe.backbones.decoder import HFDecoder
from spectral_probe.backbones.hub_access import HubAccess
from spectral_probe.backbones.hub_errors import failure
from spectral_probe.backbones.hub_progress import counted_download
from spectral_probe.backbones.left_over import check_left_over, refuse_integers
from spectral_probe.backbones.weight_files import check_folder_weights, snapshot
from spectral_probe.errors import ConfigError, MissingDependencyError, ModelError

logger = logging.getLogger("spectral_probe")

DeviceMap = str | Mapping[str, int | str | torch.device]
#: An encoder's pooler is not part of the body that is probed, so a checkpoint may lack it.
_DISPENSABLE = "pooler."


@dataclass(frozen=True)
class Reading:
    """How weights are read.

    Attributes
    ----------
    dtype : torch.dtype or None
        None keeps the checkpoint's.
    device : torch.device
        Device of a model that is not spread.
    device_map : str, mapping or None
        How accelerate spreads the model.
    quantize : {None, "8bit"}
    trust_remote_code, allow_pickle : bool
    """

    dtype: torch.dtype | None
    device: torch.device
    device_map: DeviceMap | None = None
    quantize: Literal["8bit"] | None = None
    trust_remote_code: bool = False
    allow_pickle: bool = False

    def __post_init__(self) -> None:
        if self.quantize not in (None, "8bit"):
            raise ConfigError(f"quantize must be None or '8bit'; got {self.quantize!r}.")
        if self.quantize and importlib.util.find_spec("bitsandbytes") is None:
            raise MissingDependencyError(
                "quantize='8bit' needs the package bitsandbytes, which is not installed. "
                'Run: pip install "spectral-probe[quant]"'
            )
        if isinstance(self.device_map, str) and self.device_map not in ("auto", "balanced", "sequential"):
            raise ConfigError(
                f"device_map must be 'auto', 'balanced', 'sequential' or a mapping of module names to devices; got "
                f"{self.device_map!r}. Use device= to put the whole model on one device."
            )

    @property
    def is_loaded_to_devices(self) -> bool:
        """Whether the weights go to their devices while they are read, and must not be moved afterwards."""
        return self.device_map is not None or self.quantize is not None


def read_decoder(source: str, name: str, reading: Reading, access: HubAccess, **settings: Any) -> HFDecoder:
    """Return the decoder in a folder or a repository; unusable families are refused before weights are downloaded.

    Parameters
    ----------
    source : str
        Folder, or ``owner/name`` on the hub.
    name : str
        Name of the model in outputs.
    reading : Reading
    access : HubAccess
        Which commit, and whether the hub may be asked.
    **settings
        Changes to the configuration.

    Raises
    ------
    ModelError, ResourceError
        See :func:`spectral_probe.backbones.hub_errors.failure`; also if weights are missing, of another shape,
        or left over although they belong to the body (see :mod:`spectral_probe.backbones.left_over`).
    """
    from huggingface_hub import constants
    from transformers import AutoConfig, AutoModel

    hub_options: dict[str, Any] = {
        "revision": access.revision,
        "local_files_only": access.local_files_only,
        "trust_remote_code": reading.trust_remote_code,
    }
    try:
        with access.reading():
            config = AutoConfig.from_pretrained(source, **hub_options, **settings)
    except Exception as error:  # the hub client, the file system and the parser each have their own exceptions
        raise failure(source, error, access) from error
    check_config(config, str(config.model_type))
    if Path(source).is_dir():
        check_folder_weights(Path(source), allow_pickle=reading.allow_pickle)
    try:
        with access.reading(), counted_download(source, access.to_fetch, Path(constants.HF_HUB_CACHE)):
            model, report = AutoModel.from_pretrained(
                source,
                config=config,
                use_safetensors=None if reading.allow_pickle else True,
                dtype=reading.dtype or "auto",
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are refused below, with their shapes
                **hub_options,
                **_device_options(reading),
                **without_pooler(config),
            )
    except Exception as error:
        raise failure(source, error, access) from error
    # transformers initialises missing weights at random without an error; the curve would be of another model.
    missing = sorted(key for key in report["missing_keys"] if not key.startswith(_DISPENSABLE))
    mismatched = sorted(report.get("mismatched_keys") or ())
    if missing or mismatched:
        shapes = [f"{name} is {_shape(stored)} and should be {_shape(wanted)}" for name, stored, wanted in mismatched]
        raise ModelError(
            f"The weights in {source!r} do not fit the model that config.json describes: {len(missing)} missing "
            f"(first: {', '.join(missing[:3]) or 'none'}), {len(mismatched)} of another shape"
            f"{f' (first: {shapes[0]})' if shapes else ''}. They would be initialised at random. Download the folder "
            "again, or correct config.json."
        )
    decoder = HFDecoder(
        model,
        name=name,
        source=source,
        access=access,
        quantization=reading.quantize,
        trust_remote_code=reading.trust_remote_code,
    )
    files = snapshot(source, access.revision)
    if files is not None:
        refuse_integers(files, config)
    decoder.left_over = check_left_over(decoder.model, decoder.blocks_path, report["unexpected_keys"], files, source)
    if decoder.left_over:
        logger.warning("%s: %d weights or files were not read: %s", name, *_shown(decoder.left_over))
    return decoder


def _shape(shape: Any) -> str:
    return "×".join(map(str, shape)) or "a number"


def _shown(names: tuple[str, ...]) -> tuple[int, str]:
    return len(names), ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def _device_options(reading: Reading) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if reading.device_map is not None:
        device_map = reading.device_map
        options["device_map"] = device_map if isinstance(device_map, str) else dict(device_map)
    if reading.quantize == "8bit":
        from transformers import BitsAndBytesConfig

        make: Any = BitsAndBytesConfig
        options["quantization_config"] = make(load_in_8bit=True)
        options.setdefault("device_map", {"": reading.device})
    return options
