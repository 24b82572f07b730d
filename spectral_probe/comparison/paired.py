"""Paired differences between two profiles over the users on both curves, with bootstrap intervals."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from spectral_probe.profiles.bootstrap import Interval, percentile_interval, resampled_means
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
QUANTITIES = (SHARE, NULL_SHARE, *EXCESS.values())


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
        Users on both curves, with every null; all intervals are over these users.
    at : {(quantity, site): Change}
        Quantities :data:`QUANTITIES`, sites :data:`SITES`. At ``last block − embed`` the difference is the difference
        in differences: what the layers add, without what the inputs contribute.
    retention : Change or None
        Swap excess at the last block divided by that at ``embed``, for each profile; None if one of the two has no
        measurable excess at ``embed``.
    """

    n_users: int
    at: dict[tuple[str, Site], Change]
    retention: Change | None

    def every(self) -> list[Change]:
        """Return all changes; the retention comes last, if there is one."""
        return [*self.at.values(), *([self.retention] if self.retention else [])]

    def in_short(self) -> list[Change]:
        """Return the changes that the sentences use: all at the last block, and the swap excess at every site."""
        chosen = [change for (_, site), change in self.at.items() if site == "last block"]
        chosen += [self.at[EXCESS["swap"], site] for site in SITES if site != "last block" and self.at]
        return [*chosen, *([self.retention] if self.retention else [])]

    def to_frame(self) -> pd.DataFrame:
        """Return one row per quantity and site; the column ``place`` holds the site."""
        rows = []
        for change in self.every():
            row: dict[str, Any] = {"quantity": change.quantity, "place": change.site, "n_users": self.n_users}
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
    values = _aligned(base, other)
    if not len(values):
        return Changes(0, {}, None)
    n_bootstrap = int(base.protocol.get("n_bootstrap", 1000))
    resampled = resampled_means(values, n_bootstrap=n_bootstrap, seed=int(base.protocol.get("bootstrap_seed", 0)))
    means = values.mean(axis=0)
    lows, highs = percentile_interval(resampled)
    lows_of_change, highs_of_change = percentile_interval(resampled[:, 1] - resampled[:, 0])

    at: dict[tuple[str, Site], Change] = {}
    for s, site in enumerate(SITES):
        for q, quantity in enumerate(QUANTITIES):
            estimates = [Interval(float(means[m, s, q]), float(lows[m, s, q]), float(highs[m, s, q])) for m in (0, 1)]
            low, high = float(lows_of_change[s, q]), float(highs_of_change[s, q])
            difference = Interval(float(means[1, s, q] - means[0, s, q]), low, high)
            at[quantity, site] = Change(quantity, site, estimates[0], estimates[1], difference)
    swap = QUANTITIES.index(EXCESS["swap"])
    retention = _retention(means[..., swap], resampled[..., swap]) if (lows[:, 0, swap] > 0).all() else None
    return Changes(len(values), at, retention)


def _aligned(base: DecayProfile, other: DecayProfile) -> FloatArray:
    """Return (n_users, 2 profiles, n_sites, n_quantities) for the users on both curves who have every quantity."""
    tables = [_per_user(profile) for profile in (base, other)]
    if any(table is None for table in tables):
        return np.empty((0, 2, len(SITES), len(QUANTITIES)))
    both = pd.concat(tables, axis=1, join="inner", keys=["base", "other"]).dropna()
    return np.asarray(both, dtype=np.float64).reshape(len(both), 2, len(SITES), len(QUANTITIES))


def _per_user(profile: DecayProfile) -> pd.DataFrame | None:
    """Return one row per user and one column per site × quantity; None if the profile lacks one of them."""
    first, last = embed_and_last(profile)
    table = profile.per_user
    if not first or not last or not set(EXCESS.values()) <= set(table.columns):
        return None
    table = table.assign(**{NULL_SHARE: table["share"] - table[EXCESS["swap"]]})
    key = "user_id" if "user_id" in table else "sequence"
    # User names that are numbers are text when read from a file.
    table = table.assign(**{key: table[key].astype(str)})
    tables = {
        site: table[table["layer_name"] == layer].set_index(key)[list(QUANTITIES)]
        for site, layer in zip(SITES, (first, last), strict=False)
    }
    tables["last block − embed"] = tables["last block"] - tables["embed"]
    return pd.concat(tables, axis=1)


def embed_and_last(profile: DecayProfile) -> tuple[str, str]:
    """Return the layer names of ``embed`` and of the last block; an empty string if the curve has none."""
    layers = profile.table.drop_duplicates("layer").sort_values("layer")
    names = {state: layers.loc[layers["state"] == state, "layer_name"].tolist() for state in ("embed", "block")}
    return str((names["embed"] or [""])[0]), str((names["block"] or [""])[-1])


def _retention(excess: FloatArray, resampled: FloatArray) -> Change:
    """Return the retention of both profiles and its change, from swap excess (2, n_sites) and its resamples."""
    values, ratios = excess[:, 1] / excess[:, 0], resampled[:, :, 1] / resampled[:, :, 0]
    lows, highs = percentile_interval(ratios)
    low, high = percentile_interval(ratios[:, 1] - ratios[:, 0])
    estimates = [Interval(float(values[m]), float(lows[m]), float(highs[m])) for m in (0, 1)]
    difference = Interval(float(values[1] - values[0]), float(low), float(high))
    return Change("retention", "last block", estimates[0], estimates[1], difference)
