"""Any module in four lines: the states are its own, and what cannot be probed is refused with a reason."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from spectral_probe import analyze, wrap
from spectral_probe.errors import ConfigError, DataError, ModelError, ShapeError
from spectral_probe.recording.capture import capture
from tests.spectral_probe.worlds import make_world

WIDTH, N_ITEMS = 16, 40


def encoder(**changes) -> nn.TransformerEncoder:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(WIDTH, 2, 32, **{"batch_first": True, "dropout": 0.1, **changes})
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=bool(changes.get("batch_first", True)))


class Recommender(nn.Module):
    """What a user has: an item table, positions, causal blocks of torch, a norm, scores."""

    def __init__(self, n_items: int = N_ITEMS, offset: int = 0) -> None:
        super().__init__()
        self.encoder = encoder()
        self.item = nn.Embedding(n_items + offset, WIDTH)
        self.position = nn.Embedding(64, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)

    def forward(self, items: torch.Tensor) -> torch.Tensor:
        T = items.shape[1]
        states = self.item(items) + self.position(torch.arange(T))
        mask = nn.Transformer.generate_square_subsequent_mask(T)
        return self.norm(self.encoder(states, mask=mask, is_causal=True)) @ self.item.weight.T


@pytest.fixture
def sequences() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, N_ITEMS, (6, 8)), np.array([8, 5, 3, 8, 4, 6])


def states_of(model: Recommender, items: np.ndarray) -> list[torch.Tensor]:
    """Return the states of one sequence, layer by layer, by hand."""
    model.eval()
    with torch.no_grad():
        x = model.item(torch.from_numpy(items)[None])
        states = [x]
        x = x + model.position(torch.arange(len(items)))
        mask = nn.Transformer.generate_square_subsequent_mask(len(items))
        for layer in model.encoder.layers:
            x = layer(x, src_mask=mask, is_causal=True)
            states.append(x)
        return [*states, model.norm(x)]


def test_the_grams_are_those_of_the_states_of_the_module(sequences) -> None:
    items, lengths = sequences
    module = Recommender()
    model = wrap(module, layers=["encoder.layers"], embed="item", final_norm="norm")
    assert (model.is_causal, model.name) == (True, "Recommender")
    assert [name for name, _, _ in model.layers()] == ["embed", "block 1", "block 2", "final_norm"]
    grams = capture(model, items, lengths)
    for row, length in enumerate(lengths):
        for layer, state in enumerate(states_of(module, items[row, :length])):
            expected = state[0] @ state[0].T
            np.testing.assert_allclose(grams.grams[row, layer, :length, :length], expected, rtol=1e-4, atol=1e-4)


def test_without_embed_the_input_of_the_first_layer_is_recorded(sequences) -> None:
    items, lengths = sequences
    module = Recommender()
    grams = capture(wrap(module, layers=["encoder.layers.0", module.encoder.layers[1]]), items, lengths)
    with torch.no_grad():
        state = module.item(torch.from_numpy(items[0])) + module.position(torch.arange(8))
    np.testing.assert_allclose(grams.grams[0, 0], state @ state.T, rtol=1e-4, atol=1e-4)


def test_a_two_sided_encoder_of_vectors_is_probed_prefix_by_prefix(sequences) -> None:
    items, lengths = sequences
    vectors = np.random.default_rng(1).standard_normal((N_ITEMS, WIDTH)).astype(np.float32)
    module = encoder()
    model = wrap(module, layers=["layers"], embed=vectors)
    assert not model.is_causal
    grams = capture(model, items, lengths)
    assert grams.settings["prefixes"]
    module.eval()
    with torch.no_grad():
        prefixes = [module(torch.from_numpy(vectors[items[1, : t + 1]])[None])[0, -1] for t in range(lengths[1])]
    last = torch.stack(prefixes)
    np.testing.assert_allclose(grams.grams[1, 2, :5, :5], last @ last.T, rtol=1e-3, atol=1e-3)
    assert torch.backends.mha.get_fastpath_enabled()


def test_a_table_with_numbers_of_its_own_is_read_by_these(sequences) -> None:
    items, lengths = sequences
    module, rows = Recommender(offset=1), np.random.default_rng(2).permutation(N_ITEMS) + 1
    own = capture(wrap(module, layers=["encoder.layers"], embed="item"), rows[items], lengths)
    mapped = wrap(module, layers=["encoder.layers"], embed="item", item_rows=rows)
    np.testing.assert_array_equal(capture(mapped, items, lengths).grams, own.grams)
    torch.testing.assert_close(mapped.item_embeddings, module.item.weight[rows].detach())


def test_a_wrapped_module_goes_through_an_analysis_with_controls() -> None:
    dataset = make_world(1, n_users=60).dataset
    torch.manual_seed(0)
    module = Recommender(dataset.n_items)
    module.train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    model = wrap(module, layers=["encoder.layers"], embed="item", name="mine")
    profile = analyze(model, dataset, controls=["random-weights"], n_bootstrap=100, n_pseudo=4)
    assert profile.table["model"].unique().tolist() == ["mine"]
    assert "random-weights" in profile.controls
    assert module.training
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert profile.table["revision"].iloc[0] == model.revision


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"layers": ["encoder.layer.0"]},
            ConfigError,
            "no module 'encoder.layer.0'. Did you mean 'encoder.layers.0'",
        ),
        ({"layers": []}, ConfigError, "at least one module"),
        ({"layers": ["encoder.layers", "encoder.layers.1"]}, ConfigError, "names 'encoder.layers.1' twice"),
        ({"layers": [nn.Linear(2, 2)]}, ConfigError, "this Linear is no part of Recommender"),
        ({"embed": "items"}, ConfigError, "embed: Recommender has no module 'items'. Did you mean 'item'"),
        ({"embed": np.ones(4)}, ShapeError, r"embed must be an \(n_items, d\) array"),
        ({"embed": "item", "item_rows": [1, 99]}, ShapeError, r"item_rows must lie in 0…39"),
        ({"item_rows": [0.5]}, ShapeError, "whole numbers"),
        ({"embed": np.ones((4, 2)), "item_rows": [1]}, ConfigError, "Leave out one of them"),
        ({"layers": ["encoder.layers.0.norm1", "encoder.layers.1.norm1"]}, None, ""),
        ({"layers": iter(["encoder.layers.0", "encoder.layers.1"])}, None, ""),
        ({"layers": ["encoder.layers.1", "encoder.layers.0"]}, ConfigError, "in the order in which they run"),
        ({"layers": None}, ConfigError, "layers must be a sequence of names or modules; got None"),
        ({"layers": [["item"]]}, ConfigError, r"must name a module by a text, or be a module; got \['item'\]"),
        ({"layers": ["encoder.layers", "norm"], "final_norm": "norm"}, ConfigError, "already among the layers"),
        ({"is_causal": "no"}, ConfigError, "is_causal must be True or False; got 'no'"),
        ({"name": 3}, ConfigError, "name must be a text; got 3"),
        ({"call": "forward"}, ConfigError, "call must be a function"),
        ({"embed": ["item", "position"]}, ConfigError, "embed must be an array of numbers; got"),
        ({"embed": [[1.0], [1.0, 2.0]]}, ConfigError, "embed must be an array of numbers; got"),
        ({"embed": np.ones((0, WIDTH))}, ConfigError, r"one row or more, .* got shape \(0, 16\)"),
        ({"embed": np.full((3, WIDTH), np.nan)}, ConfigError, "embed must hold finite numbers; row 0"),
        ({"item_rows": [2, -1]}, ConfigError, "whole numbers from 0, .*the smallest -1"),
        ({"layers": ["position"], "embed": "item"}, ShapeError, r"'position' of 'Recommender' gave \(5, 16\)"),
        ({"embed": np.eye(4, WIDTH, dtype=np.float32)}, ModelError, "cannot be run on vectors of shape"),
        ({"is_causal": True, "call": lambda m, x, n: m.encoder(m.item(x))}, ModelError, "is_causal=True, but"),
        ({"call": lambda m, x, n: m.encoder(m.item(x))}, ModelError, "Padding must not change the states"),
        ({"call": lambda m, x, n: (m(x), m(x))}, ModelError, "ran 2 times"),
        ({"layers": ["norm"], "call": lambda m, x, n: m.item(x)}, ModelError, "ran 0 times"),
    ],
)
def test_what_cannot_be_probed_is_refused(options, error, message) -> None:
    wanted = {"layers": ["encoder.layers"], **options}
    if error is None:
        wrap(Recommender(), **wanted)
        return
    with pytest.raises(error, match=message) as caught:
        wrap(Recommender(), **wanted)
    assert "\n" not in str(caught.value)


def test_sequences_on_the_second_axis_are_refused() -> None:
    vectors = np.random.default_rng(1).standard_normal((N_ITEMS, WIDTH)).astype(np.float32)
    with pytest.raises(ModelError, match="batch_first=True"):
        wrap(encoder(batch_first=False), layers=["layers"], embed=vectors)
    with pytest.raises(ShapeError, match=r"gave \(5, 2, 16\). Build it with batch_first=True"):
        wrap(encoder(batch_first=False), ["layers"], embed=vectors, call=lambda m, x, n: m(x.transpose(0, 1)))


class Inner(nn.Module):
    """An item table before one block."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.item, self.block = nn.Embedding(N_ITEMS, WIDTH), block

    def forward(self, items: torch.Tensor):
        return self.block(self.item(items))


