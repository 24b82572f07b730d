"""The report on real graphs against an explicit loop over users and states, and the command on a run of ``demo``."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from frellm4rec.data.demo import make_demo
from frellm4rec.modules import causal_operator, two_sided_operator
from frellm4rec.theory import rayleigh as module
from frellm4rec.theory.rayleigh import history_operator, rayleigh_of_run, rayleigh_report, temporal_locality
from spectral_probe.analysis.options import AnalysisOptions
from spectral_probe.analysis.pipeline import run_analysis
from spectral_probe.errors import ConfigError, DataError
from spectral_probe.graph.bases import normalized_laplacian
from spectral_probe.graph.item_graph import ItemGraph
from spectral_probe.recording.layer_grams import LayerGrams
from tests.frellm4rec.tiny_recommenders import run
from tests.spectral_probe.worlds import layer_labels, make_world

OPERATORS = {"two_sided": two_sided_operator, "causal": causal_operator}


@pytest.fixture(scope="module")
def world():
    return make_world(seed=7)


@pytest.fixture(scope="module")
def measured(world):
    graph = ItemGraph.from_interactions(world.dataset.train.user_items)
    names, _ = layer_labels(world.states.shape[1])
    grams = LayerGrams.from_states(
        world.states, world.probe.lengths, names, users=world.probe.users, targets=world.probe.targets
    )
    return grams, graph


def quotient(L, H):
    return np.trace(H.T @ L @ H) / np.trace(H.T @ H)


def by_hand(world, graph, layer, M_of, drop, centre):
    """Return each user's quotients before and after on their own graph, and the mean change on others' graphs."""
    probe = world.probe
    adjacency = graph.local_adjacency(probe.targets, probe.lengths, users=probe.users, own_user="drop")
    rows = []
    for u, n in enumerate(probe.lengths):
        if n < 4 or not adjacency[u, drop:n, drop:n].any():
            continue
        states = world.states[u, layer, :n]
        pair = [x[drop:] - (x[drop:].mean(0) if centre else 0) for x in (states, M_of(int(n)) @ states)]
        own_quotients = [quotient(normalized_laplacian(adjacency[u, drop:n, drop:n]), x) for x in pair]
        changes, falls = [], []
        for v, longer in enumerate(probe.lengths):
            other = adjacency[v, drop:n, drop:n]
            if v != u and longer >= n and other.any():
                before, after = (quotient(normalized_laplacian(other), x) for x in pair)
                changes.append(after / before - 1)
                falls.append(after < before * (1 - 1e-6))
        enough = len(changes) >= 20
        rows.append((*own_quotients, np.mean(changes) if enough else np.nan, np.mean(falls) if enough else np.nan))
    return np.array(rows)


@pytest.mark.parametrize("mode", ["two_sided", "causal"])
@pytest.mark.parametrize(("treatment", "drop", "centre"), [("headline", 1, True), ("raw", 0, False)])
def test_the_report_equals_a_loop_over_users_and_states(world, measured, mode, treatment, drop, centre):
    report = rayleigh_report(*measured, modes=[mode], cutoff=0.4, order=1, n_layers=2)
    for layer in range(world.states.shape[1]):
        rows = report.table[(report.table["layer"] == layer) & (report.table["treatment"] == treatment)]
        assert len(rows) == 1
        row = rows.iloc[0]
        before, after, other, other_falls = by_hand(
            world, measured[1], layer, lambda n: np.linalg.matrix_power(OPERATORS[mode](n, 0.4, 1), 2), drop, centre
        ).T
        change = after / before - 1
        assert row["n_users"] == len(before) > 40
        assert row["n_users_other"] == (~np.isnan(other)).sum() > 20
        expected = {
            "rayleigh_before": before.mean(),
            "rayleigh_after": after.mean(),
            "share_falls": (change < -1e-6).mean(),
            "change": change.mean(),
            "change_median": np.median(change),
            "other_change": np.nanmean(other),
            "other_share_falls": np.nanmean(other_falls),
            "excess_change": np.nanmean(change - other),
        }
        for name, value in expected.items():
            assert row[name] == pytest.approx(value, abs=2e-4), name
        assert row["change_low"] < row["change"] < row["change_high"]


def test_the_mean_over_all_orders_of_the_nodes(measured):
    """Centred states look the same to a graph in random order, whatever the filter."""
    rng = np.random.default_rng(0)
    A = np.triu(rng.random((5, 5)), 1)
    L = normalized_laplacian(A + A.T)
    H = rng.normal(size=(5, 3))
    g = H @ H.T / np.square(H).sum()
    drawn = np.mean([np.trace(L @ g[np.ix_(p, p)]) for p in (rng.permutation(5) for _ in range(20000))])
    assert module._over_all_orders(L[None], g[None])[0] == pytest.approx(drawn, abs=5e-3)
    table = rayleigh_report(*measured).table
    head = table["treatment"] == "headline"
    assert table.loc[head, "shuffled_change"].abs().max() < 1e-6
    assert table.loc[~head, "shuffled_change"].abs().min() > 1e-3


def test_states_that_know_their_own_graph_fall_more_there_than_elsewhere():
    """A planted signal: the low frequencies of each user's own graph, under fast noise that the filter removes."""
    rng = np.random.default_rng(0)
    n, T = 60, 12
    blocks = np.repeat(np.arange(3), 4)
    adjacency = np.zeros((n, T, T))
    states = np.zeros((n, 1, T, 4))
    for u in range(n):
        taste = np.roll(blocks, int(rng.integers(12)))
        adjacency[u] = (taste[:, None] == taste) * 1.0 - np.eye(T)
        slow = rng.normal(size=(3, 4))[taste]
        states[u, 0] = slow + np.cos(np.pi * np.arange(T))[:, None] * rng.normal(size=4)
    grams = LayerGrams.from_states(states, np.full(n, T), ["embed"])
    operators = {T: two_sided_operator(T, 0.6).numpy()}
    values = module._measure(grams, adjacency, operators, "headline", seed=0)
    row = module._summaries(values, 200, 0)[0]
    assert row["share_falls"] > 0.95
    assert row["excess_change_high"] < -0.1


