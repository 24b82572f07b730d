"""Where an exploration gets its Grams, and how it is stored in the cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spectral_probe.analysis.exchanged_items import ENTRY, embed_sd, entry_of
from spectral_probe.analysis.exploration import TAUS, Exploration
from spectral_probe.analysis.options import MAIN, AnalysisOptions
from spectral_probe.analysis.saved_options import saved_config
from spectral_probe.errors import DataError
from spectral_probe.profiles.profile import DecayProfile
from spectral_probe.profiles.shown import Captured
from spectral_probe.recording.layer_grams import LayerGrams
from spectral_probe.runs.analysis_run import AnalysisRun
from spectral_probe.spectrum.components import COMPONENTS
from spectral_probe.spectrum.energy import NULLS
from spectral_probe.spectrum.nodes import Nodes
from spectral_probe.spectrum.result import SpectralEnergy
from spectral_probe.storage.atomic import write_npz
from spectral_probe.storage.cache import cache_root, only_a_cache
from spectral_probe.storage.hashing import digest, file_hash
from spectral_probe.storage.reading import read_npz

_FORMAT = 1
_ARRAYS = {
    **dict.fromkeys(("energy",), ("f", 3)),
    **dict.fromkeys(("total", "eigenvalues"), ("f", 2)),
    **{f"null_energy.{name}": ("f", 3) for name in NULLS},
    **dict.fromkeys(("lengths", "layer_index"), ("iu", 1)),
    **dict.fromkeys(("layer_names", "layer_states"), ("U", 1)),
    "is_valid": ("b", 1),
    "weights": ("f", 2),
    "times": ("f", 1),
    "whole_times": ("f", 1),
    **{f"excess.{name}": ("f", 3) for name in COMPONENTS},
}


def explore_profile(
    profile: DecayProfile, *, taus: Sequence[float] = TAUS, nodes: Nodes = "carried", progress: bool | None = None
) -> Exploration:
    """Return the exploration of the Grams that a profile was computed from; of a run it is cached.

    Parameters
    ----------
    profile : DecayProfile
        Of :func:`spectral_probe.analyze`, or loaded from a run folder.
    taus, nodes, progress
        See :meth:`Exploration.build`.

    Raises
    ------
    DataError
        If the profile has no Grams, or they cannot be read.
    ConfigError
        See :meth:`Exploration.build`.
    """
    source = profile.source
    settings: dict[str, Any] = {"taus": taus, "nodes": nodes, "embed_sd": embed_sd(profile.protocol)}
    if source is None:
        raise DataError(
            "This profile does not know where its Grams are: it was made from energies alone. Take the profile of "
            "analyze(...), or DecayProfile.load of a run folder."
        )
    if isinstance(source, Captured):
        options = AnalysisOptions.from_saved(profile.protocol["options"])
        return Exploration.build(source.grams, source.graph, options, progress=progress, **settings)
    run = AnalysisRun.open(source)
    grams_run = run.grams_run()
    options = AnalysisOptions.from_saved(saved_config(run)["options"])
    folder = grams_run.grams_path(MAIN)
    if not folder.is_dir():
        raise DataError(f"{folder} holds no saved Grams. Run the analysis again from the model.")
    if ENTRY not in profile.protocol:  # a re-analysis of an earlier version: only its source has the entry
        settings["embed_sd"] = embed_sd(entry_of(grams_run))
    files = sorted(path for path in folder.iterdir() if path.is_file())
    wanted = repr((_FORMAT, options, sorted({*map(float, taus)}), nodes))
    key = digest([wanted, *(f"{path.name} {file_hash(path)}" for path in (*files, grams_run.path / "graph.npz"))])
    path = cache_root() / "explore" / f"explore-{key[:32]}.npz"
    exploration = _read(path, options, settings["embed_sd"], nodes)
    if exploration is None:
        grams, graph = LayerGrams.load(folder), grams_run.load_graph()
        cache_dir = cache_root() / "heat"
        exploration = Exploration.build(grams, graph, options, cache_dir=cache_dir, progress=progress, **settings)
        with only_a_cache(path):
            write_npz(path, dict(_arrays(exploration)))
    return exploration


def _arrays(exploration: Exploration) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Yield what is stored, by name."""
    energy = exploration.energy
    for name in ("energy", "total", "eigenvalues", "lengths", "is_valid"):
        yield name, getattr(energy, name)
    for name in ("layer_index", "layer_names", "layer_states"):
        yield name, np.array(getattr(energy, name))
    for name, values in energy.null_energy.items():
        yield f"null_energy.{name}", values
    yield "times", np.array(list(exploration.weights))
    yield "weights", np.stack(list(exploration.weights.values()))
    yield "whole_times", np.array(list(exploration.excess["whole"]))
    for name, by_tau in exploration.excess.items():
        yield f"excess.{name}", np.stack(list(by_tau.values()))


def _read(path: Path, options: AnalysisOptions, embed_sd: float, nodes: Nodes) -> Exploration | None:
    """Return a stored exploration; None if there is none that can be read."""
    try:
        stored = read_npz(path, _ARRAYS)
    except (OSError, ValueError):
        return None
    times, whole_times = stored["times"].tolist(), stored["whole_times"].tolist()
    names = ("energy", "total", "eigenvalues", "lengths", "is_valid")
    arrays: dict[str, Any] = {name: stored[name] for name in names}
    energy = SpectralEnergy(
        **arrays,
        null_energy={name: stored[f"null_energy.{name}"] for name in NULLS},
        low=np.empty(0),
        null_low={},
        skipped={},
        layer_names=tuple(stored["layer_names"].tolist()),
        layer_states=tuple(stored["layer_states"].tolist()),
        layer_index=tuple(stored["layer_index"].tolist()),
    )
    excess = {
        name: dict(zip(whole_times if name == "whole" else times, stored[f"excess.{name}"], strict=True))
        for name in COMPONENTS
    }
    return Exploration(energy, excess, dict(zip(times, stored["weights"], strict=True)), options, embed_sd, nodes)
