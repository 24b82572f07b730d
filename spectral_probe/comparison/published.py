"""The paired change of the published quantity, and what the nulls say of the conclusion that the paper draws from it.

The published quantity is the share of raw energy in the lowest tenth of the frequencies, without a null: the paper's
Fig. 4 compares it between a base and FreLLM4Rec. It is measured by ``analyze --preset paper``, user by user.
Every statement follows from a 95 % interval, or from the label of :mod:`spectral_probe.comparison.words`.

Source: FreLLM4Rec Fig. 4. Deviation: the paper draws two curves; the paired difference and its interval are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from spectral_probe.comparison.paired import EXCESS, NULL_SHARE, SITES, Change, Changes, Site, change_between
from spectral_probe.comparison.words import (
    LOSS,
    MEASURE_IN_WORDS,
    RESTORED,
    SMOOTHING_AND_LOSS,
    WITHOUT_SHARE,
    moves,
    signed,
)
from spectral_probe.profiles.bootstrap import Interval, WeightedMeans
from spectral_probe.profiles.profile import DecayProfile
from spectral_probe.profiles.tables import PUBLISHED_SHARE
from spectral_probe.profiles.verdict import MIN_USERS

#: The control whose curve is the published one.
PAPER = "paper"
#: The leads of the sentences of :func:`published_words`.
AS_PUBLISHED, BY_NULLS, LEFT = "As the paper's Fig. 4 would have it.", "What the nulls say.", "What is left."
NOT_COMPARED = "The published share is not compared."
#: (whether the published quantity rises, :func:`gains` of the label) → how the two agree.
_TOGETHER = {
    (True, 1): "The nulls bear this out",
    (True, 0): "The nulls do not bear this out",
    (True, -1): "The nulls say the opposite",
    (False, 1): "The nulls show what the published quantity does not",
    (False, 0): "The nulls show no gain either",
    (False, -1): "The nulls show a loss",
}


@dataclass(frozen=True)
class PublishedChanges:
    """The change of the published share from one profile to another.

    Attributes
    ----------
    n_users : int
        Users on both published curves; 0 if it is not compared.
    at : {site: Change}
        ``last block`` is the last layer of the published curve, which for a language model is after the final norm.
        Empty if it is not compared.
    missing : str
        Why it is not compared, and how to get it; an empty string if it is.
    """

    n_users: int
    at: dict[Site, Change]
    missing: str = ""


def published_changes(base: DecayProfile, other: DecayProfile, names: tuple[str, str]) -> PublishedChanges:
    """Return the change of the published share from ``base`` to ``other`` at every site.

    Paired percentile bootstrap over the users on both published curves, every user with equal weight, with the number
    of resamples and the seed of ``base``. A profile without the share of each user is no error: ``missing`` names it.
    """
    if missing := _missing((base, other), names):
        return PublishedChanges(0, {}, missing)
    tables = [profile.controls[PAPER].per_user for profile in (base, other)]
    key = "user_id" if all("user_id" in table for table in tables) else "sequence"
    both = pd.concat([_at_sites(table, key) for table in tables], axis=1, join="inner", keys=["base", "other"]).dropna()
    if both.empty:
        return PublishedChanges(0, {}, f"No user is on the published curves of both {names[0]} and {names[1]}.")
    n_bootstrap = int(base.protocol.get("n_bootstrap", 1000))
    seed = int(base.protocol.get("bootstrap_seed", 0))
    means = [
        WeightedMeans.of(both[name].to_numpy(dtype=np.float64), np.ones(len(both)), n_bootstrap=n_bootstrap, seed=seed)
        for name in ("base", "other")
    ]
    at = {site: change_between(PUBLISHED_SHARE, site, means[0][s], means[1][s]) for s, site in enumerate(SITES)}
    return PublishedChanges(len(both), at)


def gains(label: str) -> int:
    """Return 1 for the labels that say more of the measure, −1 for those that say less, 0 for the others."""
    return 1 if label in (RESTORED, WITHOUT_SHARE) else -1 if label in (LOSS, SMOOTHING_AND_LOSS) else 0


def published_words(
    label: str, changes: Changes, published: PublishedChanges, names: tuple[str, str]
) -> dict[str, str]:
    """Return the sentences about the published quantity, by their leads.

    Parameters
    ----------
    label : str
        From :func:`spectral_probe.comparison.words.label_of`.
    changes : Changes
        Of the corrected quantities.
    published : PublishedChanges
    names : (base, other)
    """
    if not published.at:
        return {NOT_COMPARED: published.missing}
    if published.n_users < MIN_USERS:
        few = f"{published.n_users} users are on both published curves; it takes at least {MIN_USERS}."
        return {NOT_COMPARED: few}
    words = {AS_PUBLISHED: _as_published(names, published)}
    if changes.n_users < MIN_USERS:
        return {**words, BY_NULLS: "No verdict may be drawn."}
    return {**words, BY_NULLS: _by_nulls(label, changes, published), LEFT: _left(names, changes)}


def _missing(profiles: Sequence[DecayProfile], names: Sequence[str]) -> str:
    """Return which profiles lack the share of each user, and how to get it; an empty string if none does."""
    unmeasured = [name for name, p in zip(names, profiles, strict=True) if PAPER not in p.controls]
    unsaved = [
        name
        for name, p in zip(names, profiles, strict=True)
        if PAPER in p.controls and PUBLISHED_SHARE not in p.controls[PAPER].per_user
    ]
    parts = []
    if unmeasured:
        parts.append(
            f"It is not measured for {' and '.join(unmeasured)}. To get it, analyse again from the model with --preset "
            "paper."
        )
    if unsaved:
        parts.append(
            f"It is not saved by user for {' and '.join(unsaved)}, analysed by an earlier version. To get it, "
            "analyse the saved Grams again: spectral-probe analyze RUN."
        )
    return " ".join(parts)


def _at_sites(table: pd.DataFrame, key: str) -> pd.DataFrame:
    """Return the share of each user at every site, one row per user in the order of the table."""
    layers = table["layer_name"].drop_duplicates()
    of_layer = {
        name: rows.set_index(rows[key].astype(str))[PUBLISHED_SHARE] for name, rows in table.groupby("layer_name")
    }
    first, last = of_layer[layers.iloc[0]], of_layer[layers.iloc[-1]]
    return pd.DataFrame(dict(zip(SITES, (first, last, last - first), strict=True)), index=first.index)


def _as_published(names: tuple[str, str], published: PublishedChanges) -> str:
    base, other = names
    last, gain = published.at["last block"], published.at["last block − embed"]
    along = gain.base
    through = f"from input to last layer ({_span(along)})"
    if along.low > 0:
        first = (
            f"The published low band of {base} rises {through}: the loss that the paper shows of its base is not there."
        )
    elif along.high < 0:
        first = f"The published low band of {base} falls {through}, as that of the paper's base does."
    else:
        first = (
            f"The published low band of {base} does not measurably change {through}: no loss as the paper's is seen."
        )
    ends = f"({last.base.value:.4f} against {last.other.value:.4f}; change {signed(last.difference)})"
    if last.is_up:
        second = (
            f"From {base} to {other} it rises at the last layer {ends}: read as the paper reads it, the signal is kept."
        )
    elif last.is_down:
        second = f"From {base} to {other} it falls at the last layer {ends}: its own quantity speaks against the paper."
    else:
        second = (
            f"From {base} to {other} no change is measured at the last layer {ends}: the paper's claim is not shown."
        )
    return f"{first} {second}"


def _by_nulls(label: str, changes: Changes, published: PublishedChanges) -> str:
    swap, null = changes.at[EXCESS["swap"], "last block"], changes.at[NULL_SHARE, "last block"]
    parts = [
        f"the low-pass share of other users' states on the same graph {moves(null)}",
        f"the excess of a user's own states over it {moves(swap)}",
    ]
    if changes.measure != EXCESS["swap"]:  # the label rests on a part of the excess
        parts.append(f"{MEASURE_IN_WORDS[changes.measure]} {moves(changes.at[changes.measure, 'last block'])}")
    together = _TOGETHER[published.at["last block"].is_up, gains(label)]
    return f"{together}: {', '.join(parts[:-1])}, and {parts[-1]}."


def _left(names: tuple[str, str], changes: Changes) -> str:
    is_whole = changes.measure == EXCESS["swap"]
    measure = changes.at[changes.measure, "last block"]
    parts = []
    for name, value in zip(names, (measure.base, measure.other), strict=True):
        above = "is above 0" if value.low > 0 else "is below 0" if value.high < 0 else "is not measurably above 0"
        parts.append(f"that of {name} {above} ({_span(value)})")
    what = "excess over swap" if is_whole else MEASURE_IN_WORDS[changes.measure]
    sentence = f"The {what} at the last block: {', '.join(parts)}."
    retention = changes.retention
    if retention is None:
        return f"{sentence} Retention is not compared."
    parts = []
    for name, value in zip(names, (retention.base, retention.other), strict=True):
        kind = "a loss" if value.high < 1 else "a gain" if value.low > 1 else "neither loss nor gain shown"
        parts.append(f"{name} keeps {_span(value, 2)} ({kind})")
    return f"{sentence} Of the {'excess' if is_whole else changes.measure} in its own inputs, {', '.join(parts)}."


def _span(estimate: Interval, digits: int = 4) -> str:
    return f"{estimate.value:.{digits}f} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"
