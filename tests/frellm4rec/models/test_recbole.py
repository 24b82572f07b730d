"""Checkpoints with exactly the names, shapes and pickled classes of RecBole 1.2; RecBole itself is not needed."""

import enum
import math
import os
import pickle
import sys
import types
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch.nn import functional

from frellm4rec.evaluation import evaluate
from frellm4rec.models.recbole.checkpoint import as_protocol_2, read_checkpoint
from frellm4rec.models.recbole.items import doubtful_settings
from frellm4rec.models.recbole.networks import load_recbole
from spectral_probe.backbones import LayeredModel
from spectral_probe.errors import ConfigError, DataError, ModelError
from spectral_probe.plugins.datasets import resolve_dataset
from spectral_probe.plugins.saved_models import find_saved_model
from spectral_probe.recording.capture import capture
from tests.frellm4rec.tiny_recommenders import padded
from tests.spectral_probe.worlds import make_world, run_probe

N_ITEMS, D, HIDDEN, INNER, LENGTH = 9, 4, 6, 5, 8
#: Settings as RecBole's configuration has them, with the data of the tests.
SETTINGS = {
    "dataset": "shop",
    "data_path": "dataset/shop",
    "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
    "USER_ID_FIELD": "user_id",
    "ITEM_ID_FIELD": "item_id",
    "field_separator": "\t",
    "rm_dup_inter": None,
    "val_interval": None,
    "user_inter_num_interval": "[0,inf)",
    "item_inter_num_interval": "[0,inf)",
    "benchmark_filename": None,
    "alias_of_item_id": None,
    "MAX_ITEM_LIST_LENGTH": LENGTH,
    "n_layers": 2,
    "n_heads": 2,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
}


class ModelType(enum.Enum):
    SEQUENTIAL = 2


ModelType.__module__ = "recbole.utils.enum_type"


class Config:
    """Pickled as ``recbole.config.configurator.Config``: an object with its settings and classes in its state."""

    __module__ = "recbole.config.configurator"

    def __init__(self, settings):
        self.parameters = {"Training": ["epochs"], "names": {"a", "b"}}
        self.yaml_loader = yaml.loader.FullLoader
        self.final_config_dict = {**settings, "MODEL_TYPE": ModelType.SEQUENTIAL, "device": torch.device("cpu")}


class Trouble:
    """What runs when it is unpickled."""

    def __init__(self, function, *arguments):
        self.reduced = (function, arguments)

    def __reduce__(self):
        return self.reduced


def fake(monkeypatch, name, **members):
    module = types.ModuleType(name)
    for attribute, member in members.items():
        setattr(module, attribute, member)
    monkeypatch.setitem(sys.modules, name, module)


def save(path, content, *, protocol=4):
    """Write with RecBole's names in ``sys.modules``, which are gone afterwards."""
    with pytest.MonkeyPatch.context() as patch:
        for package in ("recbole", "recbole.config", "recbole.utils"):
            fake(patch, package)
        fake(patch, "recbole.config.configurator", Config=Config)
        fake(patch, "recbole.utils.enum_type", ModelType=ModelType)
        torch.save(content, path, pickle_protocol=protocol)
    assert "recbole" not in sys.modules
    return path


