"""Models that packages saved: which folder holds one, which plug-in reads it, and its training data."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spectral_probe.backbones import LayeredModel
from spectral_probe.backbones.aliases import known_aliases
from spectral_probe.errors import ConfigError, ModelError, did_you_mean
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.plugins.registry import load_plugin, plugin_names
from spectral_probe.runs.folder import RunFolder

#: Where a training run keeps its model.
MODEL_FOLDER = "model"


@dataclass(frozen=True)
class SavedModel:
    """A folder that a plug-in of the group ``spectral_probe.saved_models`` reads.

    Attributes
    ----------
    folder : Path
        As given: the saved model, or the training run that holds it in ``model/``.
    kind : str
        Value of ``model`` in its ``config.json``: the name of the plug-in.
    request : dict
        Request of a training run (``dataset``, ``from_dir``, …); empty for a saved model.
    """

    folder: Path
    kind: str
    request: dict[str, Any]

    def load(self, dataset: Dataset, device: str) -> LayeredModel:
        """Return the model, made by its plug-in.

        Raises
        ------
        ModelError
            If no installed package reads this kind, or its plug-in returns something that cannot be probed.
        MissingDependencyError
            If the plug-in cannot be imported.
        """
        self.check_plugin()
        model = load_plugin("saved_models", self.kind)(self.folder, dataset=dataset, device=device)
        if not isinstance(model, LayeredModel):
            raise ModelError(
                f"The plug-in for saved {self.kind!r} models must return something with name, is_causal, layers() and "
                f"forward_sequences(); got {type(model).__name__}. Report this to the package that provides it."
            )
        return model

    def check_plugin(self) -> None:
        """Raise ModelError unless an installed package reads this kind of model."""
        known = plugin_names("saved_models")
        if self.kind not in known:
            raise ModelError(
                f"The config.json of {str(self.folder)!r} names a {self.kind!r} model, which no installed package "
                f"reads; known: {known}.{did_you_mean(self.kind, known)} Install the package that saved it."
            )


def find_saved_model(name: str) -> SavedModel | None:
    """Return the saved model that a name stands for; None for a Hugging Face folder, a short name or no folder.

    Raises
    ------
    ModelError
        If the folder is a run that holds no model, or its ``config.json`` cannot be read.
    DataError
        If its ``run.json`` cannot be read.
    """
    folder = Path(name).expanduser()
    if name in known_aliases() or name in plugin_names("models") or not folder.is_dir():
        return None
    if (folder / "run.json").is_file():
        run = RunFolder.open(folder)
        if not (folder / MODEL_FOLDER / "config.json").is_file():
            raise ModelError(_without_model(run))
        kind = _kind(folder / MODEL_FOLDER)
        if kind is None:
            raise ModelError(
                f"{folder / MODEL_FOLDER / 'config.json'} must name its model under the key 'model'; it is damaged or "
                "has no such key. Train again, or restore the file."
            )
        return SavedModel(folder, kind, dict(run.state().get("request") or {}))
    kind = _kind(folder)
    return None if kind is None else SavedModel(folder, kind, {})


def trained_on(names: Sequence[str]) -> tuple[str, Path | None] | None:
    """Return data set and ``from_dir`` of the training runs among some models; None without a training run.

    Raises
    ------
    ConfigError
        If the training runs do not agree.
    """
    datasets = {}
    for name in names:
        saved = find_saved_model(name)
        if saved is not None and saved.request.get("dataset"):
            from_dir = saved.request.get("from_dir")
            datasets[name] = (str(saved.request["dataset"]), Path(from_dir) if from_dir else None)
    if len(set(datasets.values())) > 1:
        listing = ", ".join(f"{name}: {dataset}" for name, (dataset, _) in datasets.items())
        raise ConfigError(f"The training runs were trained on different data ({listing}). Name one with --dataset.")
    return next(iter(datasets.values()), None)


def _kind(folder: Path) -> str | None:
    """Return the value of ``model`` in ``config.json``; None if no such package saved it."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    kind = config.get("model") if isinstance(config, dict) else None
    # A Hugging Face configuration may have a field of this name.
    is_foreign = isinstance(config, dict) and "model_type" in config and kind not in plugin_names("saved_models")
    return kind if isinstance(kind, str) and not is_foreign else None


def _without_model(run: RunFolder) -> str:
    if run.is_training:
        return (
            f"The training run {run.path} holds no model yet: {MODEL_FOLDER}/config.json is missing. "
            "Finish it by training again with --resume."
        )
    return (
        f"{run.path} is a run of the instrument: it holds Grams, not a model. "
        f"Analyse them again with: spectral-probe analyze {run.path}"
    )
