"""Every recommender on a tiny scale, with item tables made by hand, and a recorder of whole states."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from frellm4rec.cli import main as cli
from frellm4rec.experiments.tables import CELL_COLUMNS, DIFFERENCE_COLUMNS, MEAN_COLUMNS, ExperimentTables, typed
from frellm4rec.items.item_table import ItemTable
from frellm4rec.models import SASRec, SASRecConfig
from frellm4rec.models.frellm4rec.config import with_backbone
from frellm4rec.models.frellm4rec.model import SOURCES, FreLLM4Rec, FreLLM4RecConfig
from frellm4rec.models.morec.model import MoRec, MoRecConfig
from frellm4rec.models.morec.titles import TrainedTitles
from frellm4rec.models.registry import model_class, model_names
from frellm4rec.runs.defaults import model_defaults
from spectral_probe.backbones import HFDecoder
from spectral_probe.inputs.item_vectors import text_inputs
from spectral_probe.plugins.datasets import resolve_dataset
from spectral_probe.recording.hooks import LayerRecorder, evaluating
from spectral_probe.runs.folder import RunFolder
from tests.spectral_probe.tiny_models import tiny

MAX_LENGTH = 7
#: Variants of registered models: name → (model, settings beside the tiny ones of its recipe).
VARIANTS = {
    "causal": ("frellm4rec", {"mode": "causal"}),
    "prefix": ("frellm4rec", {"mode": "prefix"}),
    "two_sided_leaky": ("frellm4rec", {"mode": "two_sided_leaky"}),
    "without TFM": ("frellm4rec", {"mode": "causal", "cutoff": None}),
    "gate": ("frellm4rec", {"mode": "causal", "fusion": "gate", "dropout": 0.1}),
    "text only": ("frellm4rec", {"mode": "prefix", "inputs": "text"}),
    "id only, learnable": ("frellm4rec", {"mode": "causal", "inputs": "id", "learnable_cutoff": True}),
    "fmlprec softmax": ("fmlprec", {"loss": "softmax"}),
    "bsarec bce": ("bsarec", {"loss": "bce"}),
    "bsarec heads": ("bsarec", {"n_heads": 2, "alpha": 0.5, "c": 1}),
    "bert4rec softmax": ("bert4rec", {"loss": "softmax"}),
    "sasrec bce": ("sasrec", {"loss": "bce"}),
    "sasrec gbce": ("sasrec", {"loss": "gbce", "n_negatives": 5}),
    "gru4rec cross-entropy": ("gru4rec", {"loss": "cross-entropy", "log_correction": True, "n_blocks": 2}),
    "gru4rec softmax": ("gru4rec", {"loss": "softmax"}),
    "srgnn counts": ("srgnn", {"edges": "counts", "n_steps": 2, "dropout": 0.1}),
    "caser softmax": ("caser", {"loss": "softmax", "window": 5}),
    "maerec softmax": ("maerec", {"loss": "softmax"}),
    "maerec without MAE": ("maerec", {"mae_weight": 0.0}),
    "morec bce": ("morec", {}),
    "morec softmax": ("morec", {"loss": "softmax", "n_perceptron_layers": 1}),
    "morec in-batch": ("morec", {"loss": "in-batch", "n_negatives": 3}),
    "morec end to end": ("morec", {"mode": "end_to_end", "n_trained_layers": 1, "n_blocks": 1}),
    "morec end to end, in-batch": (
        "morec",
        {"mode": "end_to_end", "n_trained_layers": 1, "loss": "in-batch", "n_negatives": 3},
    ),
}
#: Models that read titles, of which the logs of the tests have none: they come as variants, made by hand.
OF_TITLES = ("frellm4rec", "morec")
#: Every registered model in its tiny form, and the variants.
NAMES = [*(name for name in model_names() if name not in OF_TITLES), *VARIANTS]


def tables(n_items, inputs="id+text", seed=0):
    """Return item tables of random vectors, narrower for ids than for text."""
    generator = torch.Generator().manual_seed(seed)
    widths = {"id": 6, "text": 10}
    return {
        source: ItemTable.filtered(torch.randn(n_items, widths[source], generator=generator), None)
        for source in SOURCES[inputs]
    }


def backbone(family="llama", **changes):
    """Return a decoder with random weights, the same each time."""
    return HFDecoder(tiny(family, **changes), name=f"tiny {family}")


def frellm4rec(n_items, *, seed=0, family="llama", decoder=None, max_length=MAX_LENGTH, **settings):
    """Return an untrained FreLLM4Rec on a tiny decoder."""
    tiny_settings = model_defaults("frellm4rec").tiny
    settings = {"max_length": max_length, "backbone": f"tiny {family}", **tiny_settings, **settings}
    config = FreLLM4RecConfig(n_items=n_items, **settings)
    return FreLLM4Rec(config, tables(n_items, config.inputs), backbone=decoder or backbone(family), seed=seed)


def letters(title, max_length=None, **_):
    """Return what a tokenizer does: a first token for the title, and one for each letter."""
    return {"input_ids": [2, *(3 + ord(letter) % 60 for letter in title)][:max_length]}


def reader(family="bert", **changes):
    """Return a text encoder with random weights and, unless told otherwise, no dropout."""
    if family == "bert":
        changes = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, **changes}
    decoder = backbone(family, **changes)
    decoder._tokenizer = letters
    return decoder


def morec(n_items, *, seed=0, titles=None, decoder=None, max_length=MAX_LENGTH, **settings):
    """Return an untrained MoRec whose items have the letters of the alphabet as titles, or these."""
    settings = {"max_length": max_length, "backbone": "tiny bert", **model_defaults("morec").tiny, **settings}
    config = MoRecConfig(n_items=n_items, **settings)
    titles = titles or [chr(65 + item) for item in range(n_items)]
    decoder = decoder or reader()
    config = with_backbone(config, decoder)
    if config.mode == "end_to_end":
        read = TrainedTitles.of(titles, decoder, n_trained_layers=config.n_trained_layers, max_tokens=config.max_tokens)
    else:
        read = ItemTable.filtered(torch.from_numpy(text_inputs(decoder, titles)), None)
    return MoRec(config, read, torch.arange(n_items), seed=seed)


def model_of(name):
    """Return the registered model that a name in :data:`NAMES` stands for, and its settings beside the tiny ones."""
    return VARIANTS.get(name, (name, {}))


def build(name, dataset, seed=0):
    """Return an untrained recommender for a data set by its name in :data:`NAMES`."""
    model, settings = model_of(name)
    if model == "frellm4rec":
        return frellm4rec(dataset.n_items, seed=seed, **settings)
    if model == "morec":
        return morec(dataset.n_items, seed=seed, **settings)
    values = {"max_length": MAX_LENGTH, **model_defaults(model).tiny, **settings, "n_items": dataset.n_items}
    kind = model_class(model)
    return kind.from_dataset(kind.config_class.from_dict(values), dataset, seed=seed)


def load(name, folder):
    """Return what was saved in a folder."""
    model, _ = model_of(name)
    if model == "frellm4rec":
        return FreLLM4Rec.from_pretrained(folder, backbone=backbone())
    if model == "morec":
        return MoRec.from_pretrained(folder, backbone=reader())
    return model_class(model).from_pretrained(folder)


class StateRecorder(LayerRecorder):
    """The instrument's recorder, but it keeps the states themselves."""

    def _reduce(self, index, value):
        super()._reduce(index, value)
        self.states[index] = (value[0] if isinstance(value, tuple) else value).detach().float().clone()


