"""Curves, intervals, retention and verdict against loops over users, and the files of a profile."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from spectral_probe.errors import ConfigError, DataError
from spectral_probe.graph.item_graph import ItemGraph
from spectral_probe.profiles.bootstrap import Interval, percentile_interval, resampled_means
from spectral_probe.profiles.profile import DecayProfile
from spectral_probe.profiles.verdict import Verdict, judge
from spectral_probe.spectrum.energy import SpectralEnergy, spectral_energy
from tests.spectral_probe.worlds import World, slow_rank_weights, with_excess

#: As the contract lists them.
COLUMNS = """
    model, revision, dataset, inputs, own_user, null, layer, layer_name, state, band, band_low, band_high, n_users,
    control, energy, share, share_low, share_high, null_share, excess, excess_low, excess_high, retention,
    retention_low, retention_high, rayleigh
""".replace(",", "").split()
LABELS = {"model": "007", "revision": "NA", "dataset": "none", "inputs": "1e5", "own_user": ""}


@pytest.fixture(scope="module")
def energy(world: World) -> SpectralEnergy:
    graph = ItemGraph.from_interactions(world.dataset.train.user_items)
    bases = graph.local_bases(world.probe.targets, world.probe.lengths, users=world.probe.users)
    return spectral_energy(world.grams(), bases)


@pytest.fixture(scope="module")
def profile(energy: SpectralEnergy) -> DecayProfile:
    return DecayProfile.from_energy(energy, n_bootstrap=200, seed=3, labels=LABELS)


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
    assert {name: frame[name].unique().tolist() for name in LABELS} == {k: [v] for k, v in LABELS.items()}
    assert dict(zip(frame["layer"], frame["state"], strict=True)) == dict(
        enumerate(["embed", "block", "block", "final_norm"])
    )


def test_every_mean_is_the_mean_over_users_with_equal_weight(profile, energy):
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
        assert row["n_users"] == len(excess)
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
    valid = energy.is_valid
    excess = (energy.low - energy.null_low["swap"])[valid]
    resampled = resampled_means(excess, n_bootstrap=200, seed=3)
    compared = np.where(np.isnan(excess), np.nan, energy.low[valid])
    share_low, share_high = percentile_interval(resampled_means(compared, n_bootstrap=200, seed=3))
    excess_low, excess_high = percentile_interval(resampled)
    rho_low, rho_high = percentile_interval(resampled / resampled[:, :1])
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
    profile = DecayProfile.from_energy(with_excess(1.0, 0.5, 0.5, 0.2))
    assert profile.retention.value == pytest.approx(0.5)
    assert profile.retention.low == pytest.approx(0.5)
    assert profile.retention.high == pytest.approx(0.5)


def test_equal_seeds_give_equal_tables_and_other_seeds_other_intervals_only(energy, profile):
    again = DecayProfile.from_energy(energy, n_bootstrap=200, seed=3, labels=LABELS)
    pd.testing.assert_frame_equal(again.to_frame(), profile.to_frame(), check_exact=True)
    other = DecayProfile.from_energy(energy, n_bootstrap=200, seed=4, labels=LABELS)
    for column in ("share", "excess", "retention", "energy"):
        np.testing.assert_array_equal(other.table[column], profile.table[column])
    assert not np.allclose(other.table["excess_low"], profile.table["excess_low"])


@pytest.mark.parametrize("bands", ["rank:6", "pooled:3", "deciles", 2])
def test_the_low_band_does_not_depend_on_the_bands_on_display(energy, profile, bands):
    other = DecayProfile.from_energy(energy, bands=bands, n_bootstrap=200, seed=3, labels=LABELS)
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
    table = DecayProfile.from_energy(energy, bands="pooled:100", n_bootstrap=100).table
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
        assert row["n_targets"] == energy.lengths[sequence]
        excess = energy.low[sequence, layer] - energy.null_low["swap"][sequence, layer]
        np.testing.assert_equal(row["excess_swap"], excess)


# --- the verdict -------------------------------------------------------------------------------------------------

SIGNAL = Interval(0.02, 0.01, 0.03)


@pytest.mark.parametrize(
    ("embed", "retention", "label"),
    [
        ((0.02, 0.0, 0.04), (0.5, 0.4, 0.6), "no measurable collaborative signal"),
        ((0.02, -0.01, 0.05), (0.9, 0.85, 0.95), "no measurable collaborative signal"),
        ((-0.02, -0.03, -0.01), (2.0, 1.5, 2.5), "no measurable collaborative signal"),
        (SIGNAL, (0.5, 0.4, 0.6), "attenuated"),
        (SIGNAL, (0.9, 0.85, 0.95), "attenuated"),
        (SIGNAL, (-0.1, -0.4, 0.2), "attenuated"),
        (SIGNAL, (1.1, 1.05, 1.15), "amplified"),
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
    assert str(verdict) == f"inconclusive ({n_users} users; about {verdict.users_needed} needed)"


def test_without_excess_at_embed_the_verdict_is_no_signal_also_where_retention_is_undefined():
    nothing = Interval(0.0, 0.0, 0.0)
    assert judge(nothing, Interval(math.nan, math.nan, math.nan), 500).label == "no measurable collaborative signal"


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
        ((0, 1.0, 1.0, 1.0), "no measurable collaborative signal"),
    ],
)
def test_the_verdict_is_that_of_the_last_block_and_never_of_the_final_norm(factors, label):
    profile = DecayProfile.from_energy(with_excess(*factors, noise=0.02))
    assert profile.verdict.label == label
    assert profile.retention_layer == "block 2"
    last = profile.table.query("band == 'low' and layer_name == 'block 2'").iloc[0]
    assert profile.retention == Interval(last["retention"], last["retention_low"], last["retention_high"])
    first = profile.table.query("band == 'low' and layer_name == 'embed'").iloc[0]
    assert profile.embed_excess == Interval(first["excess"], first["excess_low"], first["excess_high"])


def test_the_verdict_rests_on_the_null_that_was_chosen(energy):
    for null in ("swap", "permutation", "cyclic"):
        profile = DecayProfile.from_energy(energy, null=null, n_bootstrap=100)
        row = profile.table.query("band == 'low' and layer_name == 'block 2' and null == @null").iloc[0]
        assert profile.retention.value == row["retention"]
        assert set(profile.table["null"]) == {"swap", "permutation", "cyclic"}, "all nulls have rows"


def test_without_a_null_there_is_a_curve_and_no_verdict(energy):
    bare = replace(energy, null_energy={}, null_low={})
    profile = DecayProfile.from_energy(bare, null=None, n_bootstrap=100)
    assert profile.verdict.label == "none"
    assert profile.retention is profile.embed_excess is None
    assert set(profile.table["null"]) == {"none"}
    assert profile.table["share"].notna().all()
    assert profile.table[["excess", "null_share", "retention"]].isna().all(axis=None)
    assert set(profile.table["n_users"]) == {energy.is_valid.sum()}


@pytest.mark.parametrize("missing", ["embed", "block"])
def test_without_embed_or_a_block_there_is_no_verdict(missing):
    energy = with_excess(1, 0.5, 0.5, 0.5)
    states = tuple("final_norm" if state == missing else state for state in energy.layer_states)
    profile = DecayProfile.from_energy(replace(energy, layer_states=states))
    assert profile.verdict.label == "none"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"null": "swop"}, r"null must be among the computed nulls \['cyclic', 'permutation', 'swap'\]; got 'swop'"),
        ({"bands": "thirds"}, r"bands must be .*got 'thirds'"),
        ({"n_bootstrap": 10}, r"n_bootstrap must be at least 100"),
    ],
)
def test_an_option_out_of_range_is_refused(energy, options, message):
    with pytest.raises(ConfigError, match=message):
        DecayProfile.from_energy(energy, **options)


# --- summary and files -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_controls(energy, profile) -> DecayProfile:
    raw = DecayProfile.from_energy(energy, null="cyclic", n_bootstrap=100, labels=LABELS, control="raw")
    bare = DecayProfile.from_energy(energy, null=None, n_bootstrap=100, labels=LABELS, control="path-graph")
    return replace(profile, controls={"raw": raw, "path-graph": bare}, caveats=("raw-disagrees",))


def test_the_summary_holds_the_keys_of_the_contract(with_controls, energy):
    summary = with_controls.summary()
    assert {
        "verdict", "retention", "embed_excess", "skipped", "n_users", "protocol", "caveats", "raw_verdict"
    } <= set(summary)  # fmt: skip
    assert summary["retention"] == {
        "value": with_controls.retention.value,
        "low": with_controls.retention.low,
        "high": with_controls.retention.high,
        "layer": "block 2",
    }
    assert set(summary["embed_excess"]) == {"value", "low", "high"}
    assert summary["verdict"] == str(with_controls.verdict)
    assert summary["raw_verdict"] == str(with_controls.controls["raw"].verdict)
    assert summary["n_users"] == energy.is_valid.sum()
    assert summary["skipped"]["local graph without an edge"] == 1
    assert summary["caveats"] == ["raw-disagrees"]
    assert {"tau": 5.0, "drop_first": 1, "center": True, "n_bootstrap": 200, "null": "swap"}.items() <= summary[
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
        DecayProfile.from_energy(energy, n_bootstrap=100).save(tmp_path / name)
    for file in ("bands.csv", "summary.json", "per_user.csv.gz"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_the_summary_is_strict_json_also_with_undefined_numbers(tmp_path):
    nothing = DecayProfile.from_energy(with_excess(0, 0, 0, 0))
    nothing.save(tmp_path)

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert summary["retention"]["value"] is None
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