def drawn(shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def sasrec_tensors(n_rows=N_ITEMS + 1, n_blocks=2):
    shapes = {"item_embedding.weight": (n_rows, D), "position_embedding.weight": (LENGTH, D)}
    for i in range(n_blocks):
        attention, inner = f"trm_encoder.layer.{i}.multi_head_attention.", f"trm_encoder.layer.{i}.feed_forward."
        for part in ("query", "key", "value", "dense"):
            shapes |= {f"{attention}{part}.weight": (D, D), f"{attention}{part}.bias": (D,)}
        shapes |= {f"{inner}dense_1.weight": (INNER, D), f"{inner}dense_1.bias": (INNER,)}
        shapes |= {f"{inner}dense_2.weight": (D, INNER), f"{inner}dense_2.bias": (D,)}
        for norm in (attention, inner):
            shapes |= {f"{norm}LayerNorm.weight": (D,), f"{norm}LayerNorm.bias": (D,)}
    return drawn({**shapes, "LayerNorm.weight": (D,), "LayerNorm.bias": (D,)})


def gru4rec_tensors(n_rows=N_ITEMS + 1, n_blocks=2):
    shapes = {"item_embedding.weight": (n_rows, D)}
    for i in range(n_blocks):
        shapes |= {f"gru_layers.weight_ih_l{i}": (3 * HIDDEN, HIDDEN if i else D)}
        shapes |= {f"gru_layers.weight_hh_l{i}": (3 * HIDDEN, HIDDEN)}
    return drawn({**shapes, "dense.weight": (D, HIDDEN), "dense.bias": (D,)})


TENSORS = {"SASRec": sasrec_tensors, "GRU4Rec": gru4rec_tensors}
both = pytest.mark.parametrize("model", list(TENSORS))


def content(model="SASRec", tensors=None, settings=None, **parts):
    tensors = tensors or TENSORS[model]()
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(2))])
    return {
        "config": Config({**SETTINGS, "model": model, **(settings or {})}),
        "epoch": 3,
        "cur_step": 0,
        "best_valid_score": np.float64(0.25),
        "state_dict": tensors,
        "other_parameter": None,
        "optimizer": optimizer.state_dict(),
        **parts,
    }


#: Items in the order in which they first appear in the file, which is neither that of time nor of the alphabet.
TOKENS = ["30", "7", "i8", "101", "2", "x", "44", "5", "0"]


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """Where RecBole's file of interactions lies; its rows are not in the order of time."""
    folder = tmp_path_factory.mktemp("shop")
    rng = np.random.default_rng(0)
    rows = [(f"u{i % 6}", token, 1000 - i) for i, token in enumerate(TOKENS)]
    rows += [(f"u{u}", TOKENS[i], int(t)) for u in range(6) for i, t in enumerate(rng.permutation(900)[:N_ITEMS])]
    lines = [f"{user}\t{item}\t{time}\n" for user, item, time in rows]
    (folder / "shop.inter").write_text("user_id:token\titem_id:token\ttimestamp:float\n" + "".join(lines))
    return folder


@pytest.fixture(scope="module")
def dataset(shop):
    return resolve_dataset(str(shop / "shop.inter"))


def row_of(dataset, item):
    """RecBole's number of an item of the data set."""
    return 1 + TOKENS.index(str(dataset.item_ids[item]))


# The forward passes, with loops


def norm(tensors, name, vector):
    centred = vector - vector.mean()
    scaled = centred / math.sqrt(centred.square().mean().item() + 1e-12)
    return scaled * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]


def linear(tensors, name, vector):
    return tensors[f"{name}.weight"] @ vector + tensors[f"{name}.bias"]


