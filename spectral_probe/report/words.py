"""Sentences of the reports: caveats by their code, controls, quantities and the verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping

from spectral_probe.comparison.words import (
    INCONCLUSIVE,
    LOSS,
    LOWER,
    NO_CHANGE,
    NONE,
    RESTORED,
    SMOOTHING,
    SMOOTHING_AND_LOSS,
    WITHOUT_SHARE,
)
from spectral_probe.profiles.bootstrap import Interval
from spectral_probe.profiles.numbers import NOT_AVAILABLE as NOT_AVAILABLE
from spectral_probe.profiles.numbers import PER_MILLE, decimals_for, fixed, interval
from spectral_probe.profiles.profile import DecayProfile
from spectral_probe.profiles.verdict import NOT_MEASURABLE, Verdict
from spectral_probe.report.glossary import terms_of
from spectral_probe.report.page import Mark

#: The sentence of each caveat, by its code.
CAVEATS = terms_of("caveat")
#: What each control changes, and what it shows.
CONTROLS_IN_WORDS = terms_of("control")

QUANTITIES_IN_WORDS = {
    "share": "low-pass share",
    "null_share_swap": "low-pass share of other users' states (swap null)",
    "published_share": "published share (lowest tenth of raw energy, no null)",
    "taste": "taste carried",
    "popularity": "popularity carried",
    "excess_swap": "whole excess over swap",
    "excess_permutation": "whole excess over permutation",
    "excess_cyclic": "whole excess over cyclic",
    "retention_taste": "retention of taste, relative to its own input",
    "retention_popularity": "retention of popularity, relative to its own input",
    "retention_excess_swap": "retention of the whole excess, relative to its own input",
}

#: What a component is, as the object of a sentence.
COMPONENTS_IN_WORDS = {
    "taste": "taste (which items go together beyond their popularity)",
    "popularity": "popularity",
    "whole": "whole excess over the null (popularity, lag profile and taste together)",
}


#: Glyph and look of each label of a verdict.
_MARKS = {
    "attenuated": ("▼", "down"),
    "amplified": ("▲", "up"),
    "preserved": ("=", "same"),
    "inconclusive": ("?", "open"),
    "none": ("–", "open"),
}


#: The same of each label of a comparison.
_CHANGE_MARKS = {
    RESTORED: ("▲", "same"),
    WITHOUT_SHARE: ("▲", "same"),
    SMOOTHING: ("≈", "up"),
    SMOOTHING_AND_LOSS: ("▼", "down"),
    LOSS: ("▼", "down"),
    LOWER: ("▽", "open"),
    NO_CHANGE: ("=", "open"),
    INCONCLUSIVE: ("?", "open"),
    NONE: ("–", "open"),
}
#: What the signs of the verdicts mean.
SIGNS = (
    ("▼ attenuated", "the last block carries measurably less than 100 % of what the input carries"),
    ("▲ amplified", "it carries measurably more"),
    ("= preserved", "the interval lies between 80 and 125 %"),
    ("? inconclusive", "too few users for one of these words"),
    ("∅ no measurable …", "the input itself carries nothing that could be lost"),
    ("– no verdict", "a curve that is shown and not judged"),
)
CHANGE_SIGNS = (
    ("▲", "in a comparison: the second model carries more of it"),
    ("▼", "in a comparison: it carries less of it"),
    ("≈", "in a comparison: a higher low-pass share by smoothing alone"),
    ("▽", "in a comparison: a lower low-pass share, and no measurable change of what is carried"),
    ("=", "in a comparison: no measurable change"),
)


def change_mark(label: str) -> Mark:
    """Return the label of a comparison in one line, with its glyph and look."""
    glyph, look = _CHANGE_MARKS.get(label, ("?", "open"))
    return Mark("", glyph, look, "not compared" if label == NONE else label)


def mark_of(component: str, verdict: Verdict) -> Mark:
    """Return the verdict of a component in one line, with its glyph and look."""
    glyph, look = _MARKS.get(verdict.label, ("∅", "open"))
    label = "no verdict" if verdict.label == "none" else verdict.label
    return Mark(component, glyph, look, label)


def verdict_in_words(profile: DecayProfile) -> str:
    """Return the verdicts of a profile in sentences."""
    model = str(profile.table["model"].iloc[0])
    if all(verdict.label == "none" for verdict in profile.verdicts.values()):
        return f"{model} gets no verdict."
    return " ".join(_component_in_words(profile, model, name) for name in profile.verdicts)


def verdict_in_short(profile: DecayProfile) -> str:
    """Return the verdicts of a profile in a few words: ``taste attenuated, popularity preserved``."""
    return short_verdict({name: verdict.label for name, verdict in profile.verdicts.items()})


def short_verdict(labels: Mapping[str, str]) -> str:
    """Return the labels of verdicts, by component, in a few words; a label that names its component stands alone."""
    words = [
        label if label.startswith(NOT_MEASURABLE) else f"{component} {label}"
        for component, label in labels.items()
        if label != "none"
    ]
    return ", ".join(words) or "no verdict"


def _component_in_words(profile: DecayProfile, model: str, component: str) -> str:
    verdict, name = profile.verdicts[component], COMPONENTS_IN_WORDS[component]
    if verdict.label == "none":
        return f"No verdict on {component}."
    if verdict.label.startswith(NOT_MEASURABLE):
        excess = per_mille(profile.embed_excess[component])
        return (
            f"The inputs of {model} carry no measurable {name}: their excess is {excess}. "
            f"{_stricter(profile, component)}What the layers keep of it cannot be measured."
        )
    if component not in profile.retention or (verdict.label == "inconclusive" and not _is_known(profile, component)):
        return f"On {component} the verdict is {verdict}."
    beginning = _amount_in_words(profile, model, component)
    if verdict.label == "inconclusive":
        needed = verdict.users_needed
        more = f"; effectively about {needed} would be needed" if needed else ""
        effective = f" (effectively {verdict.n_effective:.0f})" if verdict.n_effective is not None else ""
        return f"{beginning}: {verdict.n_users} users{effective} are too few for a verdict{more}."
    depends = f" This word depends on: {', '.join(verdict.depends_on)}." if verdict.depends_on else ""
    note = f", {verdict.note}" if verdict.note else ""
    return f"{beginning}: {verdict.label}{note}.{depends}"


def _stricter(profile: DecayProfile, component: str) -> str:
    """Return that the test of ``embed`` is stricter than the interval, where it is; else nothing."""
    sd = float(profile.protocol.get("embed_sd", 1.0))
    if component != "taste" or sd <= 1:
        return ""
    return (
        f"The test is stricter than this interval: it divides by {sd:.2f}, the standard deviation of z where items are "
        "exchanged. "
    )


def _amount_in_words(profile: DecayProfile, model: str, component: str) -> str:
    """Return how much of a component is carried; no percentage where that is not measurably above 0."""
    name, retention, layer = COMPONENTS_IN_WORDS[component], profile.retention[component], profile.retention_layer
    if retention.low <= 0:
        low, high = (f"{value:z.2f}".replace("-", "−") for value in (retention.low, retention.high))
        return f"At {layer} {model} carries no measurable {name}; the 95 % CI of its retention is {low} to {high}"
    amount = f"{100 * retention.value:.0f} % (95 % CI {100 * retention.low:.0f} to {100 * retention.high:.0f} %)"
    amount = f"{amount} of the input's at {layer}"
    return f"The {name} that {model} carries is, as a share of the energy of its states, {amount}"


def per_mille(excess: Interval) -> str:
    """Return an excess with its interval, with two significant digits in units of 10⁻³."""
    value, low, high = (PER_MILLE * part for part in (excess.value, excess.low, excess.high))
    decimals = min(2, decimals_for([value, low, high]))
    return f"{fixed(value, decimals)} {interval(low, high, decimals)} in units of 10⁻³"


def _is_known(profile: DecayProfile, component: str) -> bool:
    return math.isfinite(profile.retention[component].value)


def paired_in_words(profile: DecayProfile) -> list[str]:
    """Return one sentence per control that was captured anew: the paired difference of the retention, and its CI."""
    model = str(profile.table["model"].iloc[0])
    lines = []
    for control, parts in profile.paired.items():
        for component, values in parts.items():
            base, other, difference = values["base"], values["other"], values["difference"]
            if not math.isfinite(difference.value) or not profile.has_measurable_input(component):
                continue
            lines.append(
                f"Retention of {component}: {model} {other.value:.2f}, {control} {base.value:.2f}; paired difference "
                f"{difference.value:+.2f} [{difference.low:+.2f}, {difference.high:+.2f}]."
            )
    return lines


def retention_in_words(profile: DecayProfile, component: str) -> str:
    """Return the retention at the last block with its interval; ``n/a`` if the input has no measurable signal."""
    retention = profile.retention.get(component)
    if retention is None or not math.isfinite(retention.value) or not profile.has_measurable_input(component):
        return NOT_AVAILABLE
    return str(retention)


def nulls_in_words(profile: DecayProfile) -> str:
    """Return what is left of the whole excess under each null, because the nulls can disagree."""
    left = profile.whole_retention()
    if not left:
        return ""
    parts = ", ".join(f"{null} {NOT_AVAILABLE if x is None else f'{x:.2f}'}" for null, x in left.items())
    return f"Whole excess left at {profile.retention_layer or 'the last block'}, by null: {parts}."


def caveat_in_words(profile: DecayProfile, code: str) -> str:
    """Return the sentence of a caveat; for massive positions with their number at the layer that has the most."""
    counts = profile.protocol.get("massive_positions")
    if code != "massive-positions" or not counts:
        return CAVEATS[code]
    layer = max(counts, key=lambda name: counts[name])
    return f"{CAVEATS[code]} Most at {layer}: {counts[layer]:,} of {profile.protocol['positions']:,} positions."


def users_in_words(profile: DecayProfile) -> str:
    """Return who was probed, measured, shortened and left out."""
    users = profile.user_counts
    skipped = "; ".join(f"{reason}: {count}" for reason, count in users["skipped"].items() if count)
    text = (
        f"{users['probed']} users probed, {users['measured']} measured, {users['shortened']} of them on fewer nodes "
        "than they have"
    ) + (f"; weighted mean of {users['mean_length']:.1f} nodes" if "mean_length" in users else "")
    return f"{text}; left out: {skipped}." if skipped else f"{text}."


def changes_in_words(profile: DecayProfile) -> str:
    """Return how a re-analysis differs from its source; an empty string for others."""
    differing = profile.protocol.get("differs_from_source")
    if differing is None:
        return ""
    if not differing:
        return "Analysed again from saved Grams, with the options of the source."
    return (
        "Analysed again from saved Grams; differs from its source in "
        + ", ".join(f"{name} ({change})" for name, change in differing.items())
        + "."
    )
