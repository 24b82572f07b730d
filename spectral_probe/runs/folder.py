"""Run folders: a result and everything it depends on; never overwritten, and resumable."""

from __future__ import annotations

import json
import logging
import os
import platform
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self

import yaml

from spectral_probe.errors import ConfigError, DataError
from spectral_probe.runs.interruptions import words_of
from spectral_probe.storage.atomic import disk_errors, remove_partials, try_to_write, write_text
from spectral_probe.storage.hashing import settings_hash
from spectral_probe.storage.lock import only_process
from spectral_probe.storage.reading import check_shape, read_json, read_yaml

FORMAT = 1
#: Where a run keeps a model, if it made one.
MODEL_FOLDER = "model"
_TEXT_OR_NONE = (str, None)
#: What ``run.json`` holds; runs of version 0.1.0 have no kind.
_STATE = {
    "format": int,
    "status": str,
    "config_hash": str,
    "kind?": _TEXT_OR_NONE,
    "versions?": ({}, None),
    "grams_from?": _TEXT_OR_NONE,
    "compared_runs?": ([str], None),
    "dataset_fingerprint?": _TEXT_OR_NONE,
    "created?": _TEXT_OR_NONE,
    "name?": _TEXT_OR_NONE,
    "model?": _TEXT_OR_NONE,
    "dataset?": _TEXT_OR_NONE,
    "result?": _TEXT_OR_NONE,
    "n_users?": (int, None),
    "n_drawable?": (int, None),
    "request?": (
        {
            "kind?": _TEXT_OR_NONE,
            "model?": str,
            "dataset?": str,
            "from_dir?": _TEXT_OR_NONE,
            "name?": _TEXT_OR_NONE,
            "threads?": (int, None),
        },
        None,
    ),
}
_PACKAGES = ("spectral-probe", "torch", "transformers", "numpy", "scipy", "pandas")


