"""Paired differences between two profiles over the users on both curves, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from spectral_probe.profiles.bootstrap import ROUNDING, Interval, WeightedMeans
from spectral_probe.profiles.profile import DecayProfile
from spectral_probe.spectrum.energy import NULLS
from spectral_probe.types import FloatArray

Site = Literal["embed", "last block", "last block − embed"]
#: Where a change is measured: at the input, at the last block, and the second minus the first.
SITES: tuple[Site, ...] = ("embed", "last block", "last block − embed")
#: Differences up to this size are float32 rounding of the Grams, as between one pass and one pass per prefix.
RESOLUTION = 1e-6
SHARE, NULL_SHARE = "share", "null_share_swap"
EXCESS = {null: f"excess_{null}" for null in NULLS}
#: Quantities of every profile, and of profiles with components.
WHOLE_QUANTITIES = (SHARE, NULL_SHARE, *EXCESS.values())
COMPONENT_QUANTITIES = ("taste", "popularity")


@dataclass(frozen=True)
class Change:
    """One quantity at one site: its means over users in both profiles, and other − base, each with its interval."""

    quantity: str
    site: Site
    base: Interval
    other: Interval
    difference: Interval

    @property
    def is_up(self) -> bool:
        """Whether the interval of the difference lies above 0, by more than rounding."""
        return self.difference.low > RESOLUTION

    @property
    def is_down(self) -> bool:
        """Whether the interval of the difference lies below 0, by more than rounding."""
        return self.difference.high < -RESOLUTION


@dataclass(frozen=True)
class Changes:
    """All changes from one profile to another.

    Attributes
    ----------
    n_users : int
        Users on both curves, with every quantity; all intervals are over these users.
    at : {(quantity, site): Change}
        At ``last block − embed`` the difference is the difference in differences: what the layers add, without what the
        inputs contribute.
    retentions : {quantity: Change}
        A quantity at the last block divided by that at ``embed``, for each profile; absent where one of the two has no
        measurable value at ``embed``.
    measure : str
        What the label rests on: ``taste`` where both profiles have components, else the whole excess over swap.
    """

    n_users: int
    at: dict[tuple[str, Site], Change]
    retentions: dict[str, Change]
    measure: str = EXCESS["swap"]

    @property
    def retention(self) -> Change | None:
        """Retention of the measure, if it can be compared."""
        return self.retentions.get(self.measure)

    def every(self) -> list[Change]:
        """Return all changes; retentions come last."""
        return [*self.at.values(), *self.retentions.values()]

    def in_short(self) -> list[Change]:
        """Return the changes that the sentences use: all at the last block, and the measure at every site."""
        chosen = [change for (_, site), change in self.at.items() if site == "last block"]
        chosen += [self.at[self.measure, site] for site in SITES if site != "last block" and self.at]
        return [*chosen, *self.retentions.values()]

    def to_frame(self) -> pd.DataFrame:
        """Return one row per quantity and site; the column ``place`` holds the site."""
        return change_table(self.every(), self.n_users)


def change_table(changes: Iterable[Change], n_users: int) -> pd.DataFrame:
    """Return one row per change, over so many users; the column ``place`` holds the site."""
    rows = []
    for change in changes:
        row: dict[str, Any] = {"quantity": change.quantity, "place": change.site, "n_users": n_users}
        for name in ("base", "other", "difference"):
            interval = asdict(getattr(change, name))
            row |= {name: interval["value"], f"{name}_low": interval["low"], f"{name}_high": interval["high"]}
        rows.append(row)
    return pd.DataFrame(rows)


def paired_changes(base: DecayProfile, other: DecayProfile) -> Changes:
    """Return the changes from ``base`` to ``other`` at every site.

    Paired percentile bootstrap over the users on both curves, with the settings of ``base``; nulls are held fixed. The
    last blocks may have different names. If no user is on both curves, or a null is missing, ``n_users`` is 0 and
    there is no change.
    """
    quantities = WHOLE_QUANTITIES
    if all(set(COMPONENT_QUANTITIES) <= set(profile.per_user.columns) for profile in (base, other)):
        quantities = (*COMPONENT_QUANTITIES, *WHOLE_QUANTITIES)
    measure = "taste" if "taste" in quantities else EXCESS["swap"]
    values, weights = _aligned(base, other, quantities)
    if not len(values):
        return Changes(0, {}, {}, measure)
    n_bootstrap = int(base.protocol.get("n_bootstrap", 1000))
    seed = int(base.protocol.get("bootstrap_seed", 0))
    # Each profile on its own: a product with both would round equal columns differently.
    means = [
        WeightedMeans.of(np.ascontiguousarray(values[:, m]), weights, n_bootstrap=n_bootstrap, seed=seed)
        for m in (0, 1)
    ]
    at: dict[tuple[str, Site], Change] = {}
    for s, site in enumerate(SITES):
        for q, quantity in enumerate(quantities):
            at[quantity, site] = change_between(quantity, site, means[0][s, q], means[1][s, q])
    retentions = {}
    for quantity in (*COMPONENT_QUANTITIES, EXCESS["swap"]):
        if quantity in quantities and all(getattr(at[quantity, "embed"], m).low > ROUNDING for m in ("base", "other")):
            q = quantities.index(quantity)
            ratios = [means[m][1, q].ratio_to(means[m][0, q]) for m in (0, 1)]
            retentions[quantity] = change_between(f"retention_{quantity}", "last block", *ratios)
    return Changes(len(values), at, retentions, measure)


def change_between(quantity: str, site: Site, base: WeightedMeans, other: WeightedMeans) -> Change:
    """Return the change between two paired means, resample by resample."""
    difference = WeightedMeans(other.mean - base.mean, other.resampled - base.resampled)
    return Change(quantity, site, base.to_interval(), other.to_interval(), difference.to_interval())


def _aligned(base: DecayProfile, other: DecayProfile, quantities: tuple[str, ...]) -> tuple[FloatArray, FloatArray]:
    """Return values (n_users, 2 profiles, n_sites, n_quantities) and weights (n_users,) of the users on both curves.

    A user's weight is the mean of their weights in the two profiles.
    """
    shape = (2, len(SITES), len(quantities))
    tables = [_per_user(profile, quantities) for profile in (base, other)]
    if any(table is None for table in tables):
        return np.empty((0, *shape)), np.empty(0)
    both = pd.concat(tables, axis=1, join="inner", keys=["base", "other"]).dropna()
    weights = both.pop(("base", "weight", "")) + both.pop(("other", "weight", ""))
    return np.asarray(both, dtype=np.float64).reshape(len(both), *shape), np.asarray(weights, dtype=np.float64) / 2


def _per_user(profile: DecayProfile, quantities: tuple[str, ...]) -> pd.DataFrame | None:
    """Return one row per user: a column per site × quantity, and the weight; None if the profile lacks a quantity."""
    first, last = embed_and_last(profile)
    table = profile.per_user
    if not first or not last or not set(EXCESS.values()) <= set(table.columns):
        return None
    table = table[table["nodes"] == table["nodes"].iloc[0]]
    table = table.assign(**{NULL_SHARE: table["share"] - table[EXCESS["swap"]]})
    key = "user_id" if "user_id" in table else "sequence"
    # User names that are numbers are text when read from a file.
    table = table.assign(**{key: table[key].astype(str)})
    at = {
        site: table[table["layer_name"] == layer].set_index(key)
        for site, layer in zip(SITES, (first, last), strict=False)
    }
    tables = {site: rows[list(quantities)] for site, rows in at.items()}
    tables["last block − embed"] = tables["last block"] - tables["embed"]
    joined = pd.concat(tables, axis=1)
    joined["weight", ""] = at["embed"]["weight"] if "weight" in table else 1.0
    return joined


def embed_and_last(profile: DecayProfile) -> tuple[str, str]:
    """Return the layer names of ``embed`` and of the last block; an empty string if the curve has none."""
    layers = profile.table.drop_duplicates("layer").sort_values("layer")
    names = {state: layers.loc[layers["state"] == state, "layer_name"].tolist() for state in ("embed", "block")}
    return str((names["embed"] or [""])[0]), str((names["block"] or [""])[-1])
