"""Folders and files with a saved model: which it is, which plug-in reads it, and what it was trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectral_probe.backbones.aliases import known_aliases
from spectral_probe.errors import ConfigError, DataError, MissingDependencyError, ModelError, did_you_mean
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.plugins.registry import load_plugin, plugin_names
from spectral_probe.runs.folder import MODEL_FOLDER, RunFolder
from spectral_probe.runs.references import TRAINING
from spectral_probe.storage.reading import read_json

if TYPE_CHECKING:
    from spectral_probe.backbones import LayeredModel

CONFIG_FILE = "config.json"


@dataclass(frozen=True)
class SavedModel:
    """A folder with a model that a package saved, a run that holds such a folder in ``model/``, or a file.

    Attributes
    ----------
    folder : Path
        As given; of a file, or a folder that holds one, the file itself.
    model_folder : Path
        The folder of the model itself.
    name : str
        Value of ``model`` in its ``config.json``; of a file, its name.
    plugin : str
        Name of the plug-in that reads it, in the group ``spectral_probe.saved_models``: the value of ``plugin`` in its
        ``config.json``, or else the name of the model.
    n_items : int or None
        Value of ``n_items`` in its ``config.json``; None if it has no such number.
    run : RunFolder or None
        The run that holds it; None for a saved model without a run.
    request : dict
        Request of the run (``dataset``, ``from_dir``, ``name``, …); empty without one.
    fingerprint : str or None
        Fingerprint, without titles, of the data set that the run trained on; None where it is not known.
    max_length : int or None
        Value of ``max_length`` in its ``config.json``; None if it has no such number.
    """

    folder: Path
    model_folder: Path
    name: str
    plugin: str
    n_items: int | None = None
    run: RunFolder | None = None
    request: dict[str, Any] = field(default_factory=dict)
    fingerprint: str | None = None
    max_length: int | None = None

    @classmethod
    def open(cls, folder: str | Path) -> SavedModel:
        """Return the saved model in a folder or a run.

        Raises
        ------
        DataError
            If there is no such folder, its ``run.json`` cannot be read, or it is a run that makes no model.
        ModelError
            If it holds no model (yet), or the ``config.json`` of the model does not name it.
        """
        folder = Path(folder).expanduser()
        run = _run_of(folder)
        if run is None:
            if not (folder / CONFIG_FILE).is_file():
                raise ModelError(
                    f"A saved model is a folder with {CONFIG_FILE}, and a training run holds one in {MODEL_FOLDER}/; "
                    f"{folder} has neither. Name another folder, or let the training finish."
                )
            return _read(folder, folder)
        if run.model_folder is None:
            if run.kind != TRAINING:
                raise _no_training(run)
            raise ModelError(
                f"The training run {folder} holds no model yet: {MODEL_FOLDER}/{CONFIG_FILE} is missing. "
                "Finish it by training again with --resume."
            )
        return _read(folder, run.model_folder, run)

    def named_data(self) -> tuple[str, Path | None] | None:
        """Return name and ``from_dir`` of the data set in the request of the run; None if it names none."""
        if not self.request.get("dataset"):
            return None
        from_dir = self.request.get("from_dir")
        return str(self.request["dataset"]), Path(from_dir) if from_dir else None

    def check_trained_on(self, dataset: Dataset) -> None:
        """Raise DataError if the model was trained on other histories, or on a catalogue of another size.

        Of a run the fingerprint of the log is compared. Of a saved model without a run only the number of items is
        known.
        """
        differs = ""
        if self.fingerprint is not None and (given := dataset.fingerprint(titles=False)) != self.fingerprint:
            name = self.request.get("dataset")
            differs = f"the fingerprint of its own data ({name!r}) is {self.fingerprint[:8]}, and this one {given[:8]}"
        elif self.n_items is not None and self.n_items != dataset.n_items:
            differs = f"it has {self.n_items} items, and this data set has {dataset.n_items}"
        if differs:
            raise DataError(
                f"The model in {self.folder} was trained on other histories than those of {dataset.name!r}: {differs}. "
                "Name the data that it was trained on with --dataset and --from-dir (a training run names its own), or "
                "train again."
            )

    def load(self, dataset: Dataset, device: str) -> LayeredModel:
        """Return the model, made by its plug-in.

        Raises
        ------
        ConfigError
            If the model has no layers, and gives the reason.
        ModelError
            If no installed package reads this model, or its plug-in returns something that cannot be probed.
        MissingDependencyError
            If the plug-in cannot be imported.
        """
        from spectral_probe.backbones.protocol import LayeredModel, refuse_without_layers

        model = self._loader()(self.folder, dataset=dataset, device=device)
        refuse_without_layers(model)
        if not isinstance(model, LayeredModel):
            raise ModelError(
                f"The plug-in for saved {self.name!r} models must return something with name, is_causal, layers() and "
                f"forward_sequences(); got {type(model).__name__}. Report this to the package that provides it."
            )
        return model

    def why_no_layers(self) -> str:
        """Return why the model has no layers, as its plug-in says without loading it; empty if it says nothing.

        Raises
        ------
        ModelError, MissingDependencyError
            As in :meth:`load`.
        """
        reason: Callable[[Path], str] | None = getattr(self._loader(), "why_no_layers", None)
        return "" if reason is None else reason(self.folder)

    def _loader(self) -> Callable[..., Any]:
        known = plugin_names("saved_models")
        if self.plugin not in known:
            reader = "" if self.plugin == self.name else f", to be read by the plug-in {self.plugin!r}"
            raise ModelError(
                f"The {CONFIG_FILE} of {str(self.folder)!r} names a {self.name!r} model{reader}, which no installed "
                f"package reads; known: {known}.{did_you_mean(self.plugin, known)} Install the package that saved it."
            )
        return load_plugin("saved_models", self.plugin)


def find_saved_model(name: str) -> SavedModel | None:
    """Return the saved model that a name stands for; None for a Hugging Face folder, a short name, or nothing.

    A file is read by the plug-in that has its suffix among its ``suffixes``. A folder that holds one such file, and
    neither ``config.json`` nor ``run.json``, stands for the file.

    Raises
    ------
    ConfigError
        If a folder holds several such files.
    DataError, ModelError
        See :meth:`SavedModel.open`.
    """
    folder = Path(name).expanduser()
    if name in known_aliases() or name in plugin_names("models"):
        return None
    if (file := _model_file(folder)) is not None:
        return SavedModel(file, file.parent, file.stem, _readers_of_files()[file.suffix])
    if not folder.is_dir():
        return None
    if not (folder / "run.json").is_file() and _is_foreign(_config(folder)):
        return None
    return SavedModel.open(folder)


def _readers_of_files() -> dict[str, str]:
    """Return, for each suffix of a file that a plug-in reads, the name of the plug-in."""
    readers: dict[str, str] = {}
    for name in plugin_names("saved_models"):
        try:
            loader = load_plugin("saved_models", name)
        except MissingDependencyError:
            continue  # it may be about other models
        readers |= dict.fromkeys(getattr(loader, "suffixes", ()), name)
    return readers


def _model_file(path: Path) -> Path | None:
    """Return a file that a plug-in reads: the path itself, or the only such file in a folder without a config."""
    if path.is_file():
        return path if path.suffix in _readers_of_files() else None
    if not path.is_dir() or (path / CONFIG_FILE).exists() or (path / "run.json").exists():
        return None
    readers = _readers_of_files()
    files = sorted(file for file in path.iterdir() if file.suffix in readers and file.is_file())
    if len(files) > 1:
        raise ConfigError(
            f"{path} holds {len(files)} saved models ({', '.join(file.name for file in files[:3])}). Name one of them."
        )
    return files[0] if files else None


def open_training_run(folder: str | Path) -> RunFolder | None:
    """Return the training run in a folder, with or without a model; None for a folder without ``run.json``.

    Raises
    ------
    DataError
        If there is no such folder, ``run.json`` cannot be read, or the run is of another kind.
    """
    run = _run_of(Path(folder).expanduser())
    if run is not None and run.kind != TRAINING:
        raise _no_training(run)
    return run


def trained_on(names: Sequence[str]) -> tuple[str, Path | None] | None:
    """Return data set and ``from_dir`` of the training runs among some models; None without a training run.

    Raises
    ------
    ConfigError
        If the training runs do not agree.
    """
    saved = {name: find_saved_model(name) for name in names}
    datasets = {name: data for name, model in saved.items() if model is not None and (data := model.named_data())}
    if len(set(datasets.values())) > 1:
        listing = ", ".join(f"{name}: {dataset}" for name, (dataset, _) in datasets.items())
        raise ConfigError(f"The training runs were trained on different data ({listing}). Name one with --dataset.")
    return next(iter(datasets.values()), None)


def _run_of(folder: Path) -> RunFolder | None:
    """Return the run in a folder; None for a folder without ``run.json``."""
    if not folder.is_dir():
        known = [path.name for path in folder.parent.glob("*") if path.is_dir()]
        raise DataError(
            f"{folder} is not a folder. Give a training run or a saved model.{did_you_mean(folder.name, known)}"
        )
    return RunFolder.open(folder) if (folder / "run.json").is_file() else None


def _no_training(run: RunFolder) -> DataError:
    return DataError(
        f"{run.path} is not a training run, but a run of the kind {run.kind!r}: it holds no model. Give the folder of "
        f"a training run. To analyse the Grams of an analysis again: spectral-probe analyze {run.path}"
    )


def _read(folder: Path, model_folder: Path, run: RunFolder | None = None) -> SavedModel:
    config = _config(model_folder)
    name = config.get("model")
    if not isinstance(name, str):
        raise ModelError(
            f"{model_folder / CONFIG_FILE} must name its model under the key 'model'; it is damaged or has no such "
            "key. Restore the file, or train again."
        )
    n_items, max_length = config.get("n_items"), config.get("max_length")
    state = {} if run is None else run.state()
    return SavedModel(
        folder,
        model_folder,
        name,
        str(config.get("plugin") or name),
        n_items if isinstance(n_items, int) else None,
        run,
        dict(state.get("request") or {}),
        state.get("dataset_fingerprint"),
        max_length if isinstance(max_length, int) else None,
    )


def _config(folder: Path) -> dict[str, Any]:
    """Return ``config.json``; empty if it cannot be read."""
    try:
        config: dict[str, Any] = read_json(folder / CONFIG_FILE)
    except (OSError, ValueError):
        return {}
    return config


def _is_foreign(config: dict[str, Any]) -> bool:
    """Return whether a folder without a run is for Hugging Face, whose configuration may have a field ``model``."""
    reader = config.get("plugin") or config.get("model")
    return not isinstance(reader, str) or ("model_type" in config and reader not in plugin_names("saved_models"))
