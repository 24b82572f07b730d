"""Grams on disk: a folder of shards from which an interrupted run can resume.

::

    manifest.json      configuration hash, settings, layers, sizes; written first
    sequences.npz      lengths, row order and, where known, users and targets
    pilot.safetensors  where popularity residuals are measured: mean states of the popularity bins
    shard-00000.npz    Grams of rows order[0:rows_per_shard], cut to their own longest sequence; …

Every file is written atomically, so an existing file is complete unless the disk failed; the checksums
inside an ``.npz`` detect that. Nothing is ever pickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spectral_probe.errors import ConfigError, DataError
from spectral_probe.recording.pilot import Pilot
from spectral_probe.storage.atomic import disk_errors, remove_partials, write_npz, write_text
from spectral_probe.storage.reading import read_json, read_npz
from spectral_probe.types import Float32Array

FORMAT = 1
PILOT_FILE = "pilot.safetensors"
#: Names in a shard of the Grams of the states as they are, and of the treated states.
KINDS = ("grams", "treated")
_MANIFEST = {
    "format": int,
    "config_hash": str,
    "settings": {"model?": str, "has_graph?": bool},
    "layer_names": [str],
    "layer_states": [str],
    "is_causal": bool,
    "n_sequences": int,
    "max_length": int,
    "rows_per_shard": int,
    "kinds?": [str],
    "pilot_hash?": str,
}
_SEQUENCES = {
    "lengths": ("iu", 1),
    "order": ("iu", 1),
    "users?": ("iu", 1),
    "targets?": ("iu", 2),
    "inputs?": ("iu", 2),
}


@dataclass(frozen=True)
class ShardFolder:
    """A folder of Gram shards with its manifest.

    Attributes
    ----------
    path : Path
    manifest : dict
        ``format``, ``config_hash``, ``settings``, ``layer_names``, ``layer_states``, ``is_causal``, ``n_sequences``,
        ``max_length`` and ``rows_per_shard``; ``kinds`` and ``pilot_hash`` if the shards hold Grams of treated states
        too.
    arrays : dict of arrays
        ``lengths`` and ``order``, both (n_sequences,), and possibly ``users``, ``targets`` and ``inputs``.
    """

    path: Path
    manifest: dict[str, Any]
    arrays: dict[str, npt.NDArray[Any]]

    @classmethod
    def create(
        cls, path: str | Path, manifest: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]
    ) -> ShardFolder:
        """Return a new folder; nothing is written before :meth:`begin`.

        Raises
        ------
        ConfigError
            If the folder holds Grams already.
        """
        folder = cls(Path(path), {"format": FORMAT, **manifest}, dict(arrays))
        if (folder.path / "manifest.json").exists():
            raise ConfigError(
                f"Saved Grams are never overwritten, and {str(folder.path)!r} holds some. Choose another folder, or "
                "resume an unfinished capture (resume=True, --resume)."
            )
        return folder

    def begin(self) -> None:
        """Write the manifest and the sequences if they are missing; delete the partial files of a killed process."""
        with self._disk_errors():
            self.path.mkdir(parents=True, exist_ok=True)
            remove_partials(self.path)
            if not (self.path / "manifest.json").exists():
                write_npz(self.path / "sequences.npz", self.arrays)
                write_text(self.path / "manifest.json", json.dumps(self.manifest, indent=1, sort_keys=True))

    @classmethod
    def open(cls, path: str | Path) -> ShardFolder:
        """Read the manifest and the sequences of a folder.

        Raises
        ------
        DataError
            If it is not a folder of Grams, or damaged.
        """
        path = Path(path)
        try:
            manifest = read_json(path / "manifest.json", _MANIFEST)
            if manifest["format"] != FORMAT:
                raise ValueError(f"it has format {manifest['format']}, and this version reads {FORMAT}")
            arrays = read_npz(path / "sequences.npz", _SEQUENCES)
            _check_agreement(manifest, arrays)
            if (path / PILOT_FILE).exists():  # else it is missed when it is loaded
                _check_pilot(manifest)
        except (OSError, ValueError) as error:
            raise DataError(
                f"A folder of Grams holds manifest.json and sequences.npz; {str(path)!r} cannot be read: {error}. "
                "Give the grams/ folder of a run, or capture again."
            ) from error
        return cls(path, manifest, arrays)

    @classmethod
    def resume(
        cls, path: str | Path, manifest: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]
    ) -> ShardFolder:
        """Open a folder of the same configuration to resume it; if there is none, return a new one.

        Raises
        ------
        ConfigError
            If its shards belong to another configuration.
        """
        if not (Path(path) / "manifest.json").exists():
            return cls.create(path, manifest, arrays)
        folder = cls.open(path)
        if folder.manifest["config_hash"] != manifest["config_hash"]:
            old, new = folder.manifest["settings"], manifest["settings"]
            differing = [
                f"{key} ({old.get(key)!r} there, {new.get(key)!r} here)"
                for key in sorted(set(old) | set(new))
                if old.get(key) != new.get(key)
            ]
            raise ConfigError(
                f"A capture resumes only with the same configuration; {str(folder.path)!r} differs in "
                f"{', '.join(differing) or 'its inputs'}. Use the same options, or another folder."
            )
        return folder

    def __len__(self) -> int:
        """Number of shards of the finished capture."""
        return -(-int(self.manifest["n_sequences"]) // int(self.manifest["rows_per_shard"]))

    def rows(self, shard: int) -> npt.NDArray[np.int64]:
        """Return the sequences whose Grams a shard holds, in its order."""
        step = int(self.manifest["rows_per_shard"])
        return np.asarray(self.arrays["order"][shard * step : (shard + 1) * step], dtype=np.int64)

    @property
    def n_kinds(self) -> int:
        """Grams of a layer and sequence: 1, or 2 with those of the treated states."""
        return len(self.manifest.get("kinds", KINDS[:1]))

    def save_pilot(self, pilot: Pilot) -> None:
        """Store the pilot beside the shards and its hash in the manifest; call it before :meth:`begin`."""
        with self._disk_errors():
            self.path.mkdir(parents=True, exist_ok=True)
            pilot.save(self.path / PILOT_FILE)
        self.manifest["pilot_hash"] = pilot.hash

    def load_pilot(self) -> Pilot | None:
        """Return the pilot of the shards, or None if they have none.

        Raises
        ------
        DataError
            If its file is missing or damaged, or is not the one the shards were made with.
        """
        if not self.manifest.get("pilot_hash"):
            return None
        pilot = Pilot.load(self.path / PILOT_FILE)
        if pilot.hash != self.manifest["pilot_hash"]:
            raise DataError(
                f"The shards in {str(self.path)!r} were made with another pilot than its {PILOT_FILE} "
                f"(hash {pilot.hash[:8]}, not {str(self.manifest['pilot_hash'])[:8]}). Capture again in another folder."
            )
        return pilot

    def write(self, shard: int, grams: Float32Array) -> None:
        """Store one finished shard, (n_kinds, n_rows, n_layers, T, T)."""
        arrays = dict(zip(KINDS, grams, strict=False))
        with self._disk_errors():
            write_npz(self._file(shard), {**arrays, "config_hash": np.array(str(self.manifest["config_hash"]))})

    def read(self, shard: int) -> Float32Array | None:
        """Return a shard's Grams, (n_kinds, n_rows, n_layers, T, T), or None if it is missing or damaged.

        Raises
        ------
        ConfigError
            If the shard is whole but was made under another configuration.
        """
        rows = self.rows(shard)
        longest = int(self.arrays["lengths"][rows].max())
        expected = (len(rows), len(self.manifest["layer_names"]), longest, longest)
        names = KINDS[: self.n_kinds]
        try:
            stored = read_npz(self._file(shard), {**dict.fromkeys(names, ("f", 4)), "config_hash": ("U", 0)})
        except (OSError, ValueError):
            return None
        kinds, config_hash = [stored[name] for name in names], str(stored["config_hash"])
        if config_hash != self.manifest["config_hash"]:
            raise ConfigError(
                f"{str(self._file(shard))!r} was made under another configuration than its manifest "
                f"({config_hash[:8]}, not {self.manifest['config_hash'][:8]}). Remove the file, or use another folder."
            )
        if any(g.shape != expected or g.dtype != np.float32 or not np.isfinite(g).all() for g in kinds):
            return None
        return np.stack(kinds)

    def _disk_errors(self) -> AbstractContextManager[None]:
        next_step = (
            "Free some space or choose another folder; finished shards are kept, so resume=True continues from them."
        )
        return disk_errors(self.path, what="Writing Grams", next_step=next_step)

    def _file(self, shard: int) -> Path:
        return self.path / f"shard-{shard:05d}.npz"


def _check_pilot(manifest: Mapping[str, Any]) -> None:
    """Raise ValueError if a manifest beside a pilot does not name it, or not the Grams of the treated states."""
    if "pilot_hash" not in manifest or KINDS[1] not in manifest.get("kinds", ()):
        raise ValueError(f"it has a {PILOT_FILE}, and lacks pilot_hash, or {KINDS[1]!r} in kinds")


def _check_agreement(manifest: Mapping[str, Any], arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Raise ValueError unless the sizes in a manifest are those of its sequences."""
    n, n_layers = manifest["n_sequences"], len(manifest["layer_names"])
    for name in ("n_sequences", "max_length", "rows_per_shard"):
        if manifest[name] < 1:
            raise ValueError(f"{name} must be at least 1; it is {manifest[name]}")
    if not n_layers or len(manifest["layer_states"]) != n_layers:
        raise ValueError(f"it has {n_layers} layer_names and {len(manifest['layer_states'])} layer_states")
    for name, array in arrays.items():
        if len(array) != n:
            raise ValueError(f"it has {n} sequences, and {name} of {len(array)}")
    lengths, longest = arrays["lengths"], manifest["max_length"]
    if lengths.min() < 1 or lengths.max() > longest:
        raise ValueError(f"lengths must lie in 1…{longest}; they are {lengths.min()}…{lengths.max()}")
    if not np.array_equal(np.sort(arrays["order"]), np.arange(n)):
        raise ValueError(f"order must name each of {n} sequences once")