def slow_sasrec(tensors, rows, activation=functional.gelu, n_heads=2):
    """The states before the first block and after each block."""
    summed = [
        tensors["item_embedding.weight"][row] + tensors["position_embedding.weight"][t] for t, row in enumerate(rows)
    ]
    layers = [[norm(tensors, "LayerNorm", vector) for vector in summed]]
    for i in range(2):
        attention, inner = f"trm_encoder.layer.{i}.multi_head_attention", f"trm_encoder.layer.{i}.feed_forward"
        states, after = layers[-1], []
        for t, state in enumerate(states):
            read = []
            for head in range(n_heads):
                part = slice(head * D // n_heads, (head + 1) * D // n_heads)
                query = linear(tensors, f"{attention}.query", state)[part]
                scores = [
                    (query @ linear(tensors, f"{attention}.key", s)[part]).item() / math.sqrt(D // n_heads)
                    for s in states[: t + 1]
                ]
                weights = [math.exp(score) for score in scores]
                values = [linear(tensors, f"{attention}.value", s)[part] for s in states[: t + 1]]
                read.append(sum(w * v for w, v in zip(weights, values, strict=True)) / sum(weights))
            attended = linear(tensors, f"{attention}.dense", torch.cat(read))
            attended = norm(tensors, f"{attention}.LayerNorm", attended + state)
            hidden = activation(linear(tensors, f"{inner}.dense_1", attended))
            after.append(norm(tensors, f"{inner}.LayerNorm", linear(tensors, f"{inner}.dense_2", hidden) + attended))
        layers.append(after)
    return layers


def slow_gru4rec(tensors, rows):
    """The embeddings, the states after each recurrent layer, and after the linear map."""
    layers = [[tensors["item_embedding.weight"][row] for row in rows]]
    for i in range(2):
        state, states = torch.zeros(HIDDEN), []
        for vector in layers[-1]:
            read = tensors[f"gru_layers.weight_ih_l{i}"] @ vector
            kept = tensors[f"gru_layers.weight_hh_l{i}"] @ state
            reset = torch.sigmoid(read[:HIDDEN] + kept[:HIDDEN])
            update = torch.sigmoid(read[HIDDEN : 2 * HIDDEN] + kept[HIDDEN : 2 * HIDDEN])
            candidate = torch.tanh(read[2 * HIDDEN :] + reset * kept[2 * HIDDEN :])
            state = (1 - update) * candidate + update * state
            states.append(state)
        layers.append(states)
    return [*layers, [linear(tensors, "dense", state) for state in layers[-1]]]


SLOW = {"SASRec": slow_sasrec, "GRU4Rec": slow_gru4rec}
HISTORIES = [[4, 1, 2], [0, 1, 2, 3, 4, 5, 6, 8], [7]]


@both
@pytest.mark.parametrize("protocol", [2, 4])
def test_scores_are_those_of_recbole(model, protocol, shop, dataset):
    path = save(shop / f"{model}-{protocol}.pth", content(model), protocol=protocol)
    loaded, tensors = load_recbole(path, dataset), TENSORS[model]()
    assert isinstance(loaded, LayeredModel)
    assert not loaded.training
    scores = loaded.score(*padded(*HISTORIES))
    for row, history in enumerate(HISTORIES):
        last = SLOW[model](tensors, [row_of(dataset, item) for item in history])[-1][-1]
        table = tensors["item_embedding.weight"]
        expected = torch.stack([table[row_of(dataset, item)] @ last for item in range(N_ITEMS)])
        torch.testing.assert_close(scores[row], expected, rtol=1e-4, atol=1e-5)
    assert 0.0 <= evaluate(loaded, dataset, k=1).ndcg.mean() <= 1.0
    assert "recbole" not in sys.modules


@both
def test_layers_are_those_of_recbole(model, shop, dataset):
    loaded = load_recbole(save(shop / f"{model}.pth", content(model)), dataset)
    names = {"SASRec": ["embed", "block 1", "block 2"], "GRU4Rec": ["embed", "block 1", "block 2", "dense"]}[model]
    inputs, lengths = padded(*HISTORIES)
    recorded = capture(loaded, inputs.numpy(), lengths.numpy())
    assert list(recorded.layer_names) == names
    for row, history in enumerate(HISTORIES):
        layers = SLOW[model](TENSORS[model](), [row_of(dataset, item) for item in history])
        for layer, states in enumerate(layers):
            gram = torch.from_numpy(recorded.grams[row, layer, : len(history), : len(history)])
            H = torch.stack(states)
            torch.testing.assert_close(gram, H @ H.T, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "activation"),
    [("relu", torch.relu), ("swish", functional.silu), ("tanh", torch.tanh), ("sigmoid", torch.sigmoid)],
)
def test_every_activation_of_recbole(name, activation, shop, dataset):
    loaded = load_recbole(save(shop / "act.pth", content(settings={"hidden_act": name})), dataset)
    last = slow_sasrec(sasrec_tensors(), [row_of(dataset, item) for item in [4, 1, 2]], activation)[-1][-1]
    torch.testing.assert_close(loaded.forward_sequences(*padded([4, 1, 2]))[0, 2], last, rtol=1e-4, atol=1e-5)


def test_a_model_of_recbole_is_not_saved_again(shop, dataset, tmp_path):
    loaded = load_recbole(save(shop / "SASRec.pth", content()), dataset)
    with pytest.raises(ConfigError, match="saved in its checkpoint already"):
        loaded.save_pretrained(tmp_path)


# Nothing of a file is run


OBJECTS = [
    {"a": [1, 2.5, None, True, -7, 2**40], "b": ("x", "x", ("y",)), "same": "a" * 300},
    [{"é": "😀"}, [], {}, (), "two\nlines", ["two\nlines"]],
]


@pytest.mark.parametrize("value", OBJECTS)
def test_a_rewritten_pickle_is_the_same_object(value):
    rewritten = as_protocol_2(pickle.dumps(value, protocol=4))
    assert rewritten[:2] == b"\x80\x02"
    assert pickle.loads(rewritten) == value
    assert as_protocol_2(pickle.dumps(value, protocol=2)) == pickle.dumps(value, protocol=2)


def test_a_rewritten_pickle_names_classes_and_shares_objects():
    shared = [Path, OrderedDict]
    first, second = pickle.loads(as_protocol_2(pickle.dumps([shared, shared], protocol=4)))
    assert first is second
    assert first == shared
    assert pickle.loads(as_protocol_2(pickle.dumps([{"b"}, frozenset("a"), b"\xff"], protocol=4))) == [
        ["b"],
        ("a",),
        "ÿ",
    ]
    with pytest.raises(ValueError, match="something else than two texts"):
        as_protocol_2(b"\x80\x04K\x01K\x02\x93.")


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("where", ["config", "state_dict", "extra"])
def test_a_file_that_runs_something_is_refused_and_runs_nothing(where, protocol, tmp_path, dataset):
    target = tmp_path / "written"
    trouble = {"system": Trouble(os.system, f"touch {target}"), "eval": Trouble(eval, f"open({str(target)!r}, 'w')")}
    for name, value in trouble.items():
        path = save(tmp_path / f"{name}.pth", content(**{where: value}), protocol=protocol)
        with pytest.raises(ModelError, match=r"Nothing of it was run|cannot be read") as refusal:
            load_recbole(path, dataset)
        assert refusal.value.exit_code == 4
    assert not target.exists()


def test_functions_under_recbole_s_name_are_not_called(shop, dataset, monkeypatch):
    """A name of a known package is taken by a stand-in, also when a module of this name could be imported."""
    calls = []

    def touch(*arguments):
        calls.append(arguments)

    touch.__module__, touch.__qualname__ = "recbole.evil", "touch"
    fake(monkeypatch, "recbole")
    fake(monkeypatch, "recbole.evil", touch=touch)
    torch.save(content() | {"config": {**SETTINGS, "model": "SASRec"}, "extra": Trouble(touch, 1)}, shop / "evil.pth")
    load_recbole(shop / "evil.pth", dataset)
    assert calls == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": None}, "holds 'config' and 'state_dict'"),
        ({"state_dict": None}, "holds 'config' and 'state_dict'"),
        ({"state_dict": {"item_embedding.weight": 3}}, "must hold tensors alone"),
        ({"settings": {"model": "BERT4Rec"}}, "a 'BERT4Rec' of RecBole; SASRec and GRU4Rec can be probed"),
        ({"settings": {"n_heads": 3}}, "n_heads must divide the 4 features; .* has 3"),
        ({"settings": {"n_heads": None}}, "must give n_heads as a number; got None"),
        ({"settings": {"hidden_act": "mish"}}, "hidden_act must be one of .* has 'mish'"),
    ],
)
def test_other_models_and_settings_are_refused(changes, message, shop, dataset):
    with pytest.raises(ModelError, match=message):
        load_recbole(save(shop / "odd.pth", content(**changes)), dataset)