def test_the_row_of_a_prefix_is_the_last_row_of_its_own_filter():
    states = np.random.default_rng(0).normal(size=(6, 2))
    filtered = history_operator(6, "prefix", 0.3, 2, 3) @ states
    for t in range(1, 7):
        whole = np.linalg.matrix_power(two_sided_operator(t, 0.3).numpy(), 3) @ states[:t]
        np.testing.assert_allclose(filtered[t - 1], whole[-1], atol=1e-12)


def test_locality_is_the_correlation_of_weight_and_nearness():
    rng = np.random.default_rng(1)
    A = np.zeros((4, 7, 7))
    lengths = np.array([7, 5, 3, 6])
    for row, n in enumerate(lengths):
        upper = np.triu(rng.random((n, n)), 1)
        A[row, :n, :n] = upper + upper.T
    A[3] = 0  # no edges, so no correlation
    correlations = temporal_locality(A, lengths)
    for row in (0, 1):
        first, second = np.triu_indices(lengths[row], 1)
        expected = np.corrcoef(A[row][first, second], -np.abs(first - second))[0, 1]
        assert correlations[row] == pytest.approx(expected, abs=1e-12)
    assert np.isnan(correlations[2:]).all()
    path = np.eye(8, k=1) + np.eye(8, k=-1)
    assert temporal_locality(path[None], np.array([8]))[0] > 0.5


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"cutoff": 1.2}, "got 1.2"),
        ({"order": 0}, "at least 1"),
        ({"n_layers": 0}, "n_layers must be at least 1"),
        ({"modes": ["casual"]}, "Did you mean 'causal'"),
    ],
)
def test_settings_out_of_range_are_refused(measured, options, says):
    with pytest.raises(ConfigError, match=says):
        rayleigh_report(*measured, **options)


def test_states_without_anything_left_are_refused(measured):
    grams, graph = measured
    flat = LayerGrams.from_states(
        np.ones((len(grams), 1, grams.grams.shape[-1], 2)),
        grams.lengths,
        ["embed"],
        users=grams.users,
        targets=grams.targets,
    )
    with pytest.raises(DataError, match=r"No user of \d+ can be measured \(headline\)"):
        rayleigh_report(flat, graph)


class Mixing(nn.Module):
    """Item vectors, then their running mean: a causal model of one block."""

    name, is_causal = "mixing", True

    def __init__(self, n_items):
        super().__init__()
        self.table = torch.randn(n_items, 6, generator=torch.Generator().manual_seed(0))
        self.block = nn.Identity()
        self.out = nn.Identity()

    def layers(self):
        return [("embed", "embed", self.block), ("block 1", "block", self.out)]

    def forward_sequences(self, inputs, lengths):
        x = self.block(self.table[inputs])
        return self.out(x + x.cumsum(1) / torch.arange(1, x.shape[1] + 1)[:, None])


@pytest.fixture(scope="module")
def demo_run(tmp_path_factory):
    data = make_demo().dataset
    options = AnalysisOptions(users=60, n_bootstrap=100)
    done = run_analysis(Mixing(data.n_items), data, options, out=tmp_path_factory.mktemp("runs"))
    return done.run.path


def test_the_command_prints_writes_and_says_what_two_sided_sees(monkeypatch, capsys, demo_run, tmp_path):
    out = tmp_path / "new" / "rayleigh.csv"
    code, text, err = run(monkeypatch, capsys, "rayleigh", demo_run, "--out", out)
    assert (code, err) == (0, "")
    assert "mixing on demo, headline states, cutoff 0.3, order 2, 1 filter(s)" in text
    assert "its own answer included" in text
    assert "Assumption 1" in text
    table = pd.read_csv(out)
    assert len(table) == 2 * 3 * 2
    assert list(table.columns[:10]) == [
        *("model", "dataset", "layer", "layer_name", "state", "mode", "n_layers", "cutoff", "order", "treatment")
    ]
    pd.testing.assert_frame_equal(table, rayleigh_of_run(demo_run).table)


def test_the_command_as_json_for_one_mode(monkeypatch, capsys, demo_run):
    code, text, _ = run(monkeypatch, capsys, "rayleigh", demo_run, "--json", "--mode", "causal", "--cutoff", 0.5)
    report = json.loads(text)
    assert code == 0
    assert {row["mode"] for row in report["rows"]} == {"causal"}
    assert {row["cutoff"] for row in report["rows"]} == {0.5}
    assert report["locality"]["low"] <= report["locality"]["value"] <= report["locality"]["high"]
    assert "both" in run(monkeypatch, capsys, "rayleigh", demo_run, "--mode", "cusal")[2]


def test_what_is_no_run_is_refused(monkeypatch, capsys, tmp_path):
    code, _, err = run(monkeypatch, capsys, "rayleigh", tmp_path)
    assert code == 3
    assert "not a readable run" in err