@pytest.mark.parametrize(
    "block",
    [nn.GRU(WIDTH, WIDTH), nn.TransformerEncoderLayer(WIDTH, 2, 32), nn.BatchNorm1d(5, track_running_stats=False)],
)
def test_a_module_that_mixes_the_users_of_a_batch_is_refused(block) -> None:
    with pytest.raises(ModelError, match=r"other sequences of a batch.*batch_first=True"):
        wrap(Inner(block), ["block"], embed="item")


class Memory(nn.Module):
    """Keeps a state between calls: the first of every shape, or the sum of all."""

    def __init__(self, is_sum: bool) -> None:
        super().__init__()
        self.is_sum, self.memory = is_sum, {}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        before = self.memory.get(x.shape)
        if before is None or self.is_sum:
            self.memory[x.shape] = x if before is None else before + x
        return self.memory[x.shape]


@pytest.mark.parametrize(
    ("is_sum", "message"),
    [(True, "change by .* from one call to the next"), (False, "Another last item must change the last state")],
)
def test_a_module_that_keeps_states_between_calls_is_refused(is_sum, message) -> None:
    with pytest.raises(ModelError, match=message):
        wrap(Inner(Memory(is_sum)), ["block"], embed="item")


def test_states_that_are_not_finite_are_refused() -> None:
    module = Inner(nn.Linear(WIDTH, WIDTH))
    nn.init.constant_(module.block.bias, float("nan"))
    with pytest.raises(ModelError, match="'block 1' of 'Inner' holds a NaN"):
        wrap(module, ["block"], embed="item")