@both
def test_other_tensors_are_refused(model, shop, dataset):
    last = "dense.bias" if model == "GRU4Rec" else "LayerNorm.bias"
    changes = {
        "has the shape none: it is missing": {last: None},
        r"has the shape \(5,\), and \(4,\) is expected": {last: torch.zeros(5)},
        "there is no such tensor is expected": {"user_embedding.weight": torch.zeros(2, 4)},
        "must hold a matrix 'item_embedding.weight'.*is missing": {"item_embedding.weight": None},
        r"must hold a matrix.*of shape \(3,\)": {"item_embedding.weight": torch.zeros(3)},
    }
    for message, change in changes.items():
        tensors = {name: t for name, t in {**TENSORS[model](), **change}.items() if t is not None}
        with pytest.raises(ModelError, match=message):
            load_recbole(save(shop / "shapes.pth", content(model, tensors)), dataset)


def test_what_is_no_checkpoint_is_refused(tmp_path, dataset):
    (tmp_path / "junk.pth").write_bytes(b"junk")
    torch.save(sasrec_tensors(), tmp_path / "tensors.pth")
    whole = save(tmp_path / "whole.pth", content()).read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: len(whole) // 2])
    for name, message in {
        "junk": "cannot be read",
        "cut": "cannot be read",
        "absent": "cannot be read",
        "tensors": "holds 'config' and 'state_dict'",
    }.items():
        with pytest.raises(ModelError, match=message):
            read_checkpoint(tmp_path / f"{name}.pth")