@dataclass(frozen=True)
class RunFolder:
    """One folder ``<UTC>-<model>-<dataset>-<hash8>`` with ``run.json``, ``config.yaml`` and ``log.txt``."""

    path: Path

    @classmethod
    def create(cls, root: Path, *, kind: str, model: str, dataset: str, config: Mapping[str, Any]) -> Self:
        """Start a new run.

        Parameters
        ----------
        root : Path
            Folder in which the run folder is made.
        kind : str
            What the run does, in one word: ``analysis``, ``comparison``, or a word of another package.
        model, dataset : str
            Names in the name of the folder.
        config : dict
            Everything that the result depends on; its hash identifies the run. The kind is not part of it.

        Raises
        ------
        ConfigError
            If ``root`` is itself a run, or a run of the same name exists.
        """
        refuse_run(root)
        digest = settings_hash(config)
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{_slug(model)}-{_slug(dataset)}-{digest[:8]}"
        run = cls(root / name)
        with disk_errors(root):
            try:
                run.path.mkdir(parents=True)
            except FileExistsError as error:
                raise ConfigError(f"The run {run.path} exists already; wait a second and start again.") from error
            write_text(run.path / "config.yaml", yaml.safe_dump(dict(config), sort_keys=False).rstrip("\n"))
            facts = {"kind": kind, "model": model, "dataset": dataset}
            run.write_state("running", config_hash=digest, versions=_versions(), **facts)
        return run

    @classmethod
    def open(cls, path: Path) -> Self:
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
    def newest_unfinished(cls, root: Path, config: Mapping[str, Any]) -> Self | None:
        """Return the newest run under ``root`` with this configuration that was not finished."""
        return cls._newest(root, config, is_finished=False)

    @classmethod
    def newest_finished(cls, root: Path, config: Mapping[str, Any]) -> Self | None:
        """Return the newest finished run under ``root`` with this configuration."""
        return cls._newest(root, config, is_finished=True)

    @classmethod
    def _newest(cls, root: Path, config: Mapping[str, Any], *, is_finished: bool) -> Self | None:
        digest = settings_hash(config)
        for path in sorted(root.glob(f"*-{digest[:8]}"), reverse=True):
            try:
                state = cls(path).state()
            except DataError:
                continue
            if state["config_hash"] == digest and (state["status"] == "finished") == is_finished:
                return cls(path)
        return None

    def state(self) -> dict[str, Any]:
        """Return ``run.json``."""
        try:
            state: dict[str, Any] = read_json(self.path / "run.json", _STATE)
            if state["format"] != FORMAT:
                raise ValueError(f"format {state['format']}, this version reads {FORMAT}")
        except (OSError, ValueError) as error:
            raise DataError(
                f"{self.path} is not a readable run: {error}. Give the folder of a run; it holds run.json."
            ) from error
        return state

    @property
    def kind(self) -> str:
        """What this run does: ``analysis``, ``comparison``, or a word of another package."""
        state = self.state()
        # Runs of version 0.1.0 have no kind of their own.
        request = state.get("request") or {}
        otherwise = request.get("kind") or ("comparison" if state.get("compared_runs") else "analysis")
        return str(state.get("kind") or otherwise)

    @property
    def model_folder(self) -> Path | None:
        """The folder of the model that this run made; None if it has none (yet)."""
        folder = self.path / MODEL_FOLDER
        return folder if (folder / "config.json").is_file() else None

    def write_state(self, status: str, **values: Any) -> None:
        """Set the status, and further values, in ``run.json``."""
        known = self.state() if (self.path / "run.json").exists() else {"format": FORMAT, "created": _now()}
        write_text(
            self.path / "run.json", json.dumps({**known, **values, "status": status, "changed": _now()}, indent=2)
        )

    def config(self) -> dict[str, Any]:
        """Return ``config.yaml``."""
        return self.read_config({})

    def read_config(self, shape: Mapping[str, Any]) -> dict[str, Any]:
        """Return ``config.yaml``, which must have these keys; see :mod:`spectral_probe.storage.reading`.

        Raises
        ------
        DataError
            If it cannot be read, is not the one that the run began with, or lacks a key.
        """
        path = self.path / "config.yaml"
        try:
            config: dict[str, Any] = read_yaml(path)
            if settings_hash(config) != self.state()["config_hash"]:
                raise ValueError("it is not the one that the run began with, whose hash is in run.json")
            check_shape(config, dict(shape))
        except (OSError, ValueError) as error:
            raise DataError(f"{path} cannot be read: {error}. Restore it, or run again.") from error
        return config

    def request(self) -> dict[str, Any]:
        """Return the names in the request of the run: ``model``, ``dataset``, ``from_dir``.

        Raises
        ------
        DataError
            If the run was made from objects in memory, which cannot be loaded by name.
        """
        request = self.state().get("request")
        if not request:
            raise DataError(
                f"{self.path} was made from a model or data in memory and cannot be finished by its path. "
                "Call analyze(..., out=, resume=True) with the same objects."
            )
        absent = {"model", "dataset"} - set(request)
        if absent:
            raise DataError(
                f"{self.path / 'run.json'} does not say what was asked for: its request lacks {sorted(absent)[0]!r}. "
                "Restore the file, or start again."
            )
        return {"from_dir": None, **request}

    def finish(self, **values: Any) -> None:
        """Mark the run as finished; ``result``, in a few words, and ``n_users`` are shown in a list of runs."""
        self.write_state("finished", **values)

    @contextmanager
    def at_work(self, logger: logging.Logger, what: str, **values: Any) -> Iterator[None]:
        """Hold the folder alone; its status says ``running`` inside, and afterwards why the block ended early.

        What a killed process left half-written is deleted first. The messages of ``logger``, and the error that ends
        the block, are in ``log.txt``.

        Parameters
        ----------
        logger : Logger
        what : str
            What is done, for the message to another process: ``An analysis``.
        **values
            Further values of ``run.json``.

        Raises
        ------
        ConfigError
            If another process is at work in the folder.
        ResourceError
            If the folder cannot be written.
        """
        with only_process(self.path, what):
            with disk_errors(self.path):
                for folder in (self.path, self.path / MODEL_FOLDER, self.path / "figures"):
                    remove_partials(folder)
                error = {"error": None} if self.state().get("error") else {}
                self.write_state("running", **error, **values)
            try:
                with logged(self.path, logger):
                    yield
            except BaseException as stopped:
                reason = {"status": "failed", "error": f"{type(stopped).__name__}: {stopped}"}
                if not isinstance(stopped, Exception):
                    reason = {"status": "interrupted", "error": words_of(stopped)}
                with suppress(OSError, DataError):  # a disk that is full has no room for the reason
                    self.write_state(**reason)
                raise


def refuse_run(root: Path) -> None:
    """Raise ConfigError if a folder in which runs are to be made is a run itself."""
    if (root / "run.json").exists():
        raise ConfigError(
            f"{root} is a run already, and runs are never overwritten. Give its parent folder "
            f"(--out {root.parent}), or finish this run with --resume."
        )


def try_root(root: Path) -> None:
    """Try, before anything is loaded, whether a run can be made in a folder; nothing stays.

    Raises
    ------
    ConfigError
        If it is a run itself.
    ResourceError
        If nothing can be written there.
    """
    refuse_run(root)
    try_to_write(root)


@contextmanager
def logged(folder: Path, logger: logging.Logger) -> Iterator[None]:
    """Write the messages of a logger, and the error that ends the block, to ``log.txt`` in a run folder."""
    handler = logging.FileHandler(folder / "log.txt", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    except BaseException as error:
        is_error = isinstance(error, Exception)
        logger.error("%s", f"{type(error).__name__}: {error}" if is_error else words_of(error))
        raise
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
        handler.close()


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", os.path.basename(name.rstrip("/"))).strip("-.").lower()[:40] or "unnamed"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions
