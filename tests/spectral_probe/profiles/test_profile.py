"""Curves, intervals, retention and verdict against loops over users, and the files of a profile."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest

from spectral_probe.errors import ConfigError, DataError
from spectral_probe.graph.item_graph import ItemGraph
from spectral_probe.graph.popularity import PopularityMatch
from spectral_probe.profiles.bootstrap import Interval, percentile_interval
from spectral_probe.profiles.profile import DecayProfile
from spectral_probe.profiles.retention import foreseen_curves, paired_retention
from spectral_probe.profiles.tables import select_curve
from spectral_probe.profiles.verdict import Verdict, judge
from spectral_probe.recording.layer_grams import LayerGrams
from spectral_probe.spectrum.energy import SpectralEnergy, spectral_energy
from tests.spectral_probe.worlds import World, layer_labels, make_world, slow_rank_weights, with_excess

#: As the contract lists them.
COLUMNS = """
    model, revision, dataset, inputs, own_user, nodes, component, tau, treatment, weights, null, layer, layer_name,
    state, band, band_low, band_high, n_users, n_effective, control, energy, share, share_low, share_high, null_share,
    excess, excess_low, excess_high, retention, retention_low, retention_high, rayleigh
""".replace(",", "").split()
LABELS = {"model": "007", "revision": "NA", "dataset": "none", "inputs": "1e5", "own_user": ""}


@pytest.fixture(scope="module")
def energy(world: World) -> SpectralEnergy:
    graph = ItemGraph.from_interactions(world.dataset.train.user_items)
    bases = graph.local_bases(world.probe.targets, world.probe.lengths, users=world.probe.users)
    return spectral_energy(world.grams(), bases)


@pytest.fixture(scope="module")
def profile(energy: SpectralEnergy) -> DecayProfile:
    return whole_of(energy, n_bootstrap=200, seed=3, labels=LABELS)


def whole_of(energy: SpectralEnergy, **options) -> DecayProfile:
    """Return the profile of a curve without components."""
    return DecayProfile.from_energy(energy, **{"component": "whole", "nodes": "foreseen", **options})


@pytest.fixture(scope="module")
def split() -> SpectralEnergy:
    """Energies with components under both treatments, and weights that differ."""
    world = make_world(seed=5, n_users=150, n_items=80)
    graph = ItemGraph.from_interactions(world.dataset.train.user_items)
    items, lengths, users = world.probe.targets, world.probe.lengths, world.probe.users
    names, states = layer_labels(world.states.shape[1])
    grams = LayerGrams.from_states(
        *(world.states, lengths, names),
        layer_states=states,
        users=users,
        targets=items,
        item_counts=graph.item_counts,
    )
    matched = PopularityMatch.draw(graph, items, lengths, users, n_pseudo=4)
    return spectral_energy(grams, graph.local_bases(items, lengths, users=users), matched=matched)


# --- the table ---------------------------------------------------------------------------------------------------


def test_the_columns_are_those_of_the_contract(profile):
    frame = profile.to_frame()
    assert list(frame.columns) == COLUMNS
    # One row per layer × band × null, and no other.
    assert len(frame) == 4 * 5 * 3
    assert not frame.duplicated(["layer", "band", "null", "control"]).any()
    assert set(frame["band"]) == {"low", "1", "2", "3", "4"}
    assert set(frame["null"]) == {"swap", "permutation", "cyclic"}
    assert set(frame["control"]) == {"none"}
    same = {"nodes": "foreseen", "component": "whole", "treatment": "plain", "weights": "equal", "tau": 5.0}
    assert {name: frame[name].unique().tolist() for name in same} == {k: [v] for k, v in same.items()}
    assert {name: frame[name].unique().tolist() for name in LABELS} == {k: [v] for k, v in LABELS.items()}
    assert dict(zip(frame["layer"], frame["state"], strict=True)) == dict(
        enumerate(["embed", "block", "block", "final_norm"])
    )


def test_without_matched_graphs_every_mean_is_the_mean_over_users_with_equal_weight(profile, energy):
    valid = np.flatnonzero(energy.is_valid)
    T = {u: int(energy.lengths[u]) - 1 for u in valid}
    weights = {u: slow_rank_weights(energy.eigenvalues[u, : T[u]].tolist(), 4) for u in valid}
    for _, row in profile.to_frame().iterrows():
        layer, null = int(row["layer"]), row["null"]
        energies, shares, null_shares, rayleigh = [], [], [], []
        for u in valid:
            values = energy.eigenvalues[u, : T[u]]
            if row["band"] == "low":
                response = np.exp(-5 * values)
                null_share = energy.null_low[null][u, layer]
            else:
                response = weights[u][:, int(row["band"]) - 1]
                null_share = energy.null_energy[null][u, layer, : T[u]] @ response / energy.total[u, layer]
            energies.append(energy.energy[u, layer, : T[u]] @ response)
            shares.append(energies[-1] / energy.total[u, layer])
            null_shares.append(null_share)
            rayleigh.append(energy.energy[u, layer, : T[u]] @ values / energy.total[u, layer])
        excess = [s - n for s, n in zip(shares, null_shares, strict=True) if not math.isnan(n)]
        assert row["energy"] == pytest.approx(np.mean(energies))
        # A user without the null is in none of the row's means: share less null share is the excess.
        compared = [s for s, n in zip(shares, null_shares, strict=True) if not math.isnan(n)]
        assert row["share"] == pytest.approx(np.mean(compared))
        assert row["share"] - row["null_share"] == pytest.approx(row["excess"], abs=1e-12)
        assert row["null_share"] == pytest.approx(np.mean([n for n in null_shares if not math.isnan(n)]))
        assert row["excess"] == pytest.approx(np.mean(excess), abs=1e-12)
        assert row["n_users"] == len(excess) == pytest.approx(row["n_effective"])
        assert row["rayleigh"] == pytest.approx(np.mean(rayleigh))
        if row["band"] == "low":
            assert math.isnan(row["band_low"])
            assert math.isnan(row["band_high"])
        else:
            assert (row["band_low"], row["band_high"]) == ((int(row["band"]) - 1) / 4, int(row["band"]) / 4)


def test_users_without_swap_null_count_in_the_other_nulls_only(profile, energy):
    frame = profile.to_frame()
    n_users = frame.groupby("null")["n_users"].unique()
    assert n_users["cyclic"].tolist() == n_users["permutation"].tolist() == [energy.is_valid.sum()]
    assert n_users["swap"].tolist() == [np.isfinite(energy.null_low["swap"][:, 0]).sum()]
    assert n_users["swap"][0] < n_users["cyclic"][0]


def test_band_shares_sum_to_one_and_band_excesses_to_zero(profile):
    bands = profile.to_frame().query("band != 'low'").groupby(["layer", "null"])
    np.testing.assert_allclose(bands["share"].sum(), 1.0, rtol=1e-9)
    np.testing.assert_allclose(bands["excess"].sum(), 0.0, atol=1e-9)


def test_all_intervals_come_from_one_set_of_resamples_of_users(profile, energy):
    n = len(energy.is_valid)
    counts = np.random.default_rng(3).multinomial(n, np.full(n, 1 / n), size=200)
    excess = energy.low - energy.null_low["swap"]
    counts[:, ~(energy.is_valid & np.isfinite(excess).all(axis=1))] = 0

    def resample(values: np.ndarray) -> np.ndarray:
        return counts @ np.nan_to_num(values) / counts.sum(axis=1, keepdims=True)

    share_low, share_high = percentile_interval(resample(energy.low))
    excess_low, excess_high = percentile_interval(resample(excess))
    rho_low, rho_high = percentile_interval(resample(excess) / resample(excess)[:, :1])
    low = profile.to_frame().query("band == 'low' and null == 'swap'")
    np.testing.assert_allclose(low["share_low"], share_low, rtol=1e-9)
    np.testing.assert_allclose(low["share_high"], share_high, rtol=1e-9)
    np.testing.assert_allclose(low["excess_low"], excess_low, rtol=1e-9)
    np.testing.assert_allclose(low["excess_high"], excess_high, rtol=1e-9)
    np.testing.assert_allclose(low["retention_low"], rho_low, rtol=1e-9)
    np.testing.assert_allclose(low["retention_high"], rho_high, rtol=1e-9)


def test_retention_is_the_ratio_of_mean_excesses_and_one_at_embed(profile):
    low = profile.to_frame().query("band == 'low' and null == 'swap'").set_index("layer")
    np.testing.assert_allclose(low["retention"], low["excess"] / low.loc[0, "excess"], rtol=1e-12)
    assert low.loc[0, ["retention", "retention_low", "retention_high"]].tolist() == [1.0, 1.0, 1.0]


def test_the_bootstrap_of_retention_is_paired_user_by_user():
    """Half the excess for every user is a retention of exactly 0.5 in every resample."""
    profile = whole_of(with_excess(1.0, 0.5, 0.5, 0.2))
    retention = profile.retention["whole"]
    assert (retention.value, retention.low, retention.high) == pytest.approx((0.5, 0.5, 0.5))


def test_equal_seeds_give_equal_tables_and_other_seeds_other_intervals_only(energy, profile):
    again = whole_of(energy, n_bootstrap=200, seed=3, labels=LABELS)
    pd.testing.assert_frame_equal(again.to_frame(), profile.to_frame(), check_exact=True)
    other = whole_of(energy, n_bootstrap=200, seed=4, labels=LABELS)
    for column in ("share", "excess", "retention", "energy"):
        np.testing.assert_array_equal(other.table[column], profile.table[column])
    assert not np.allclose(other.table["excess_low"], profile.table["excess_low"])


@pytest.mark.parametrize("bands", ["rank:6", "pooled:3", "deciles", 2])
def test_the_low_band_does_not_depend_on_the_bands_on_display(energy, profile, bands):
    other = whole_of(energy, bands=bands, n_bootstrap=200, seed=3, labels=LABELS)
    pd.testing.assert_frame_equal(
        other.table.query("band == 'low'").reset_index(drop=True),
        profile.table.query("band == 'low'").reset_index(drop=True),
        rtol=1e-12,
    )
    assert (other.verdict, other.retention) == (profile.verdict, profile.retention)


def test_users_without_a_pooled_band_are_left_out_of_it_alone(energy):
    valid = energy.is_valid
    lowest = energy.eigenvalues[valid][:, 0]
    # Frequencies just above zero exist for every user; a hundred bands leave many users without most of them.
    table = whole_of(energy, bands="pooled:100", n_bootstrap=100).table
    cyclic = table[(table["null"] == "cyclic") & (table["layer"] == 0)].set_index("band")
    assert lowest.max() < 1e-6
    assert cyclic.loc["1", "n_users"] == valid.sum()
    assert cyclic["n_users"].min() < valid.sum() / 2
    assert cyclic["share"].notna().all()


def test_one_row_per_user_and_layer_says_what_the_means_are_made_of(profile, energy):
    table = profile.per_user
    assert len(table) == energy.is_valid.sum() * 4
    for (sequence, name), row in table.set_index(["sequence", "layer_name"]).iterrows():
        layer = energy.layer_names.index(name)
        assert row["share"] == energy.low[sequence, layer]
        assert (row["nodes"], row["weight"], row["measured"]) == ("foreseen", 1.0, energy.lengths[sequence])
        excess = energy.low[sequence, layer] - energy.null_low["swap"][sequence, layer]
        np.testing.assert_equal(row["excess_swap"], excess)


# --- components ---------------------------------------------------------------------------------------------------


def test_components_have_rows_of_their_own_weighted_by_the_graphs(split):
    profile = DecayProfile.from_energy(split, n_bootstrap=100, labels=LABELS)
    frame = profile.to_frame()
    assert list(frame.columns) == COLUMNS
    rows = frame[frame["component"] != "whole"].groupby(["component", "treatment"]).size()
    # Of the treated states only taste is meant.
    assert set(rows.index) == {("taste", "residual"), ("taste", "rows"), ("popularity", "rows"), ("lag", "rows")}
    w = split.weights
    assert len(np.unique(w[split.is_valid])) > 2
    for component in ("taste", "popularity", "lag"):
        curve, values = profile.curve(component), split.component_excess[component]
        present = np.isfinite(values).all(axis=1)
        for layer in range(4):
            total = sum(w[u] * values[u, layer] for u in np.flatnonzero(present))
            assert curve["excess"].iloc[layer] == pytest.approx(total / sum(w[present]))
        assert set(curve["n_users"]) == {present.sum()}
        assert curve["n_effective"].iloc[0] == pytest.approx(w[present].sum() ** 2 / (w[present] ** 2).sum())
        assert (set(curve["null"]), set(curve["tau"]), set(curve["weights"])) == ({"swap"}, {1.0}, {"graph"})
    # The parts add up to the whole on the same states, at the same diffusion time.
    rows = split.split["rows"]
    total = rows["popularity"] + rows["lag"] + rows["taste"]
    np.testing.assert_allclose(total, rows["whole"], atol=1e-12)


@pytest.mark.parametrize("null", ["swap", "permutation", "cyclic"])
def test_the_curve_of_the_whole_is_that_of_the_shares_over_every_null(split, null):
    """The whole is also split at the diffusion time of the components; that curve has no share."""
    profile = DecayProfile.from_energy(split, n_bootstrap=100)
    curve = profile.curve("whole", null=null)
    assert (set(curve["null"]), set(curve["tau"]), set(curve["treatment"])) == ({null}, {5.0}, {"plain"})
    known = np.isfinite(split.null_low[null]).all(axis=1) & split.is_valid
    low, w = split.low[known], split.weights[known]
    np.testing.assert_allclose(curve["share"], np.average(low, axis=0, weights=w))
    excess = np.average(low - split.null_low[null][known], axis=0, weights=w)
    np.testing.assert_allclose(curve["excess"], excess, atol=1e-12)
    at_one = select_curve(profile.table, component="whole", treatment="rows")
    assert set(at_one["tau"]) == {1.0}
    assert profile.whole_retention()[null] == pytest.approx(excess[2] / excess[0])


def test_equal_weights_are_the_control_of_the_same_numbers(split):
    profile = DecayProfile.from_energy(split, n_bootstrap=100, weights="equal")
    values = split.component_excess["taste"]
    np.testing.assert_allclose(profile.curve("taste")["excess"], np.nanmean(values, axis=0))
    assert set(profile.table["weights"]) == {"equal"}
    curve = profile.curve("taste")
    assert curve["n_effective"].tolist() == pytest.approx(curve["n_users"].tolist())


def test_the_headline_is_of_taste_and_the_component_can_be_chosen(split):
    taste, popularity = (DecayProfile.from_energy(split, n_bootstrap=100, component=c) for c in ("taste", "popularity"))
    assert set(taste.verdicts) == set(popularity.verdicts) == {"taste", "popularity"}
    assert taste.verdicts == popularity.verdicts
    assert (taste.verdict, popularity.verdict) == (taste.verdicts["taste"], taste.verdicts["popularity"])
    assert popularity.curve()["component"].unique().tolist() == ["popularity"]
    users = taste.user_counts
    assert users["measured"] == taste.n_users == int(split.is_valid.sum())
    assert users["shortened"] == int((split.is_valid & (split.n_nodes > split.lengths)).sum()) > 0
    assert set(taste.per_user["weight"]) == set(split.weights[split.is_valid])
    assert taste.per_user["taste"].tolist() == split.split["residual"]["taste"][split.is_valid].ravel().tolist()
    assert taste.per_user["taste_rows"].tolist() == split.split["rows"]["taste"][split.is_valid].ravel().tolist()


def test_a_profile_with_components_is_loaded_as_it_was_saved(split, tmp_path):
    profile = DecayProfile.from_energy(split, n_bootstrap=100, labels=LABELS)
    paired = paired_retention(split, split, n_bootstrap=100, seed=0)
    foreseen = foreseen_curves(split, split, n_bootstrap=100, seed=0)
    plain = DecayProfile.from_energy(split, n_bootstrap=100, labels=LABELS, control="equal-weights", weights="equal")
    verdicts = {name: replace(v, depends_on=("weights",)) for name, v in profile.verdicts.items()}
    profile = replace(profile, paired={"random-weights": paired}, foreseen=foreseen, verdicts=verdicts)
    profile = replace(profile, controls={"equal-weights": plain})
    profile.save(tmp_path / "run")
    loaded = DecayProfile.load(tmp_path / "run")
    pd.testing.assert_frame_equal(loaded.to_frame(), profile.to_frame(), check_exact=True)
    assert loaded.summary() == profile.summary()
    assert loaded.verdict.depends_on == ("weights",)
    assert loaded.paired["random-weights"]["taste"]["difference"] == Interval(0.0, 0.0, 0.0)
    assert loaded.controls["equal-weights"].verdicts == plain.verdicts
    loaded.save(tmp_path / "again")
    for name in ("bands.csv", "summary.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "run" / name).read_bytes()


def test_the_paired_difference_is_that_of_a_bootstrap_by_loop(split):
    """Both captures are resampled with the same users; the interval is of the difference, user by user."""
    rng = np.random.default_rng(0)
    noisy = {
        treatment: {name: values * rng.uniform(0.5, 1.5, (len(values), 1)) for name, values in parts.items()}
        for treatment, parts in split.split.items()
    }
    fewer = split.is_valid.copy()
    fewer[np.flatnonzero(fewer)[:3]] = False
    other = replace(split, split=noisy, is_valid=fewer, weights=np.where(fewer, 2 * split.weights**0.5, 0.0))
    result = paired_retention(split, other, n_bootstrap=120, seed=5)
    n = len(split.is_valid)
    counts = np.random.default_rng(5).multinomial(n, np.full(n, 1 / n), size=120)
    users = np.flatnonzero(fewer)
    w = (split.weights + other.weights) / 2
    for component in ("taste", "popularity"):
        x, y = split.component_excess[component], other.component_excess[component]
        known = [u for u in users if np.isfinite(x[u]).all()]

        def retention(values, m, known=known):
            last, first = (sum(m[u] * w[u] * values[u, layer] for u in known) for layer in (2, 0))
            return last / first

        differences = np.array([retention(y, m) - retention(x, m) for m in counts])
        once = np.ones(n)
        expected = retention(y, once) - retention(x, once)
        interval = result[component]["difference"]
        assert interval.value == pytest.approx(expected)
        ends = np.percentile(differences, [2.5, 97.5])
        assert (interval.low, interval.high) == pytest.approx(tuple(ends))
        assert result[component]["base"].value == pytest.approx(retention(x, once))
        assert result[component]["other"].value == pytest.approx(retention(y, once))


def test_what_is_foreseen_is_in_units_of_what_is_carried_at_the_input(split):
    half = {t: {name: values / 2 for name, values in parts.items()} for t, parts in split.split.items()}
    table = foreseen_curves(split, replace(split, split=half), n_bootstrap=100, seed=0)
    assert table["component"].unique().tolist() == ["taste", "popularity"]
    first = table[table["layer_name"] == "embed"]
    np.testing.assert_allclose(first[["value", "low", "high"]], 0.5)
    profile = DecayProfile.from_energy(split, n_bootstrap=100)
    curve = profile.curve("taste")
    np.testing.assert_allclose(table["value"].iloc[:4], curve["retention"] / 2)


def test_the_test_of_the_input_is_stricter_where_exchanged_items_spread_more(split):
    plain = DecayProfile.from_energy(split, n_bootstrap=100)
    excess = plain.embed_excess["taste"]
    assert excess.low > 0
    assert not plain.verdict.label.startswith("no measurable")
    stricter = excess.value / (excess.value - excess.low) * 1.01
    strict = DecayProfile.from_energy(split, n_bootstrap=100, embed_sd=stricter)
    assert strict.verdicts["taste"].label == "no measurable taste"
    assert strict.verdicts["popularity"] == plain.verdicts["popularity"]
    assert strict.embed_excess == plain.embed_excess


# --- the verdict -------------------------------------------------------------------------------------------------

SIGNAL = Interval(0.02, 0.01, 0.03)


@pytest.mark.parametrize(
    ("embed", "retention", "label"),
    [
        ((0.02, 0.0, 0.04), (0.5, 0.4, 0.6), "no measurable excess"),
        ((0.02, -0.01, 0.05), (0.9, 0.85, 0.95), "no measurable excess"),
        ((-0.02, -0.03, -0.01), (2.0, 1.5, 2.5), "no measurable excess"),
        (SIGNAL, (0.5, 0.4, 0.6), "attenuated"),
        (SIGNAL, (0.9, 0.85, 0.95), "preserved"),
        (SIGNAL, (0.9, 0.79, 0.95), "attenuated"),
        (SIGNAL, (-0.1, -0.4, 0.2), "attenuated"),
        (SIGNAL, (1.1, 1.05, 1.15), "preserved"),
        (SIGNAL, (1.2, 1.05, 1.26), "amplified"),
        (SIGNAL, (2.0, 1.01, 4.0), "amplified"),
        (SIGNAL, (1.0, 0.9, 1.1), "preserved"),
        (SIGNAL, (1.0, 0.8, 1.25), "preserved"),
        (SIGNAL, (0.95, 0.9, 1.0), "preserved"),
        (SIGNAL, (1.1, 1.0, 1.2), "preserved"),
        (SIGNAL, (1.0, 0.79, 1.1), "inconclusive"),
        (SIGNAL, (1.0, 0.9, 1.26), "inconclusive"),
        (SIGNAL, (1.3, 0.7, 1.9), "inconclusive"),
    ],
)
def test_the_rules_of_the_verdict_apply_in_their_order(embed, retention, label):
    assert judge(Interval(*embed) if isinstance(embed, tuple) else embed, Interval(*retention), 500).label == label


def test_a_preserved_retention_says_where_it_leaves_out_1():
    words = {(0.9, 0.85, 0.95): "below 1", (1.1, 1.05, 1.15): "above 1", (1.0, 0.9, 1.1): ""}
    for retention, side in words.items():
        verdict = judge(SIGNAL, Interval(*retention), 500)
        assert verdict.label == "preserved"
        assert str(verdict) == (f"preserved (measurably {side})" if side else "preserved")


@pytest.mark.parametrize(
    ("retention", "n_users", "needed"),
    [
        ((1.0, 0.7, 1.3), 100, 100 * (0.3 / 0.2) ** 2),  # h* = min(0.2, 0.25)
        ((1.1, 0.95, 1.3), 100, 100 * (0.175 / 0.15) ** 2),  # h* = 1.25 − 1.1
        ((2.0, 0.5, 3.5), 77, 77 * 1.5**2),  # h* = ρ − 1
        ((0.5, 0.1, 1.23), 301, 301 * (0.565 / 0.5) ** 2),  # h* = 1 − ρ
        ((0.93, 0.6, 1.3), 50, 50 * (0.35 / 0.13) ** 2),  # h* = 0.93 − 0.8
    ],
)
def test_an_inconclusive_verdict_says_how_many_users_would_do(retention, n_users, needed):
    verdict = judge(SIGNAL, Interval(*retention), n_users)
    assert verdict.label == "inconclusive"
    assert verdict.users_needed == pytest.approx(math.ceil(needed - 1e-9), abs=1)
    assert str(verdict) == f"inconclusive ({n_users} users; effectively about {verdict.users_needed} needed)"


def test_what_is_needed_is_counted_in_effective_users():
    interval = Interval(1.0, 0.7, 1.3)
    verdict = judge(SIGNAL, interval, 400, n_effective=100.0)
    assert (verdict.n_users, verdict.users_needed) == (400, 225)  # 100 (0.3 / 0.2)²
    assert str(verdict) == "inconclusive (400 users, effectively 100; effectively about 225 needed)"
    depending = replace(verdict, label="attenuated", depends_on=("weights", "treatment"))
    assert str(depending) == "attenuated; depends on: weights, treatment"


@pytest.mark.parametrize(
    ("component", "label"),
    [
        ("taste", "no measurable taste"),
        ("popularity", "no measurable popularity"),
        ("lag", "no measurable lag profile"),
    ],
)
def test_the_label_names_the_component_that_is_not_there(component, label):
    nothing = judge(Interval(0.0, -0.01, 0.01), Interval(1.0, 0.9, 1.1), 500, component=component)
    assert nothing.label == label


def test_without_excess_at_embed_the_verdict_is_no_signal_also_where_retention_is_undefined():
    nothing = Interval(0.0, 0.0, 0.0)
    assert judge(nothing, Interval(math.nan, math.nan, math.nan), 500).label == "no measurable excess"


def test_without_numbers_or_users_nothing_is_concluded():
    nan = Interval(math.nan, math.nan, math.nan)
    assert judge(nan, nan, 500) == Verdict("inconclusive", 500)
    assert judge(SIGNAL, Interval(1.0, -math.inf, math.inf), 500) == Verdict("inconclusive", 500)
    assert judge(SIGNAL, Interval(0.5, 0.4, 0.6), 19) == Verdict("inconclusive", 19)
    assert judge(SIGNAL, Interval(0.5, 0.4, 0.6), 20).label == "attenuated"


@pytest.mark.parametrize(
    ("factors", "label"),
    [
        ((1, 0.9, 0.4, 1.0), "attenuated"),
        ((1, 0.4, 1.0, 0.4), "preserved"),
        ((1, 1.0, 1.8, 0.2), "amplified"),
        ((0, 1.0, 1.0, 1.0), "no measurable excess"),
    ],
)
def test_the_verdict_is_that_of_the_last_block_and_never_of_the_final_norm(factors, label):
    profile = whole_of(with_excess(*factors, noise=0.02))
    assert profile.verdict.label == label
    assert profile.retention_layer == "block 2"
    last = profile.table.query("band == 'low' and layer_name == 'block 2'").iloc[0]
    assert profile.retention["whole"] == Interval(last["retention"], last["retention_low"], last["retention_high"])
    first = profile.table.query("band == 'low' and layer_name == 'embed'").iloc[0]
    assert profile.embed_excess["whole"] == Interval(first["excess"], first["excess_low"], first["excess_high"])


def test_the_verdict_rests_on_the_null_that_was_chosen(energy):
    for null in ("swap", "permutation", "cyclic"):
        profile = whole_of(energy, null=null, n_bootstrap=100)
        row = profile.table.query("band == 'low' and layer_name == 'block 2' and null == @null").iloc[0]
        assert profile.retention["whole"].value == row["retention"]
        assert set(profile.table["null"]) == {"swap", "permutation", "cyclic"}, "all nulls have rows"


def test_without_a_null_there_is_a_curve_and_no_verdict(energy):
    bare = replace(energy, null_energy={}, null_low={})
    profile = whole_of(bare, null=None, n_bootstrap=100)
    assert profile.verdict.label == "none"
    assert profile.retention == profile.embed_excess == {}
    assert set(profile.table["null"]) == {"none"}
    assert profile.table["share"].notna().all()
    assert profile.table[["excess", "null_share", "retention"]].isna().all(axis=None)
    assert set(profile.table["n_users"]) == {energy.is_valid.sum()}


@pytest.mark.parametrize("missing", ["embed", "block"])
def test_without_embed_or_a_block_there_is_no_verdict(missing):
    energy = with_excess(1, 0.5, 0.5, 0.5)
    states = tuple("final_norm" if state == missing else state for state in energy.layer_states)
    profile = whole_of(replace(energy, layer_states=states))
    assert profile.verdict.label == "none"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"null": "swop"},
            r"null must be one of cyclic, permutation, swap; got 'swop'. Did you mean 'swap'\? The others were not",
        ),
        ({"bands": "thirds"}, r"bands must be .*got 'thirds'"),
        ({"n_bootstrap": 10}, r"n_bootstrap must be at least 100"),
        ({"component": "taste"}, r"'taste' needs popularity-matched graphs"),
        ({"component": "tase"}, r"component must be one of .*got 'tase'"),
        ({"nodes": "both"}, r"nodes must be one of carried, foreseen; got 'both'"),
        ({"weights": "length"}, r"weights must be one of graph, equal; got 'length'"),
    ],
)
def test_an_option_out_of_range_is_refused(energy, options, message):
    with pytest.raises(ConfigError, match=message):
        whole_of(energy, **options)


# --- summary and files -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_controls(energy, profile) -> DecayProfile:
    raw = whole_of(energy, null="cyclic", n_bootstrap=100, labels=LABELS, control="raw")
    bare = whole_of(energy, null=None, n_bootstrap=100, labels=LABELS, control="path-graph")
    return replace(profile, controls={"raw": raw, "path-graph": bare}, caveats=("raw-disagrees",))


def test_the_summary_holds_the_keys_of_the_contract(with_controls, energy):
    summary = with_controls.summary()
    assert summary["format"] == 2
    assert {
        "verdict", "verdicts", "component", "retention", "embed_excess", "foreseen", "whole_retention", "users",
        "n_users", "paired", "control_verdicts", "protocol", "caveats", "raw_verdict"
    } <= set(summary)  # fmt: skip
    retention = with_controls.retention["whole"]
    assert summary["retention"] == {"whole": {**asdict(retention), "layer": "block 2"}}
    assert summary["embed_excess"] == {"whole": asdict(with_controls.embed_excess["whole"])}
    assert summary["verdicts"]["whole"]["label"] == with_controls.verdict.label
    assert summary["control_verdicts"]["path-graph"] == {"whole": {"verdict": "none", "retention": None}}
    assert summary["verdict"] == str(with_controls.verdict)
    assert summary["raw_verdict"] == str(with_controls.controls["raw"].verdict)
    assert summary["n_users"] == energy.is_valid.sum()
    users = summary["users"]
    assert users["skipped"]["local graph without an edge"] == 1
    assert users["measured"] == summary["n_users"]
    assert users["probed"] == users["measured"] + sum(users["skipped"].values())
    assert summary["caveats"] == ["raw-disagrees"]
    assert {"whole_tau": 5.0, "drop_first": 1, "center": True, "n_bootstrap": 200, "null": "swap"}.items() <= summary[
        "protocol"
    ].items()


def test_the_table_holds_the_curves_and_then_those_of_every_control(with_controls):
    frame = with_controls.to_frame()
    assert frame["control"].drop_duplicates().tolist() == ["none", "raw", "path-graph"]
    assert len(frame) == 3 * 60


def test_what_is_saved_is_what_is_loaded(with_controls, tmp_path):
    with_controls.save(tmp_path / "run")
    loaded = DecayProfile.load(tmp_path / "run")
    pd.testing.assert_frame_equal(loaded.to_frame(), with_controls.to_frame(), check_exact=True)
    pd.testing.assert_frame_equal(loaded.per_user, with_controls.per_user, rtol=1e-9, check_dtype=False)
    assert loaded.summary() == with_controls.summary()
    assert loaded.verdict == with_controls.verdict
    assert (loaded.null, loaded.retention_layer) == ("swap", "block 2")
    assert loaded.controls["raw"].null == "cyclic"
    assert loaded.controls["path-graph"].null is None
    loaded.save(tmp_path / "again")
    for name in ("bands.csv", "summary.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "run" / name).read_bytes()


def test_equal_profiles_are_equal_files(energy, tmp_path):
    for name in ("a", "b"):
        whole_of(energy, n_bootstrap=100).save(tmp_path / name)
    for file in ("bands.csv", "summary.json", "per_user.csv.gz"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_the_summary_is_strict_json_also_with_undefined_numbers(tmp_path):
    nothing = whole_of(with_excess(0, 0, 0, 0))
    nothing.save(tmp_path)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert summary["retention"]["whole"]["value"] is None
    assert DecayProfile.load(tmp_path).verdict == nothing.verdict


@pytest.mark.parametrize("damage", ["absent", "no table", "broken JSON", "no column"])
def test_a_folder_without_a_readable_profile_is_named(profile, tmp_path, damage):
    if damage != "absent":
        profile.save(tmp_path)
    if damage == "no table":
        (tmp_path / "bands.csv").unlink()
    elif damage == "broken JSON":
        (tmp_path / "summary.json").write_text("{")
    elif damage == "no column":
        pd.read_csv(tmp_path / "bands.csv").drop(columns="band").to_csv(tmp_path / "bands.csv", index=False)
    with pytest.raises(DataError, match=r"has no readable profile.*Give the folder of a finished run"):
        DecayProfile.load(tmp_path)
