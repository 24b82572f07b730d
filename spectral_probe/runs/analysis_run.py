"""Runs of the instrument: their graph, their Grams and, for a comparison, the runs it compares."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import csr_array

from spectral_probe.errors import ConfigError, DataError
from spectral_probe.graph.item_graph import ItemGraph
from spectral_probe.recording.layer_grams import LayerGrams
from spectral_probe.recording.shards import ShardFolder
from spectral_probe.runs.folder import RunFolder
from spectral_probe.runs.references import ANALYSIS, COMPARISON
from spectral_probe.storage.atomic import write_csv, write_npz
from spectral_probe.storage.reading import read_npz, refuse_special

#: Name of the folder of the Grams that the headline is measured on.
MAIN_CAPTURE = "main"
#: Names of the items, one row each.
ITEMS_FILE = "items.csv.gz"


@dataclass(frozen=True)
class AnalysisRun(RunFolder):
    """A run folder with the files of an analysis or a comparison.

    ::

        graph.npz  items.csv.gz  grams/<capture>/
        bands.csv  spectrum.npz  per_user.csv.gz  summary.json  figures/decay.{png,pdf,csv}  report.html
    """

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open a run that has Grams or results of the instrument.

        Raises
        ------
        ConfigError
            If the run is of another kind.
        DataError
            See :meth:`RunFolder.open`.
        """
        run = super().open(path)
        if run.kind in (ANALYSIS, COMPARISON):
            return run
        if run.model_folder is not None:
            raise ConfigError(
                f"{path} is a {run.kind} run: it holds a model and no Grams. "
                f"Probe it with: spectral-probe analyze --model {path}"
            )
        raise ConfigError(
            f"{path} is a {run.kind} run: it holds no Grams, and no model that could be probed. Give the folder of a "
            "run of spectral-probe analyze or compare, or finish this one first."
        )

    def save_graph(self, graph: ItemGraph, user_ids: npt.NDArray[Any]) -> None:
        """Save the training interactions, from which every graph of this run is rebuilt, and the names of the users."""
        R = graph.user_items
        arrays = {
            "indptr": R.indptr,
            "indices": R.indices,
            "shape": np.array(R.shape),
            "user_ids": user_ids.astype(str),
        }
        write_npz(self.path / "graph.npz", arrays, is_compressed=True)

    def save_items(self, item_ids: npt.NDArray[Any], titles: Sequence[str] | None) -> None:
        """Save the label, and the title if it has one, of each item, for the histories on the page."""
        items = pd.DataFrame({"item": [str(item) for item in item_ids], "title": titles or [""] * len(item_ids)})
        write_csv(self.path / ITEMS_FILE, items)

    def load_item_names(self) -> list[str] | None:
        """Return the title of each item, or its label where it has none; None for a run of an older version.

        Raises
        ------
        DataError
            If the file cannot be read.
        """
        path = self.grams_run().path / ITEMS_FILE
        if not path.exists():
            return None
        try:
            refuse_special(path)
            items = pd.read_csv(path, dtype=str, keep_default_na=False)
            return [title or label for title, label in zip(items["title"], items["item"], strict=True)]
        except (OSError, ValueError, KeyError, EOFError, zlib.error) as error:
            raise DataError(f"{path} cannot be read: {error}. Run the analysis again from the model.") from error

    def load_sequences(self) -> list[list[int]]:
        """Return the items of each probed sequence, those it reads and the last one it predicts; no Gram is read.

        Raises
        ------
        DataError
            If the run has no Grams, or its sequences cannot be read or were not saved.
        """
        folder = ShardFolder.open(self.grams_run().grams_path(MAIN_CAPTURE))
        if not {"inputs", "targets"} <= set(folder.arrays):
            raise DataError(f"{folder.path} does not name its items. Run the analysis again from the model.")
        inputs, targets, lengths = (folder.arrays[name] for name in ("inputs", "targets", "lengths"))
        return [
            [*row[:n].tolist(), int(target[n - 1])] for row, target, n in zip(inputs, targets, lengths, strict=True)
        ]

    def load_graph(self) -> ItemGraph:
        """Return the graph of the saved training interactions."""
        path = self.grams_run().path / "graph.npz"
        try:
            stored = read_npz(path, {"indptr": ("iu", 1), "indices": ("iu", 1), "shape": ("iu", 1)})
            ones = np.ones(len(stored["indices"]), np.int32)
            R = csr_array((ones, stored["indices"], stored["indptr"]), shape=tuple(stored["shape"].tolist()))
            R.check_format(full_check=True)
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read: {error}. Run the analysis again from the model.") from error
        return ItemGraph.from_interactions(R)

    def load_user_ids(self, n_users: int) -> npt.NDArray[np.str_] | None:
        """Return the name of each row of the training interactions; None for a run of an older version.

        Raises
        ------
        DataError
            If the names cannot be read, or are not those of ``n_users`` users.
        """
        path = self.grams_run().path / "graph.npz"
        try:
            names = read_npz(path, {"user_ids?": ("U", 1)}).get("user_ids")
            if names is not None and len(names) != n_users:
                raise ValueError(f"it names {len(names)} of {n_users} users")
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read: {error}. Run the analysis again from the model.") from error
        return names

    def grams_run(self) -> AnalysisRun:
        """Return the run whose Grams this one reads: itself, unless it analysed saved Grams again."""
        source = self.state().get("grams_from")
        if source is None:
            return self
        return AnalysisRun.open((self.path / source).resolve())

    def compared_runs(self) -> list[AnalysisRun]:
        """Return the runs that a comparison compares, the base first.

        Raises
        ------
        DataError
            If this is not a comparison, does not name its runs, or one of them is missing.
        """
        names = self.state().get("compared_runs")
        if not names:
            raise DataError(
                f"{self.path} does not name the runs it compares. Give the folder of a comparison, made by "
                "spectral-probe compare."
            )
        return [AnalysisRun.open((self.path / name).resolve()) for name in names]

    def grams_path(self, capture: str) -> Path:
        """Return the folder of one capture."""
        return self.path / "grams" / capture

    def load_captures(self) -> dict[str, LayerGrams]:
        """Return all saved captures."""
        folder = self.grams_run().path / "grams"
        captures = {path.name: LayerGrams.load(path) for path in sorted(folder.glob("*")) if path.is_dir()}
        if not captures:
            raise DataError(f"{folder} holds no saved Grams. Run the analysis again from the model.")
        return captures
