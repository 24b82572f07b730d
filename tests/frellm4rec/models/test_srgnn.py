"""SR-GNN: graphs by hand and by a loop, a step with scalars, relabelling, and what other versions of it do wrong."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from frellm4rec.models import SRGNN, SRGNNConfig
from frellm4rec.models.srgnn import session_graphs
from frellm4rec.runs.defaults import model_defaults
from frellm4rec.training import TrainingConfig, train
from spectral_probe.errors import ConfigError
from tests.frellm4rec.conftest import make_ring
from tests.frellm4rec.tiny_recommenders import padded


def make(**settings):
    values = {"n_items": 20, "max_length": 9, "n_features": 4, **settings}
    return SRGNN(SRGNNConfig(**values), seed=1).eval()


# The graph


def test_the_graph_of_the_paper():
    """Items 1, 2, 3, 2, 4; nodes at positions 0, 1, 2 and 4."""
    node_of, incoming, outgoing = session_graphs(*padded([1, 2, 3, 2, 4]))
    assert node_of.tolist() == [[0, 1, 2, 1, 4]]
    expected_out = torch.zeros(5, 5)
    expected_out[0, 1] = 1.0
    expected_out[1, 2] = expected_out[1, 4] = 0.5
    expected_out[2, 1] = 1.0
    expected_in = torch.zeros(5, 5)
    expected_in[1, 0] = expected_in[1, 2] = 0.5
    expected_in[2, 1] = 1.0
    expected_in[4, 1] = 1.0
    torch.testing.assert_close(outgoing[0], expected_out)
    torch.testing.assert_close(incoming[0], expected_in)


def graph_by_loop(history, is_binary):
    """Weights {(a, b): share} among what leaves a, and among what enters b."""
    counts = {}
    for a, b in pairwise(history):
        counts[a, b] = 1 if is_binary else counts.get((a, b), 0) + 1
    leaving = {edge: n / sum(m for (a, _), m in counts.items() if a == edge[0]) for edge, n in counts.items()}
    entering = {edge: n / sum(m for (_, b), m in counts.items() if b == edge[1]) for edge, n in counts.items()}
    return leaving, entering


@pytest.mark.parametrize("is_binary", [True, False])
def test_graphs_by_a_loop(is_binary):
    rng = np.random.default_rng(0)
    histories = [rng.integers(0, 4, rng.integers(1, 10)).tolist() for _ in range(20)]
    histories += [[3, 3, 3, 0], [0, 0], [5]]
    node_of, incoming, outgoing = session_graphs(*padded(*histories, width=11), is_binary=is_binary)
    for row, history in enumerate(histories):
        assert node_of[row, : len(history)].tolist() == [history.index(item) for item in history]
        leaving, entering = graph_by_loop(history, is_binary)
        expected_out, expected_in = torch.zeros(11, 11), torch.zeros(11, 11)
        for (a, b), share in leaving.items():
            expected_out[history.index(a), history.index(b)] = share
        for (a, b), share in entering.items():
            expected_in[history.index(b), history.index(a)] = share
        torch.testing.assert_close(outgoing[row], expected_out)
        torch.testing.assert_close(incoming[row], expected_in)


def test_a_repeated_transition_counts_once_or_each_time():
    inputs, lengths = padded([1, 2, 1, 2, 1, 3])
    binary, counted = (session_graphs(inputs, lengths, is_binary=b)[2][0, 0] for b in (True, False))
    torch.testing.assert_close(binary, torch.tensor([0, 0.5, 0, 0, 0, 0.5]))
    torch.testing.assert_close(counted, torch.tensor([0, 2 / 3, 0, 0, 0, 1 / 3]))


def test_an_item_that_follows_itself_keeps_its_loop():
    _, incoming, outgoing = session_graphs(*padded([7, 7, 2]))
    assert outgoing[0, 0].tolist() == [0.5, 0.0, 0.5]
    assert incoming[0, 0, 0] == 1.0


# The states


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def affine(layer, x):
    bias = [0.0] * layer.weight.shape[0] if layer.bias is None else layer.bias.tolist()
    return [
        sum(w * v for w, v in zip(row, x, strict=True)) + b for row, b in zip(layer.weight.tolist(), bias, strict=True)
    ]


def mixed(shares, vectors):
    """Sum of the vectors of other nodes by their shares."""
    return [sum(share * vectors[node][i] for node, share in shares.items()) for i in range(4)]


def by_scalars(model, history):
    """The state of a history, (feature,), node by node and position by position."""
    leaving, entering = graph_by_loop(history, model.config.edges == "binary")
    nodes = {item: model.items.weight[item].tolist() for item in dict.fromkeys(history)}
    cell = model.cell
    w, u, b, v = (x.tolist() for x in (cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh))
    for _ in range(model.config.n_steps):
        for_in = {item: affine(model.message_in, h) for item, h in nodes.items()}
        for_out = {item: affine(model.message_out, h) for item, h in nodes.items()}
        after = {}
        for item, h in nodes.items():
            received = mixed({a: share for (a, c), share in entering.items() if c == item}, for_in)
            sent = mixed({c: share for (a, c), share in leaving.items() if a == item}, for_out)
            m = [x + o for x, o in zip(received, model.offset_in.tolist(), strict=True)]
            m += [x + o for x, o in zip(sent, model.offset_out.tolist(), strict=True)]
            new = []
            for i in range(4):
                of_m = [sum(a * c for a, c in zip(w[4 * g + i], m, strict=True)) + b[4 * g + i] for g in range(3)]
                of_h = [sum(a * c for a, c in zip(u[4 * g + i], h, strict=True)) + v[4 * g + i] for g in range(3)]
                r, z = sigmoid(of_m[0] + of_h[0]), sigmoid(of_m[1] + of_h[1])
                n = math.tanh(of_m[2] + r * of_h[2])
                new.append(n + z * (h[i] - n))
            after[item] = new
        nodes = after
    last = nodes[history[-1]]
    whole = [0.0] * 4
    for item in history:
        inner = [
            sigmoid(x + y)
            for x, y in zip(affine(model.last_map, last), affine(model.node_map, nodes[item]), strict=True)
        ]
        weight = affine(model.attention, inner)[0]
        whole = [total + weight * x for total, x in zip(whole, nodes[item], strict=True)]
    return affine(model.to_state, [*last, *whole])


@pytest.mark.parametrize("n_steps", [1, 2])
@pytest.mark.parametrize("edges", ["binary", "counts"])
def test_states_and_scores_with_scalars(n_steps, edges):
    model = make(n_steps=n_steps, edges=edges)
    histories = [[1, 2, 3, 2, 4], [7], [5, 5, 6, 5, 5, 6, 0], [0, 9, 8]]
    inputs, lengths = padded(*histories)
    with torch.no_grad():
        states = model(inputs, lengths)
        scores = model.score(inputs, lengths)
    for row, history in enumerate(histories):
        expected = torch.tensor(by_scalars(model, history))
        torch.testing.assert_close(states[row, len(history) - 1], expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(scores[row], model.items.weight.detach() @ expected, rtol=1e-5, atol=1e-5)


def test_relabelling_the_items_changes_nothing_but_their_names():
    model, other = make(), make()
    permutation = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        other.items.weight[permutation] = model.items.weight
    inputs, lengths = padded([1, 2, 3, 2, 4], [0, 9, 8])
    states, renamed = model(inputs, lengths), other(permutation[inputs], lengths)
    torch.testing.assert_close(renamed, states)
    torch.testing.assert_close(other.score(permutation[inputs], lengths)[:, permutation], model.score(inputs, lengths))


def test_swapping_the_middle_items_changes_the_state():
    model = make()
    states = model(*padded([1, 2, 3, 4], [1, 3, 2, 4]))[:, -1]
    assert (states[0] - states[1]).abs().max() > 1e-3


def test_the_attention_is_no_softmax():
    """The same item again and again has one graph; the sum over positions grows with their number."""
    model = make()
    with torch.no_grad():
        two, four, eight = (model(*padded([3] * length))[0, -1] for length in (2, 4, 8))
    torch.testing.assert_close(eight - four, 2 * (four - two), rtol=1e-4, atol=1e-5)
    assert (four - two).abs().max() > 1e-3


def test_number_of_parameters():
    model = SRGNN(SRGNNConfig(n_items=3646))
    assert sum(p.numel() for p in model.parameters()) == 220_500
    assert sum(p.numel() for name, p in model.named_parameters() if name != "items.weight") == 38_200
    bound = 1 / math.sqrt(50)
    assert all(0.9 * bound < float(p.detach().abs().max()) <= bound for p in model.parameters() if p.numel() > 100)


def test_dropout_is_of_the_embeddings():
    model = make(dropout=0.5).train()
    assert not torch.equal(model(*padded([1, 2, 3])), model(*padded([1, 2, 3])))
    assert make().dropout.rate == 0.0


# Training


def test_the_loss_at_every_position_is_refused():
    """The state of a history has read all of it."""
    model = make(n_items=12)
    assert (model.supervision, model.is_causal, model.has_softmax_loss) == ("prefix", False, True)
    assert model.layers() == []
    with pytest.raises(ConfigError, match="not causal"):
        train(model, make_ring(), TrainingConfig(n_epochs=1, supervision="every"))


def test_the_rate_decays_only_if_asked_for():
    defaults = model_defaults("srgnn")
    training = TrainingConfig.from_dict(defaults.training)
    assert training.learning_rate_in(training.n_epochs) == training.learning_rate
    decays = defaults.search["training.decay_every"]
    assert decays == [0, training.n_epochs // 3]
    decayed = TrainingConfig.from_dict({**defaults.training, "decay_every": decays[1]})
    assert decayed.learning_rate_in(training.n_epochs) == pytest.approx(training.learning_rate / 100)


def test_all_prefixes_can_be_samples():
    model = make(n_items=12)
    record = train(model, make_ring(), TrainingConfig(n_epochs=1, supervision="all-prefixes"))
    assert record.supervision == "all-prefixes"
    assert record.effort.n_samples == 40 * 7


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "bce"}, r"loss must be one of softmax;"),
        ({"edges": "count"}, "Did you mean 'counts'"),
        ({"n_steps": 0}, "n_steps must be a whole number of at least 1"),
        ({"dropout": -0.5}, r"dropout must lie in \[0, 1\)"),
        ({"n_step": 2}, "Did you mean 'n_steps'"),
    ],
)
def test_config_checks_itself(settings, message):
    with pytest.raises(ConfigError, match=message):
        SRGNNConfig.from_dict({"n_items": 20, **settings})
