"""What an analysis says: users, verdicts that depend on a choice, massive positions, too few users."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from spectral_probe.analysis.measure import Measurement, massive_positions, measure
from spectral_probe.analysis.options import MAIN, AnalysisOptions
from spectral_probe.analysis.pipeline import analyze
from spectral_probe.graph.item_graph import ItemGraph
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.sequences import probe_sequences
from spectral_probe.profiles.bootstrap import Interval
from spectral_probe.profiles.profile import DecayProfile
from spectral_probe.profiles.tables import frequency_table
from spectral_probe.profiles.verdict import Verdict
from spectral_probe.recording.capture import capture
from spectral_probe.recording.layer_grams import LayerGrams
from spectral_probe.report.paper_figures import run_figures
from spectral_probe.report.words import caveat_in_words, users_in_words, verdict_in_words
from tests.spectral_probe.tiny_models import knowing
from tests.spectral_probe.worlds import tastes

FAST = {"n_bootstrap": 100, "n_pseudo": 4}


@pytest.fixture(scope="module")
def long_alone() -> tuple[Dataset, np.ndarray]:
    """Sixty users of 8 to 14 items, and five of 40 and more, who are alone with their length."""
    return tastes([8 + u % 7 for u in range(60)] + [40, 41, 45, 50, 52])


def test_nobody_leaves_because_the_others_are_short_and_the_numbers_agree(long_alone) -> None:
    dataset, taste = long_alone
    profile = analyze(knowing(dataset, taste), dataset, **FAST)
    users, summary = profile.user_counts, profile.summary()
    assert users["probed"] == 65 == users["measured"] + sum(users["skipped"].values())
    assert users["measured"] == profile.n_users == summary["n_users"] == profile.verdict.n_users
    assert set(profile.curve("taste")["n_users"]) == {users["measured"]}
    table = profile.per_user.query("nodes == 'carried' and layer_name == 'embed'").copy()
    table = table.set_index(table["user_id"].astype(str))
    assert len(table) == users["measured"]
    # By hand: the items read after the first, each once; leading ones that 20 others have too.
    probe = probe_sequences(dataset)
    n_nodes = {str(dataset.user_ids[u]): int(n) - 1 for u, n in zip(probe.users, probe.lengths, strict=True)}
    shortened = 0
    for user, n in n_nodes.items():
        others = [m for v, m in n_nodes.items() if v != user]
        measured = max(T for T in range(1, n + 1) if sum(m >= T for m in others) >= 20)
        assert table.loc[user, "measured"] == measured
        shortened += measured < n
    assert users["shortened"] == shortened >= 5
    assert f"{shortened} of them on fewer" in users_in_words(profile)
    foreseen = profile.protocol["foreseen_users"]
    assert foreseen["probed"] == 65


def test_users_keeps_the_longest_third(long_alone) -> None:
    dataset, taste = long_alone
    profile = analyze(knowing(dataset, taste), dataset, users=30, **FAST)
    assert profile.user_counts["probed"] == 30
    assert profile.user_counts["measured"] + sum(profile.user_counts["skipped"].values()) == 30
    probe = probe_sequences(dataset, max_users=30, seed=0)
    longest = set(dataset.user_ids[probe.users[np.argsort(-probe.lengths)[:10]]].astype(str))
    assert longest <= set(profile.per_user["user_id"].astype(str))
    assert profile.verdict.n_users == profile.user_counts["measured"] >= 25


@pytest.mark.parametrize(("n", "is_measurable"), [(20, False), (21, True)])
def test_fewer_than_21_users_have_a_curve_and_an_inconclusive_verdict(n, is_measurable) -> None:
    dataset, taste = tastes([12] * n, n_items=60)
    profile = analyze(knowing(dataset, taste), dataset, **FAST)
    assert profile.user_counts["measured"] == n
    assert {verdict.label == "inconclusive" for verdict in profile.verdicts.values()} == {not is_measurable}
    assert {verdict.n_users for verdict in profile.verdicts.values()} == {n}
    assert profile.curve("taste")["excess"].notna().all() == is_measurable
    whole = profile.curve("whole", null="cyclic")
    assert whole["share"].notna().all()
    assert whole["excess"].notna().all()
    assert ("no-swap-null" in profile.caveats) == (not is_measurable)


@pytest.fixture(scope="module")
def only_long_ones_keep() -> DecayProfile:
    """Many short histories, which count little, lose all they carry; long ones keep it."""
    dataset, taste = tastes([*(8 + u % 3 for u in range(150)), *(26 + u % 5 for u in range(80))], seed=1)
    probe = probe_sequences(dataset)
    graph = ItemGraph.from_interactions(dataset.train.user_items)
    rng = np.random.default_rng(0)
    vectors = [2.0 * np.eye(12)[taste] + noise * rng.normal(size=(dataset.n_items, 12)) for noise in (0.5, 0.4)]
    embed, kept = (table[probe.inputs] for table in vectors)
    block = np.where((probe.lengths > 15)[:, None, None], kept, rng.normal(size=embed.shape))
    main = LayerGrams.from_states(
        [embed, block],
        probe.lengths,
        ["embed", "block 1"],
        users=probe.users,
        targets=probe.targets,
        inputs=probe.inputs,
        item_counts=graph.item_counts,
    )
    return measure({MAIN: main}, graph, AnalysisOptions(**FAST), {})


def test_weights_that_change_the_word_are_said(only_long_ones_keep) -> None:
    profile = only_long_ones_keep
    verdict, equal = profile.verdicts["taste"], profile.controls["equal-weights"]
    assert equal.verdicts["taste"].label == "attenuated"
    assert verdict.label != "attenuated"
    assert profile.retention["taste"].low > equal.retention["taste"].high
    assert "weights" in verdict.depends_on
    assert str(verdict).endswith(f"; depends on: {', '.join(verdict.depends_on)}")
    assert profile.summary()["verdicts"]["taste"]["depends_on"] == verdict.depends_on
    w = profile.energy.weights
    assert verdict.n_effective == pytest.approx(w.sum() ** 2 / np.square(w).sum())
    assert verdict.n_effective < verdict.n_users == equal.verdicts["taste"].n_effective


@pytest.mark.parametrize(
    ("control", "choice", "components"),
    [
        ("equal-weights", "weights", ("taste", "popularity")),
        ("normalized-rows", "treatment", ("taste",)),  # popularity is measured so anyway
        ("plain", "treatment", ("taste", "popularity")),
        ("split-graph", "graph", ("taste", "popularity")),
        ("long-histories", "length", ("taste", "popularity")),
    ],
)
def test_the_choice_is_named_by_the_control_that_disagrees(only_long_ones_keep, control, choice, components) -> None:
    profile = only_long_ones_keep
    verdicts = dict.fromkeys(("taste", "popularity"), Verdict("attenuated", 230))
    agreeing = replace(profile, verdicts=verdicts, controls={})
    other = replace(agreeing, verdicts=dict.fromkeys(verdicts, Verdict("preserved", 230)))
    controls = dict.fromkeys(("equal-weights", "normalized-rows", "plain"), agreeing)
    measurement = Measurement({MAIN: None}, None, AnalysisOptions(), {}, None)
    for component in ("taste", "popularity"):
        same = replace(agreeing, controls=controls)
        assert measurement._dependence(same, component).depends_on == ()
        verdict = measurement._dependence(replace(agreeing, controls=controls | {control: other}), component)
        assert verdict.depends_on == ((choice,) if component in components else ())


def test_massive_positions_beyond_the_first_are_counted_by_layer() -> None:
    T, lengths = 6, np.array([6, 4, 6])
    norms = np.ones((3, 3, T))  # (users, layers, positions)
    norms[:, :, 0] = 1000.0  # the first position is dropped anyway
    norms[0, 1, 3] = 11.0
    norms[2, 1, 5] = 40.0
    norms[1, 1, 5] = 99.0  # padding
    norms[1, 2, 1] = 9.9
    grams = norms[..., None] * norms[..., None, :]
    real = np.arange(T) < lengths[:, None]
    grams = np.where(real[:, None, :, None] & real[:, None, None, :], grams, 0).astype(np.float32)
    made = LayerGrams(grams, lengths, ("embed", "block 1", "block 2"), ("embed", "block", "block"))
    assert massive_positions(made) == ({"block 1": 2}, 5 + 3 + 5)
    loud = replace(made, grams=grams * 100)  # relative to the median of the layer
    assert massive_positions(loud)[0] == {"block 1": 2}


def test_massive_positions_and_zero_rows_are_in_the_protocol(long_alone) -> None:
    dataset, taste = long_alone
    probe = probe_sequences(dataset)
    graph = ItemGraph.from_interactions(dataset.train.user_items)
    known = {"users": probe.users, "targets": probe.targets, "item_counts": graph.item_counts}
    main = capture(knowing(dataset, taste), probe.inputs, probe.lengths, **known)
    treated = main.treated.copy()
    treated[0, 1, 2] = treated[0, 1, :, 2] = 0.0  # a row that popularity explained
    loud = main.grams.copy()
    loud[3, 2, 4, :] *= 50
    loud[3, 2, :, 4] *= 50
    profile = measure({MAIN: replace(main, treated=treated, grams=loud)}, graph, AnalysisOptions(**FAST), {})
    assert profile.protocol["massive_positions"] == {"block 2": 1}
    assert "massive-positions" in profile.caveats
    counted = f"Most at block 2: 1 of {int((probe.lengths - 1).sum())} positions."
    assert caveat_in_words(profile, "massive-positions").endswith(counted)
    pilot = profile.protocol["pilot"]
    assert pilot["zero_rows"] == {"block 1": 1}
    assert (pilot["users"], pilot["positions"]) == (65, int((probe.lengths - 1).sum()))


def test_grams_without_treated_states_have_curves_and_no_verdict(long_alone) -> None:
    dataset, taste = long_alone
    probe = probe_sequences(dataset)
    graph = ItemGraph.from_interactions(dataset.train.user_items)
    main = capture(knowing(dataset, taste), probe.inputs, probe.lengths, users=probe.users, targets=probe.targets)
    profile = measure({MAIN: replace(main, inputs=None)}, graph, AnalysisOptions(**FAST), {})
    assert {verdict.label for verdict in profile.verdicts.values()} == {"none"}
    assert "untreated-states" in profile.caveats
    curve = profile.curve("taste")
    assert set(curve["treatment"]) == {"rows"}
    assert curve["excess"].notna().all()
    assert isinstance(profile.retention["taste"], Interval)
    assert math.isfinite(profile.retention["taste"].value)


def test_a_control_that_nobody_is_long_enough_for_is_left_out_and_named() -> None:
    dataset, taste = tastes([8 + u % 3 for u in range(40)])
    profile = analyze(knowing(dataset, taste), dataset, controls=("long-histories",), **FAST)
    assert "long-histories" not in profile.controls
    assert "no-long-histories" in profile.caveats
    assert profile.verdict.label != "none"


def test_a_stricter_test_of_the_input_holds_for_every_choice_and_is_said(long_alone) -> None:
    dataset, taste = long_alone
    probe = probe_sequences(dataset)
    graph = ItemGraph.from_interactions(dataset.train.user_items)
    known = {"users": probe.users, "targets": probe.targets, "item_counts": graph.item_counts}
    captures = {MAIN: capture(knowing(dataset, taste), probe.inputs, probe.lengths, **known)}
    options = AnalysisOptions(**FAST, controls=("split-graph",))
    profiles = [measure(captures, graph, options, {}, embed_sd=sd) for sd in (1.0, 1000.0)]
    controls = ("plain", "normalized-rows", "equal-weights", "split-graph")
    labels = [{profile.controls[name].verdicts["taste"].label for name in controls} for profile in profiles]
    assert labels[0] != {"no measurable taste"}
    assert labels[1] == {"no measurable taste"}
    assert profiles[1].verdicts["taste"].depends_on == ()
    assert profiles[1].verdicts["popularity"] == profiles[0].verdicts["popularity"]  # the test is of taste alone
    assert "it divides by 1000.00, the standard deviation of z" in verdict_in_words(profiles[1])
    assert "it divides by" not in verdict_in_words(profiles[0])


def test_equal_weights_are_those_of_every_number(long_alone) -> None:
    dataset, taste = long_alone
    probe = probe_sequences(dataset)
    graph = ItemGraph.from_interactions(dataset.train.user_items)
    known = {"users": probe.users, "targets": probe.targets, "item_counts": graph.item_counts}
    main = capture(knowing(dataset, taste), probe.inputs, probe.lengths, **known)
    options = AnalysisOptions(**FAST, weights="equal", controls=("random-weights",))
    profile = measure({MAIN: main, "random-weights": main}, graph, options, {})
    for nodes in ("carried", "foreseen"):
        users = profile.users("taste", nodes=nodes)
        assert set(users["weight"]) == {1.0}
        means = profile.curve("taste", nodes=nodes).set_index("layer_name")["excess"]
        for layer in means.index:
            assert np.average(users[layer], weights=users["weight"]) == pytest.approx(means[layer])
    paired = profile.paired["random-weights"]
    for component in ("taste", "popularity"):
        assert paired[component]["base"].value == pytest.approx(profile.retention[component].value)
        foreseen = profile.foreseen.query("component == @component").set_index("layer_name")["value"]
        excess = profile.curve(component, nodes="foreseen").set_index("layer_name")["excess"]
        np.testing.assert_allclose(foreseen, excess / profile.embed_excess[component].value)
    energy = profile.energy
    assert profile.user_counts["mean_length"] == round(float(energy.measured[energy.is_valid].mean()), 2)
    alike = replace(energy, weights=energy.is_valid.astype(float))
    drawn = run_figures([profile])["heatmap"].data.drop(columns="model").set_index("layer")
    np.testing.assert_allclose(drawn, frequency_table(alike, "swap"))
    assert not np.allclose(drawn, frequency_table(energy, "swap"))