# Which row is which item


def test_items_of_a_file_beside_the_checkpoint(shop, dataset, tmp_path):
    """With the list of the items, filters and the file of interactions do not matter; its own list comes first."""
    filtered = {"user_inter_num_interval": "[5,inf)", "load_col": None}
    path = save(tmp_path / "SASRec-1.pth", content(settings=filtered))
    with pytest.raises(DataError, match=r"its configuration sets user_inter_num_interval.*item_tokens\.txt"):
        load_recbole(path, dataset)
    (tmp_path / "item_tokens.txt").write_text("\n".join(["[PAD]", *reversed(TOKENS)]) + "\n")
    table, loaded = sasrec_tensors()["item_embedding.weight"], load_recbole(path, dataset)
    rows = [N_ITEMS - TOKENS.index(str(label)) for label in dataset.item_ids]
    assert torch.equal(loaded.item_embeddings(), table[rows])
    (tmp_path / "SASRec-1.item_tokens.txt").write_text("\r\n".join(["[PAD]", *TOKENS]))
    rows = [row_of(dataset, item) for item in range(N_ITEMS)]
    assert torch.equal(load_recbole(path, dataset).item_embeddings(), table[rows])


@pytest.mark.parametrize("lines", [TOKENS, ["[PAD]", *TOKENS[:-1]], ["[PAD]", *TOKENS[:-1], TOKENS[0]], []])
def test_a_list_of_items_that_does_not_fit_is_refused(lines, tmp_path, dataset):
    (tmp_path / "item_tokens.txt").write_text("\n".join(lines))
    with pytest.raises(DataError, match="one line for each of the 10 rows"):
        load_recbole(save(tmp_path / "SASRec.pth", content()), dataset)