def states(model, inputs, lengths):
    """Return {layer name: (batch, position, feature)} of one forward pass as the instrument sees it."""
    layers = model.layers()
    with StateRecorder(model, layers) as recorder, evaluating([model]), torch.no_grad():
        recorder.states = [None] * len(layers)
        recorder.last_states(inputs, lengths)
        return {name: state for (name, _, _), state in zip(layers, recorder.states, strict=True)}


def padded(*histories, width=None, fill=0):
    """Return right-padded item indices and lengths."""
    width = width or max(map(len, histories))
    inputs = torch.full((len(histories), width), fill, dtype=torch.long)
    for row, history in enumerate(histories):
        inputs[row, : len(history)] = torch.as_tensor(history)
    return inputs, torch.tensor([len(history) for history in histories])


def run(monkeypatch, capsys, *arguments):
    """Return exit code, stdout, stderr of ``frellm4rec`` with these arguments."""
    monkeypatch.setattr(sys, "argv", ["frellm4rec", *map(str, arguments)])
    with pytest.raises(SystemExit) as done:
        cli.main()
    captured = capsys.readouterr()
    return done.value.code, captured.out, captured.err


def write_log(path: Path, n_users: int = 30, n_items: int = 25, seed: int = 0) -> Path:
    """Write a log with titles: users u0…, items b0…, histories of 4 to 12 distinct items."""
    rng = np.random.default_rng(seed)
    rows = [
        (f"u{user}", f"b{item}", time, f"The Book, Volume {item}" if item else "Solo")
        for user in range(n_users)
        for time, item in enumerate(rng.permutation(n_items)[: rng.integers(4, 13)])
    ]
    pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "title"]).to_csv(path, index=False)
    return path


def make_model(n_items: int, seed: int = 0, scale: float = 15.0) -> SASRec:
    """Return an untrained model whose scores differ clearly."""
    model = SASRec(SASRecConfig(n_items=n_items, max_length=6, n_features=8, n_inner=8), seed=seed)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data *= scale
    return model.eval()


def make_run(root: Path, log: Path, *, seed: int = 0, name: str = "", status: str = "finished", **settings) -> Path:
    """Make the folder that training leaves behind, its model with random weights of the seed and the settings."""
    dataset = resolve_dataset(str(log))
    fingerprint = dataset.fingerprint(titles=False)
    config = {"model": "sasrec", "dataset": dataset.name, "dataset_fingerprint": fingerprint, "seed": seed}
    config["architecture"] = {"n_features": 8, **settings}
    run = RunFolder.create(root, kind="training", model=name or "sasrec", dataset=dataset.name, config=config)
    make_model(dataset.n_items, seed=seed + 100 * len(settings)).save_pretrained(run.path / "model")
    request = {"model": "sasrec", "dataset": str(log), "from_dir": None, "name": name}
    run.write_state(status, request=request, dataset_fingerprint=fingerprint)
    return run.path


def experiment_tables(cells: list[dict], means: list[dict], differences: list[dict]) -> ExperimentTables:
    """Return the tables of an experiment from rows; columns that a row lacks are empty."""
    columns = (CELL_COLUMNS, MEAN_COLUMNS, DIFFERENCE_COLUMNS)
    parts = zip((cells, means, differences), columns, strict=True)
    return ExperimentTables(*(typed(pd.DataFrame(rows, columns=names)) for rows, names in parts))
