"""Run folders: everything a result depends on, beside the result; never overwritten, and resumable."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy.sparse import csr_array

from spectral_probe.errors import ConfigError, DataError, ResourceError
from spectral_probe.graph import ItemGraph
from spectral_probe.layer_grams import LayerGrams

FORMAT = 1
_PACKAGES = ("spectral-probe", "torch", "transformers", "numpy", "scipy", "pandas")


@dataclass(frozen=True)
class RunFolder:
    """One folder ``<UTC>-<model>-<dataset>-<hash8>``.

    ::

        run.json  config.yaml  log.txt  graph.npz  grams/<capture>/
        bands.csv  spectrum.npz  per_user.csv.gz  summary.json  figures/decay.{png,pdf,csv}
    """

    path: Path

    @classmethod
    def create(cls, root: Path, *, model: str, dataset: str, config: Mapping[str, Any]) -> RunFolder:
        """Start a new run.

        Raises
        ------
        ConfigError
            If ``root`` is itself a run, or a run of the same name exists.
        """
        if (root / "run.json").exists():
            raise ConfigError(
                f"{root} is a run already, and runs are never overwritten. Give the folder that runs lie in "
                f"(--out {root.parent}), or finish this one with --resume."
            )
        digest = config_hash(config)
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{_slug(model)}-{_slug(dataset)}-{digest[:8]}"
        run = cls(root / name)
        with disk_errors(root):
            try:
                run.path.mkdir(parents=True)
            except FileExistsError as error:
                raise ConfigError(f"The run {run.path} exists already; wait a second and start again.") from error
            (run.path / "config.yaml").write_text(yaml.safe_dump(dict(config), sort_keys=False), encoding="utf-8")
            run.write_state("running", config_hash=digest, versions=_versions())
        return run

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """Open an existing run.

        Raises
        ------
        DataError
            If the folder is not a run, or its ``run.json`` cannot be read.
        """
        run = cls(path)
        run.state()
        return run

    @classmethod
    def open_analysis(cls, path: Path) -> RunFolder:
        """Open a run that has Grams or results of the instrument.

        Raises
        ------
        ConfigError
            If the folder is a training run: it has a model and nothing measured.
        DataError
            See :meth:`open`.
        """
        run = cls.open(path)
        if run.is_training:
            raise ConfigError(
                f"{path} is a training run: it holds a model, and no Grams. "
                f"Probe it with: spectral-probe analyze --model {path}"
            )
        return run

    @classmethod
    def newest_unfinished(cls, root: Path, config: Mapping[str, Any]) -> RunFolder | None:
        """Return the newest run under ``root`` with this configuration that was not finished."""
        digest = config_hash(config)
        for path in sorted(root.glob(f"*-{digest[:8]}"), reverse=True):
            try:
                state = cls(path).state()
            except DataError:
                continue
            if state["config_hash"] == digest and state["status"] != "finished":
                return cls(path)
        return None

    def state(self) -> dict[str, Any]:
        """Return ``run.json``."""
        try:
            state = json.loads((self.path / "run.json").read_text(encoding="utf-8"))
            if state["format"] != FORMAT:
                raise ValueError(f"format {state['format']}, this version reads {FORMAT}")
            return dict(state)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{self.path} is not a readable run ({type(error).__name__}: {error}). "
                "Give the folder of a run; it holds run.json."
            ) from error

    @property
    def is_training(self) -> bool:
        """Whether this run trained a model."""
        return dict(self.state().get("request") or {}).get("kind") == "training"

    def write_state(self, status: str, **values: Any) -> None:
        """Set the status, and further values, in ``run.json``."""
        known = self.state() if (self.path / "run.json").exists() else {"format": FORMAT, "created": _now()}
        write_text(
            self.path / "run.json", json.dumps({**known, **values, "status": status, "changed": _now()}, indent=2)
        )

    def config(self) -> dict[str, Any]:
        """Return ``config.yaml``."""
        try:
            return dict(yaml.safe_load((self.path / "config.yaml").read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
            raise DataError(f"{self.path / 'config.yaml'} cannot be read: {error}. Restore it or run again.") from error

    def request(self) -> dict[str, Any]:
        """Return the names that the run was asked for with: ``model``, ``dataset``, ``from_dir``.

        Raises
        ------
        DataError
            If the run was made from objects in memory, which no name brings back.
        """
        request = self.state().get("request")
        if request is None:
            raise DataError(
                f"{self.path} was made from a model or data in memory and cannot be finished by its path. "
                "Call analyze(..., out=, resume=True) with the same objects."
            )
        return dict(request)

    def save_graph(self, graph: ItemGraph) -> None:
        """Keep the training interactions, from which any graph of this run is rebuilt."""
        R = graph.user_items
        unfinished = self.path / "graph.unfinished.npz"
        np.savez_compressed(unfinished, indptr=R.indptr, indices=R.indices, shape=np.array(R.shape))
        unfinished.replace(self.path / "graph.npz")

    def load_graph(self) -> ItemGraph:
        """Return the graph of the saved training interactions."""
        path = self.grams_run().path / "graph.npz"
        try:
            with np.load(path, allow_pickle=False) as stored:
                indptr, indices, shape = stored["indptr"], stored["indices"], tuple(stored["shape"])
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise DataError(f"{path} cannot be read ({error}). Run the analysis again from the model.") from error
        return ItemGraph.from_interactions(csr_array((np.ones(len(indices), np.int32), indices, indptr), shape=shape))

    def grams_run(self) -> RunFolder:
        """Return the run whose Grams this one reads: itself, unless it analysed saved Grams again."""
        source = self.state().get("grams_from")
        if source is None:
            return self
        return RunFolder.open((self.path / source).resolve())

    def compared_runs(self) -> list[RunFolder]:
        """Return the runs that a comparison was made of, the base first.

        Raises
        ------
        DataError
            If this is no comparison, or one that does not name its runs, or one of them is gone.
        """
        named = self.state().get("compared_runs")
        if not named:
            raise DataError(
                f"{self.path} does not name the runs it compares. Give the folder of a comparison, made by "
                "spectral-probe compare."
            )
        return [RunFolder.open((self.path / name).resolve()) for name in named]

    def grams_path(self, capture: str) -> Path:
        """Return the folder of one capture."""
        return self.path / "grams" / capture

    def load_captures(self) -> dict[str, LayerGrams]:
        """Return all saved captures."""
        folder = self.grams_run().path / "grams"
        found = {path.name: LayerGrams.load(path) for path in sorted(folder.glob("*")) if path.is_dir()}
        if not found:
            raise DataError(f"{folder} holds no saved Grams. Run the analysis again from the model.")
        return found

    def finish(self) -> None:
        """Mark the run as finished."""
        self.write_state("finished")


@contextmanager
def logged(folder: Path, logger: logging.Logger) -> Iterator[None]:
    """Write what a logger says, and the error that ends the block, to ``log.txt`` in a run folder."""
    handler = logging.FileHandler(folder / "log.txt", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    except BaseException as error:
        logger.error("%s: %s", type(error).__name__, error)
        raise
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
        handler.close()


def config_hash(config: Mapping[str, Any]) -> str:
    """Return a SHA-256 over the configuration, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode()).hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a text file so that it is either the old one or the whole new one."""
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_text(text + "\n", encoding="utf-8")
    unfinished.replace(path)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full or read-only disk into an error that says what to do."""
    try:
        yield
    except OSError as error:
        if isinstance(error, ResourceError):
            raise
        raise ResourceError(
            f"Writing under {path} failed: {error.strerror or error}. Free some space or choose another --out; "
            "what is already there stays, and --resume goes on from it."
        ) from error


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", os.path.basename(name.rstrip("/"))).strip("-.").lower()[:40] or "unnamed"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
