"""Preserved, or smoothing by construction: made-up worlds in which the truth is known, and the rules."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from spectral_probe.comparison import words as rules
from spectral_probe.comparison.comparison import check_comparable, compare, name_of, with_distinct_names
from spectral_probe.comparison.paired import (
    EXCESS,
    NULL_SHARE,
    SHARE,
    SITES,
    WHOLE_QUANTITIES,
    Change,
    Changes,
    paired_changes,
)
from spectral_probe.errors import ConfigError
from spectral_probe.graph.item_graph import ItemGraph
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.log import Interactions
from spectral_probe.interactions.sequences import probe_sequences
from spectral_probe.profiles.bootstrap import Interval, percentile_interval, resampled_means
from spectral_probe.profiles.profile import DecayProfile
from spectral_probe.spectrum.energy import spectral_energy
from tests.spectral_probe.worlds import grams_of, made_up

LAST, EMBED, GAIN = "last block", "embed", "last block − embed"
SWAP, PERMUTATION = EXCESS["swap"], EXCESS["permutation"]


class Tastes:
    """Users whose histories turn from taste to taste, so that their graphs lean on time as real ones do.

    States are noise, with or without the vector of the item's taste; a filter in time may lie over all of them.
    """

    def __init__(self, seed: int, n_users: int = 260, n_items: int = 60, n_tastes: int = 4) -> None:
        self.rng = np.random.default_rng(seed)
        self.taste = self.rng.integers(0, n_tastes, n_items)
        self.vectors = self.rng.normal(size=(n_tastes, 8))
        histories = []
        for _ in range(n_users):
            first, second = self.rng.choice(n_tastes, 2, replace=False)
            length = int(self.rng.integers(10, 17))
            turn = int(self.rng.integers(3, length - 3))
            tastes = [first] * turn + [second] * (length - turn)
            histories.append([self.rng.choice(np.flatnonzero(self.taste == t)) for t in tastes])
        self.data = Dataset.from_interactions(Interactions.from_sequences(histories, n_items=n_items))
        self.probe = probe_sequences(self.data)
        graph = ItemGraph.from_interactions(self.data.train.user_items)
        self.bases = graph.local_bases(self.probe.targets, self.probe.lengths, users=self.probe.users)
        self.noise = self.rng.normal(size=(2, *self.probe.targets.shape, 8))

    def states(self, strength: float, layer: int, smoothing: np.ndarray | None = None) -> np.ndarray:
        """Return noise with ``strength`` times the taste of each item, after a filter in time, (n, T, d)."""
        H = self.noise[layer] + strength * self.vectors[self.taste[self.probe.targets]]
        return H if smoothing is None else np.einsum("st,ntd->nsd", smoothing, H)

    def profile(self, name: str, embed: np.ndarray, block: np.ndarray) -> DecayProfile:
        states = np.stack([embed, block], axis=1)
        grams = grams_of(states, self.probe.lengths)
        energy = spectral_energy(replace(grams, layer_states=("embed", "block"), layer_names=NAMES), self.bases)
        return DecayProfile.from_energy(
            energy, component="whole", n_bootstrap=300, labels={"model": name, "dataset": "tastes"}
        )


NAMES = ("embed", "block 1")


def moving_average(T: int, reach: int) -> np.ndarray:
    """Return a causal filter: each row is the mean of itself and the rows up to ``reach`` before it."""
    M = np.tril(np.ones((T, T))) - np.tril(np.ones((T, T)), -reach - 1)
    return M / M.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module", params=[1, 2, 3])
def tastes(request) -> Tastes:
    return Tastes(request.param)


@pytest.fixture(scope="module")
def base(tastes: Tastes) -> DecayProfile:
    return tastes.profile("base", tastes.states(1.0, 0), tastes.states(0.0, 1))


@pytest.fixture(scope="module")
def kept(tastes: Tastes) -> DecayProfile:
    return tastes.profile("kept", tastes.states(1.0, 0), tastes.states(1.0, 1))


@pytest.fixture(scope="module")
def M(tastes: Tastes) -> np.ndarray:
    return moving_average(tastes.probe.targets.shape[1], 3)


# --- worlds in which the truth is known ---------------------------------------------------------------------------


def test_smoothing_in_time_alone_is_called_smoothing(tastes, base, M) -> None:
    smooth = tastes.profile("smooth", tastes.states(1.0, 0), tastes.states(0.0, 1, M))
    (comparison,) = compare([base, smooth])
    changes = comparison.changes.at
    assert comparison.label == rules.SMOOTHING
    # The share and the null that smoothing fools rise as they would for collaboration; swap does not.
    assert changes[SHARE, LAST].is_up
    assert changes[PERMUTATION, LAST].is_up
    assert not changes[SWAP, LAST].is_up
    assert changes[NULL_SHARE, LAST].is_up
    assert comparison.words.startswith("smooth against base, whole excess over swap: smoothing by construction.")
    assert "the signature of smoothing in time" in comparison.words
    highest = changes[SWAP, LAST].difference.high
    assert (
        f"no more than {highest:.4f} of it is excess over the null"
        if highest > 0
        else "none of it is excess over the null"
    ) in comparison.words


def test_structure_put_back_is_called_restored_and_taken_away_a_smaller_share(base, kept) -> None:
    (comparison,) = compare([base, kept])
    assert comparison.label == rules.RESTORED
    assert "beyond smoothing" in comparison.words
    assert "signature of smoothing" not in comparison.words
    assert "the layers add to the difference" in comparison.words
    assert "Relative to its own inputs kept keeps more" in comparison.words
    (back,) = compare([kept, base])
    assert back.label == rules.LOSS
    assert "the layers take from the difference" in back.words


def test_structure_and_smoothing_together_are_told_apart(tastes, base, kept, M) -> None:
    both = tastes.profile("both", tastes.states(1.0, 0), tastes.states(1.0, 1, M))
    assert compare([base, both])[0].label == rules.RESTORED
    # Against the model that had the structure already, the filter raises the share and costs collaboration.
    (comparison,) = compare([kept, both])
    assert comparison.label == rules.SMOOTHING_AND_LOSS
    assert "signature of smoothing in time" in comparison.words


def test_what_the_inputs_bring_is_not_credited_to_the_layers(tastes) -> None:
    weak = tastes.profile("weak", tastes.states(0.5, 0), tastes.states(0.5, 1))
    strong = tastes.profile("strong", tastes.states(1.0, 0), tastes.states(1.0, 0))
    (comparison,) = compare([weak, strong])
    assert comparison.label == rules.RESTORED
    assert comparison.changes.at[SWAP, EMBED].is_up
    assert not comparison.changes.at[SWAP, GAIN].is_up
    assert "The inputs carry more of it" in comparison.words
    assert "the layers add" not in comparison.words
    retention = comparison.changes.retention
    assert retention is not None
    assert not retention.is_up


def test_a_model_against_itself_changes_nothing(base) -> None:
    (comparison,) = compare([base, base])
    assert (comparison.base, comparison.other) == ("base (1)", "base (2)")
    assert comparison.label == rules.NO_CHANGE
    assert all(change.difference == Interval(0.0, 0.0, 0.0) for change in comparison.changes.at.values())


def test_without_signal_in_the_inputs_retention_is_not_compared(tastes, base) -> None:
    deaf = tastes.profile("deaf", tastes.states(0.0, 0), tastes.states(0.0, 1))
    (comparison,) = compare([base, deaf])
    assert comparison.changes.retention is None
    assert "Retention is not compared: the inputs of deaf have no measurable excess." in comparison.words


# --- the numbers --------------------------------------------------------------------------------------------------


def test_changes_are_means_over_the_users_on_both_curves(base, kept) -> None:
    fewer = kept.per_user[kept.per_user["sequence"] % 3 > 0].copy()
    missing = fewer["sequence"] == fewer["sequence"].iloc[0]
    fewer.loc[missing, SWAP] = np.nan  # a user without the swap null is in no mean at all
    changes = paired_changes(base, replace(kept, per_user=fewer))
    users = sorted(set(fewer.loc[~missing, "sequence"]) & set(base.per_user["sequence"]))
    assert changes.n_users == len(users) < len(base.per_user) / 2

    def mean(profile: DecayProfile, column: str, layer: str) -> np.ndarray:
        rows = profile.per_user[profile.per_user["layer_name"] == layer].set_index("sequence").loc[users]
        return (rows["share"] - rows[SWAP] if column == NULL_SHARE else rows[column]).to_numpy()

    for quantity in WHOLE_QUANTITIES:
        first, last = (mean(kept, quantity, n) - mean(base, quantity, n) for n in NAMES)
        for site, values in zip(SITES, (first, last, last - first), strict=True):
            change = changes.at[quantity, site]
            low, high = percentile_interval(resampled_means(values, n_bootstrap=300, seed=0))
            expected = (values.mean(), float(low), float(high))
            assert (change.difference.value, change.difference.low, change.difference.high) == pytest.approx(expected)
            assert change.other.value - change.base.value == pytest.approx(values.mean())
    retention = changes.retention
    assert retention is not None
    ratios = [mean(p, SWAP, "block 1").mean() / mean(p, SWAP, "embed").mean() for p in (base, kept)]
    assert (retention.base.value, retention.other.value) == pytest.approx(tuple(ratios))
    assert retention.difference.value == pytest.approx(ratios[1] - ratios[0])


def test_the_rise_of_the_share_is_that_of_the_null_and_that_of_the_excess(base, kept) -> None:
    at = paired_changes(base, kept).at
    for site in SITES:
        parts = at[NULL_SHARE, site].difference.value + at[SWAP, site].difference.value
        assert at[SHARE, site].difference.value == pytest.approx(parts)


def test_a_saved_profile_compares_as_the_one_in_memory(base, kept, tmp_path) -> None:
    named = [
        replace(p, per_user=p.per_user.assign(user_id=p.per_user["sequence"].map(lambda u: f"{u:03d}" if u else "NA")))
        for p in (base, kept)
    ]
    for folder, profile in zip("ab", named, strict=True):
        profile.save(tmp_path / folder)
    loaded = [DecayProfile.load(tmp_path / folder) for folder in "ab"]
    assert compare(loaded)[0].words == compare(named)[0].words
    assert compare([named[0], loaded[1]])[0].changes.n_users == 260


def test_rounding_is_no_change() -> None:
    def change(low: float, high: float) -> Change:
        return Change(SWAP, LAST, *[Interval(0.1, 0.0, 0.2)] * 2, Interval((low + high) / 2, low, high))

    assert not change(1e-9, 2e-9).is_up
    assert not change(-2e-9, -1e-9).is_down
    assert change(1e-4, 2e-4).is_up
    assert change(-2e-4, -1e-4).is_down


def with_taste(profile: DecayProfile, factor: float, seed: int) -> DecayProfile:
    """Return a profile whose users have components: a taste at embed, and a part of it at the block."""
    rng = np.random.default_rng(seed)
    table = profile.per_user.copy()
    embed = np.random.default_rng(0).normal(0.05, 0.02, 260)  # the same inputs in every model
    kept = embed * (factor + 0.1 * rng.normal(size=260))
    at = table["sequence"].to_numpy()
    table["taste"] = np.where(table["layer_name"] == "embed", embed[at], kept[at])
    table["popularity"] = table["taste"] * 2
    table["weight"] = np.random.default_rng(9).uniform(0.2, 3.0, 260)[at]
    foreseen = table.assign(nodes="foreseen", taste=99.0)  # beside what is carried; never mixed with it
    return replace(profile, per_user=pd.concat([table, foreseen], ignore_index=True))


def test_with_components_the_label_rests_on_the_taste_weighted_and_paired(base, kept) -> None:
    """The direct way: draw users, take the weighted retention of both, and the percentiles of the difference."""
    first, second = with_taste(base, 0.3, 1), with_taste(kept, 0.6, 2)
    (comparison,) = compare([first, second])
    changes = comparison.changes
    assert changes.measure == "taste"
    assert comparison.words.startswith("kept against base, taste carried: ")
    assert "keeps more of popularity" in comparison.words
    tables = [
        p.per_user.query("nodes != 'foreseen' or taste != 99.0").pivot(
            index="sequence", columns="layer_name", values="taste"
        )
        for p in (first, second)
    ]
    n = changes.n_users
    users = sorted(set(tables[0].index) & set(base.per_user.dropna()["sequence"]))
    assert n == len(users)
    # Rows are in the order of the joined table.
    order = first.per_user.drop_duplicates("sequence")["sequence"]
    order = [u for u in order if u in set(users)]
    w = first.per_user.drop_duplicates("sequence").set_index("sequence")["weight"].loc[order].to_numpy()
    x = [t.loc[order, list(NAMES)].to_numpy() for t in tables]
    counts = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=300)
    differences = []
    for m in counts:
        ratios = []
        for values in x:
            embed, last = (sum(mu * wu * v for mu, wu, v in zip(m, w, values[:, k], strict=True)) for k in (0, 1))
            ratios.append(last / embed)
        differences.append(ratios[1] - ratios[0])
    retention = changes.retention
    assert retention is not None
    low, high = np.percentile(differences, [2.5, 97.5])
    assert (retention.difference.low, retention.difference.high) == pytest.approx((low, high))
    means = [np.average(values[:, 1], weights=w) / np.average(values[:, 0], weights=w) for values in x]
    assert retention.difference.value == pytest.approx(means[1] - means[0])
    content = json.loads(json.dumps(comparison.to_dict()))
    assert content["measure"] == "taste"
    assert content["retentions"]["taste"]["difference"]["value"] == pytest.approx(means[1] - means[0])


@pytest.mark.parametrize(("name", "words"), [("dtype", "dtype"), ("number_format", "number format of the weights")])
def test_numbers_of_another_kind_are_named(base, kept, name, words) -> None:
    first, second = (
        replace(p, protocol={**p.protocol, name: value}) for p, value in ((base, "float32"), (kept, "bfloat16"))
    )
    assert compare([first, second])[0].words.endswith(f"The {words} differs: bfloat16 against float32.")
    assert "differs" not in compare([base, kept])[0].words


@pytest.mark.parametrize("option", [{"weights": "graph"}, {"treatment": "rows"}, {"n_pseudo": 8}])
def test_another_measure_is_not_compared(base, kept, option) -> None:
    (name,) = option
    with pytest.raises(ConfigError, match=name):
        compare([base, replace(kept, protocol={**kept.protocol, **option})])


# --- the rules ----------------------------------------------------------------------------------------------------

UP, FLAT, DOWN = (0.01, 0.03), (-0.01, 0.02), (-0.03, -0.01)
ABOVE, AT_ZERO = (0.01, 0.05), (-0.02, 0.02)


def constructed(share, null, swap, base=ABOVE, other=ABOVE, n_users=200) -> Changes:
    def interval(ends: tuple[float, float]) -> Interval:
        return Interval(sum(ends) / 2, *ends)

    at = {(q, p): Change(q, p, *map(interval, (base, other, FLAT))) for q in WHOLE_QUANTITIES for p in SITES}
    for quantity, ends in ((SHARE, share), (NULL_SHARE, null), (SWAP, swap)):
        at[quantity, LAST] = replace(at[quantity, LAST], difference=interval(ends))
    return Changes(n_users, at, {})


@pytest.mark.parametrize(
    ("changes", "label"),
    [
        (constructed(UP, UP, UP), rules.RESTORED),
        (constructed(UP, FLAT, UP), rules.RESTORED),
        (constructed(UP, UP, UP, base=AT_ZERO), rules.RESTORED),
        (constructed(UP, UP, UP, other=AT_ZERO), rules.INCONCLUSIVE),
        (constructed(UP, UP, FLAT), rules.SMOOTHING),
        (constructed(UP, FLAT, FLAT), rules.INCONCLUSIVE),
        (constructed(UP, UP, DOWN), rules.SMOOTHING_AND_LOSS),
        (constructed(UP, UP, DOWN, base=AT_ZERO), rules.SMOOTHING),
        (constructed(FLAT, FLAT, UP), rules.WITHOUT_SHARE),
        (constructed(DOWN, DOWN, UP), rules.WITHOUT_SHARE),
        (constructed(FLAT, FLAT, UP, other=AT_ZERO), rules.INCONCLUSIVE),
        (constructed(FLAT, FLAT, DOWN), rules.LOSS),
        (constructed(DOWN, FLAT, DOWN), rules.LOSS),
        (constructed(FLAT, FLAT, DOWN, base=AT_ZERO), rules.INCONCLUSIVE),
        (constructed(DOWN, DOWN, FLAT), rules.LOWER),
        (constructed(FLAT, FLAT, FLAT), rules.NO_CHANGE),
        (constructed(UP, UP, UP, n_users=19), rules.INCONCLUSIVE),
        (constructed(UP, UP, UP, n_users=20), rules.RESTORED),
        (Changes(0, {}, {}), rules.INCONCLUSIVE),
    ],
)
def test_the_label_is_what_the_intervals_allow_and_the_words_do_not_contradict_it(changes, label) -> None:
    assert rules.label_of(changes) == label
    words = " ".join(rules.sentences(label, changes, ("base", "other"), "the last block"))
    assert words.startswith(f"other against base, whole excess over swap: {label}.")
    if not changes.at or changes.n_users < 20:
        assert "at least 20" in words
        assert "rises" not in words
        return
    for quantity, phrase in ((SHARE, "low-pass share"), (SWAP, "whole excess over swap")):
        change = changes.at[quantity, LAST]
        verb = "rises" if change.is_up else "falls" if change.is_down else "does not measurably change"
        assert f"{phrase} {verb}" in words
    assert "collaborati" not in words
    assert ("is excess over the null" in words) == (label == rules.SMOOTHING)


def test_of_a_curve_without_verdict_nothing_is_said(base, kept) -> None:
    leaky = replace(kept, null=None)
    (comparison,) = compare([base, leaky])
    assert comparison.label == rules.NONE
    assert comparison.words == "kept against base: not compared, because kept has no verdict."
    assert comparison.changes.at == {}
    assert json.loads(json.dumps(comparison.to_dict()))["retentions"] == {}


def test_too_few_common_users_are_inconclusive(base, kept) -> None:
    few = replace(kept, per_user=kept.per_user[kept.per_user["sequence"] < 15])
    (comparison,) = compare([base, few])
    assert comparison.label == rules.INCONCLUSIVE
    assert "15 users are on both curves" in comparison.words


def test_a_curve_without_the_swap_null_is_inconclusive(base) -> None:
    energy = made_up(np.full((260, 2), 0.4), np.full((260, 2), 0.3))
    only_swap = DecayProfile.from_energy(
        energy, component="whole", n_bootstrap=100, labels={"model": "odd", "dataset": "tastes"}
    )
    assert paired_changes(base, only_swap).n_users == 0


# --- what may be compared -----------------------------------------------------------------------------------------


def with_options(profile: DecayProfile, **options) -> DecayProfile:
    return replace(profile, protocol={"dataset_fingerprint": "a", "options": {"users": None, "seed": 0, **options}})


@pytest.mark.parametrize(
    "option", [{"tau": 2.0}, {"own_user": "keep"}, {"sequence": "full"}, {"max_length": 20}, {"min_targets": 12}]
)
def test_curves_measured_otherwise_are_refused_by_the_name_of_the_option(base, kept, option) -> None:
    (name,) = option
    with pytest.raises(ConfigError, match=f"{name} is None for base and .* for kept.*--{name.replace('_', '-')}"):
        compare([with_options(base), with_options(kept, **option)])


def test_other_models_inputs_bands_and_seeds_may_be_compared_but_not_other_draws_of_users(base, kept) -> None:
    check_comparable([with_options(base), with_options(kept, inputs="text", bands=8, batch_size=4, seed=3)])
    check_comparable([with_options(base, users=50), with_options(kept, users=50)])
    with pytest.raises(ConfigError, match="seed is 0 for base and 3 for kept"):
        check_comparable([with_options(base, users=50), with_options(kept, users=50, seed=3)])
    with pytest.raises(ConfigError, match="users is None"):
        check_comparable([with_options(base), with_options(kept, users=50)])
    with pytest.raises(ConfigError, match=r"2: .*Compare runs of one data set"):
        check_comparable([base, replace(kept, protocol={"dataset_fingerprint": "b"})])


def test_runs_of_one_name_are_told_apart(base, kept) -> None:
    raw = replace(base, controls={"raw": base})
    named = with_distinct_names([raw, kept, raw])
    assert [name_of(profile) for profile in named] == ["base (1)", "kept", "base (2)"]
    assert set(named[0].to_frame()["model"]) == {"base (1)"}
    assert named[0].table["model"].dtype == base.table["model"].dtype
    assert name_of(raw) == "base"


def test_the_words_say_who_was_probed_prefix_by_prefix(base, kept) -> None:
    by_prefix = replace(kept, protocol={**kept.protocol, "prefix_by_prefix": True})
    assert compare([base, by_prefix])[0].words.endswith("so that no row has seen its answer: kept.")
    assert "prefix" not in compare([base, kept])[0].words


def test_a_dtype_and_a_number_format_that_differ_are_named(base, kept) -> None:
    def with_numbers(profile: DecayProfile, **values) -> DecayProfile:
        return replace(profile, protocol={**profile.protocol, **values})

    single, half = with_numbers(base, dtype="float32"), with_numbers(kept, dtype="bfloat16", number_format="Q8_0")
    (comparison,) = compare([single, half])
    assert "The dtype differs: bfloat16 against float32." in comparison.words
    assert "The number format of the weights differs: Q8_0 against not rounded." in comparison.words
    (comparison,) = compare([with_numbers(single, number_format="F16"), half])
    assert "The number format of the weights differs: Q8_0 against F16." in comparison.words
    (comparison,) = compare([single, with_numbers(kept, dtype="float32")])
    assert "differs:" not in comparison.words