def test_a_table_of_one_row_does_not_hide_that_a_module_is_two_sided() -> None:
    module = Inner(encoder())
    module.kind = nn.Embedding(1, WIDTH)

    def call(module: Inner, items: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        is_padding = torch.arange(items.shape[1]) >= lengths[:, None]
        states = module.item(items) + module.kind(torch.zeros_like(items))
        return module.block(states, src_key_padding_mask=is_padding)

    assert not wrap(module, ["block.layers"], call=call).is_causal


def test_items_of_the_trial_differ_in_what_the_module_sees() -> None:
    vectors = np.zeros((N_ITEMS, WIDTH), dtype=np.float32)
    vectors[30:] = np.random.default_rng(0).standard_normal((10, WIDTH))
    assert not wrap(encoder(), ["layers"], embed=vectors).is_causal
    for alike in (vectors[:1], vectors[:5]):
        with pytest.raises(ConfigError, match="Two items with different vectors"):
            wrap(encoder(), ["layers"], embed=alike)
    with pytest.raises(ConfigError, match="Two items with different vectors"):
        wrap(Recommender(), ["encoder.layers"], item_rows=[3, 3, 3])


def test_a_module_whose_users_are_apart_is_accepted() -> None:
    assert wrap(Inner(nn.GRU(WIDTH, WIDTH, batch_first=True)), ["block"], embed="item").is_causal


def test_an_item_without_a_vector_is_refused(sequences) -> None:
    items, lengths = sequences
    model = wrap(encoder(), layers=["layers"], embed=np.random.default_rng(1).standard_normal((10, WIDTH)))
    with pytest.raises(DataError, match="has no vector in 'TransformerEncoder', which knows 10 items"):
        capture(model, items, lengths)


def test_only_a_module_can_be_wrapped() -> None:
    with pytest.raises(ConfigError, match="got a str"):
        wrap("model", layers=["a"])