def test_without_a_list_the_order_must_be_known(shop, dataset, tmp_path):
    path = save(tmp_path / "SASRec.pth", content())
    with pytest.raises(DataError, match="not where its configuration says"):
        load_recbole(path, dataset)
    elsewhere = save(tmp_path / "SASRec.pth", content(settings={"data_path": str(shop)}))
    assert load_recbole(elsewhere, dataset).config.n_items == N_ITEMS
    text = (shop / "shop.inter").read_text()
    (tmp_path / "shop.inter").write_text(text + "u1\tnew\t3\n")
    with pytest.raises(DataError, match=r"shop\.inter has 10 items, and it 9"):
        load_recbole(path, dataset)
    (tmp_path / "shop.inter").write_text(text + "u1\tNA\t3\n")
    with pytest.raises(DataError, match="has empty fields"):
        load_recbole(path, dataset)
    (tmp_path / "shop.inter").write_text(text.replace("item_id:token", "movie:token"))
    with pytest.raises(DataError, match="cannot be read as a file of RecBole"):
        load_recbole(path, dataset)


def test_items_that_the_checkpoint_lacks_are_refused(shop, tmp_path):
    path = save(shop / "SASRec.pth", content())
    (tmp_path / "other.inter").write_text((shop / "shop.inter").read_text() + "u1\tnew\t3\n")
    with pytest.raises(DataError, match=r"1 of 10 are not in .*, such as 'new'") as refusal:
        load_recbole(path, resolve_dataset(str(tmp_path / "other.inter")))
    assert refusal.value.exit_code == 3


def test_settings_that_make_the_order_doubtful():
    assert doubtful_settings(SETTINGS) == []
    for name, value in {
        "rm_dup_inter": "first",
        "val_interval": {"rating": "[3,inf)"},
        "item_inter_num_interval": "[5,inf)",
        "benchmark_filename": ["train", "valid", "test"],
        "alias_of_item_id": ["item_id_list"],
        "load_col": {"inter": ["user_id"], "item": ["item_id"]},
        "min_user_inter_num": 5,
    }.items():
        assert doubtful_settings({**SETTINGS, name: value}) == [f"{name}={value!r}"]


# On the command line


def test_a_file_or_a_folder_that_holds_it_is_a_model(shop, tmp_path):
    path = save(tmp_path / "SASRec.pth", content())
    for name in (path, tmp_path):
        saved = find_saved_model(str(name))
        assert (saved.folder, saved.name, saved.plugin, saved.named_data()) == (path, "SASRec", "recbole", None)
    save(tmp_path / "GRU4Rec.pth", content("GRU4Rec"))
    with pytest.raises(ConfigError, match=r"2 saved models \(GRU4Rec\.pth, SASRec\.pth\)\. Name one"):
        find_saved_model(str(tmp_path))
    (tmp_path / "config.json").write_text("{}")
    assert find_saved_model(str(tmp_path)) is None
    (tmp_path / "weights.bin").touch()
    assert find_saved_model(str(tmp_path / "weights.bin")) is None


def test_analyze_probes_a_checkpoint(tmp_path, monkeypatch, capsys):
    histories = make_world(4, n_users=60).dataset.sequences
    lines = [f"u{u}\ti{item}\t{t}\n" for u, history in enumerate(histories) for t, item in enumerate(history)]
    (tmp_path / "shop.inter").write_text("user_id:token\titem_id:token\ttimestamp:float\n" + "".join(lines))
    n_items = len({int(item) for history in histories for item in history})
    path = save(tmp_path / "SASRec.pth", content(tensors=sasrec_tensors(n_items + 1)))
    arguments = ["--dataset", str(tmp_path / "shop.inter"), "--max-length", "8", "--out", str(tmp_path / "runs")]
    code, out, err = run_probe(["analyze", "--model", str(path), *arguments], monkeypatch, capsys)
    assert (code, "recbole-sasrec" in out) == (0, True), err
    assert (tmp_path / "runs").is_dir()
    code, out, _ = run_probe(["analyze", "--model", str(path), *arguments, "--dry-run"], monkeypatch, capsys)
    assert (code, "saved SASRec model" in out) == (0, True)
    wrong = save(tmp_path / "wrong.pth", content(settings={"model": "BERT4Rec"}))
    code, _, err = run_probe(["analyze", "--model", str(wrong), *arguments], monkeypatch, capsys)
    assert (code, "can be probed" in err) == (4, True)
