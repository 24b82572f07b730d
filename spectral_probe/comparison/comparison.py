"""Compare profiles of several models: check that they are comparable, then take differences from the first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pandas as pd

from spectral_probe.comparison.paired import Change, Changes, change_table, embed_and_last, paired_changes
from spectral_probe.comparison.published import PublishedChanges, published_changes, published_words
from spectral_probe.comparison.words import NONE, label_of, sentences
from spectral_probe.errors import ConfigError
from spectral_probe.profiles.profile import DecayProfile

#: Options that must be equal in all profiles; models and their inputs may differ.
MEASURED = (
    *("sequence", "max_length", "users", "min_targets", "own_user", "tau", "whole_tau", "n_references", "n_pseudo"),
    *("treatment", "weights"),
    *("drop_first", "center", "normalize_rows"),
)
#: Of these, what no option of the command line sets.
_WITHOUT_FLAG = ("whole_tau", "n_references", "treatment", "drop_first", "center", "normalize_rows")


@dataclass(frozen=True)
class ProfileComparison:
    """How ``other`` differs from ``base``: a label, the sentences that explain it, and the numbers they rest on.

    Attributes
    ----------
    base, other : str
        Names of the models.
    label, words : str
        From :mod:`spectral_probe.comparison.words`; of the corrected quantities.
    changes : Changes
    published : PublishedChanges
        The change of the published share.
    """

    base: str
    other: str
    label: str
    words: str
    changes: Changes
    published: PublishedChanges

    @property
    def published_words(self) -> dict[str, str]:
        """The sentences about the published share, by their leads."""
        return published_words(self.label, self.changes, self.published, (self.base, self.other))

    def every(self) -> list[Change]:
        """Return all changes; those of the published share come last."""
        return [*self.changes.every(), *self.published.at.values()]

    def in_short(self) -> list[Change]:
        """Return the changes that the sentences use."""
        return [*self.changes.in_short(), *self.published.at.values()]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain values, ready for JSON."""
        numbers: dict[str, dict[str, Any]] = {}
        for change in self.changes.at.values():
            numbers.setdefault(change.quantity, {})[change.site] = _numbers(change)
        return {
            "base": self.base,
            "other": self.other,
            "label": self.label,
            "words": self.words,
            "n_users": self.changes.n_users,
            "changes": numbers,
            "measure": self.changes.measure,
            "retentions": {quantity: _numbers(change) for quantity, change in self.changes.retentions.items()},
            "published": {
                "n_users": self.published.n_users,
                "changes": {site: _numbers(change) for site, change in self.published.at.items()},
                "words": self.published_words,
            },
        }

    def to_frame(self) -> pd.DataFrame:
        """Return one row per quantity and site, with the names of both models."""
        tables = [self.changes.to_frame(), change_table(self.published.at.values(), self.published.n_users)]
        filled = [table for table in tables if len(table)]
        table = pd.concat(filled, ignore_index=True) if filled else tables[0]
        return table.assign(base_model=self.base, other_model=self.other)


def _numbers(change: Change) -> dict[str, dict[str, float]]:
    return {name: asdict(getattr(change, name)) for name in ("base", "other", "difference")}


def compare(profiles: Sequence[DecayProfile]) -> list[ProfileComparison]:
    """Compare every profile with the first.

    Raises
    ------
    ConfigError
        If the profiles are not comparable, see :func:`check_comparable`.
    """
    check_comparable(profiles)
    named = with_distinct_names(profiles)
    return [_compare(named[0], other) for other in named[1:]]


def check_comparable(profiles: Sequence[DecayProfile]) -> None:
    """Raise ConfigError unless all profiles have the same data set and the same measurement options."""
    datasets = {str(p.protocol.get("dataset_fingerprint", "")): str(p.table["dataset"].iloc[0]) for p in profiles}
    if len(datasets) > 1:
        raise ConfigError(
            f"Curves of different data sets cannot be compared; these runs are from {len(datasets)}: "
            f"{sorted(datasets.values())}. Compare runs of one data set."
        )
    settings = [{**p.protocol.get("options", {}), **p.protocol} for p in profiles]
    # If `users` is set, the seed decides which users are probed; otherwise it only draws the references of the nulls.
    measured = (*MEASURED, "seed") if any(s.get("users") is not None for s in settings) else MEASURED
    for name in measured:
        for profile, other_settings in zip(profiles[1:], settings[1:], strict=True):
            if other_settings.get(name) != settings[0].get(name):
                raise ConfigError(
                    f"Only curves with the same options can be compared: {name} is {settings[0].get(name)!r} for "
                    f"{name_of(profiles[0])} and {other_settings.get(name)!r} for {name_of(profile)}. "
                    f"{_way_to_equal(name, settings[0], other_settings)}"
                )


def _way_to_equal(name: str, *settings: Mapping[str, Any]) -> str:
    """Return what to do about an option in which two curves differ."""
    if sum(options.get("n_pseudo") is None for options in settings) == 1:
        return (
            "One of the two runs is of the first version (0.1.0), which measured otherwise. Analyse its Grams again: "
            "spectral-probe analyze RUN."
        )
    if name in _WITHOUT_FLAG:
        return f"Analyse one of the two again in Python, with the {name} of the other."
    return f"Analyse one of the two again with the --{name.replace('_', '-')} of the other."


def with_distinct_names(profiles: Sequence[DecayProfile]) -> list[DecayProfile]:
    """Return the profiles; equal model names get a number, so that two runs of one model are two curves."""
    names = [name_of(profile) for profile in profiles]
    named = []
    for position, (name, profile) in enumerate(zip(names, profiles, strict=True)):
        if names.count(name) > 1:
            profile = _renamed(profile, f"{name} ({names[: position + 1].count(name)})")
        named.append(profile)
    return named


def name_of(profile: DecayProfile) -> str:
    """Return the model name of a profile."""
    return str(profile.table["model"].iloc[0])


def is_by_prefix(profile: DecayProfile) -> bool:
    """Return whether every prefix of a history was run separately, as for a two-sided model."""
    return bool(profile.protocol.get("prefix_by_prefix", False))


def _compare(base: DecayProfile, other: DecayProfile) -> ProfileComparison:
    names = name_of(base), name_of(other)
    published = published_changes(base, other, names)
    for name, profile in zip(names, (base, other), strict=True):
        if profile.null is None:
            words = f"{names[1]} against {names[0]}: not compared, because {name} has no verdict."
            return ProfileComparison(*names, NONE, words, Changes(0, {}, {}), published)
    changes = paired_changes(base, other)
    label = label_of(changes)
    text = [*sentences(label, changes, names, _last_block(base, other)), *_by_prefix(base, other)]
    return ProfileComparison(*names, label, " ".join([*text, *_by_dtype(base, other)]), changes, published)


def _by_dtype(base: DecayProfile, other: DecayProfile) -> list[str]:
    """Return a sentence for each setting of the numbers themselves that differs."""
    lines = []
    # A run without a number format has weights that no file of rounded numbers was made of; one without a dtype is old.
    for name, words, default in (
        ("dtype", "dtype", ""),
        ("number_format", "number format of the weights", "not rounded"),
    ):
        values = [str(profile.protocol.get(name) or default) for profile in (base, other)]
        if values[0] != values[1] and all(values):
            lines.append(f"The {words} differs: {values[1]} against {values[0]}.")
    return lines


def _by_prefix(base: DecayProfile, other: DecayProfile) -> list[str]:
    names = [name_of(profile) for profile in (base, other) if is_by_prefix(profile)]
    return [f"Probed prefix by prefix, so that no row has seen its answer: {', '.join(names)}."] if names else []


def _last_block(base: DecayProfile, other: DecayProfile) -> str:
    first, second = embed_and_last(base)[1], embed_and_last(other)[1]
    return f"the last block ({first})" if first == second else f"the last block ({second} against {first})"


def _renamed(profile: DecayProfile, name: str) -> DecayProfile:
    text = profile.table["model"].dtype
    controls = {key: _renamed(control, name) for key, control in profile.controls.items()}
    table = profile.table.assign(model=name)
    return replace(profile, table=table.astype({"model": text}), controls=controls)
