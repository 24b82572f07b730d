"""Sentences of the reports: caveats by their code, controls, quantities and the verdict."""

from __future__ import annotations

import math

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
from spectral_probe.profiles.profile import DecayProfile
from spectral_probe.profiles.verdict import NOT_MEASURABLE, Verdict
from spectral_probe.report.page import Mark

#: Where the input has no measurable signal: what is left of it has no denominator.
NOT_AVAILABLE = "n/a"

CAVEATS = {
    "raw-verdict-differs": (
        "The whole excess of the raw states (nothing dropped, nothing centred) would get another word: the mean "
        "vector, the first position or popularity moves its curve."
    ),
    "untreated-states": (
        "These Grams were saved without the treated states, so popularity may be left in taste: curves, and no "
        "verdict. Run the analysis again from the model to get one."
    ),
    "first-version": (
        "This run is of the first version: the whole excess of what is foreseen, which was mostly popularity. Analyse "
        "its Grams again (spectral-probe analyze RUN) for taste and popularity apart."
    ),
    "popularity-match-poor": (
        "Items have few others of their popularity (mean absolute log count ratio over 0.2), so popularity and taste "
        "are told apart less well."
    ),
    "massive-positions": (
        "Some positions beyond the first have a norm over 10 times the median of their layer. Taste and "
        "popularity use rows of unit norm; the whole excess does not."
    ),
    "encoder-run-causally": (
        "The model is an encoder run causally; its states are block outputs after their norm, not a raw residual."
    ),
    "rounded-weights": (
        "The weights come from a file of rounded numbers (`number_format` in the protocol): the states are those of "
        "the rounded model."
    ),
    "no-final-norm": "The model has no final norm, so no `final_norm` state is shown.",
    "leaky": "Rows have seen the items they should predict; no verdict is drawn.",
    "few-users": "Fewer than 200 users are on the curve; intervals of so few are less certain than they look.",
    "no-swap-null": "The swap null needs 21 users who are long enough; without it there is no excess and no verdict.",
    "no-long-histories": "No user is measured on 12 targets, so the control long-histories is left out.",
    "vectors-by-position": (
        "The file of item vectors has no ids, so row i was taken as the vector of item i. If the rows are in another "
        "order, the numbers mean nothing."
    ),
    "truncated-users": "Only a seeded draw of the users was probed.",
    "random-weights-model": "The weights are random: the curve shows an architecture, not a trained model.",
}


#: What each control changes, and what it shows.
CONTROLS_IN_WORDS = {
    "raw": "nothing dropped, nothing centred: the effect of the mean vector and the first position",
    "random-weights": "same inputs and architecture, every weight matrix redrawn: the effect without training",
    "shuffled-history": "each history and its graph nodes in random order: the effect without order in time",
    "plain": "states as they are, neither scaled to unit norm nor without popularity residuals",
    "normalized-rows": "states of unit norm, without popularity residuals",
    "equal-weights": "every user with equal weight: short histories, which are noisy, count as much as long ones",
    "split-graph": "the probe's graph from one half of the users, a model's own from the other; both ways, averaged",
    "long-histories": "only users with at least 12 targets: long histories have far less noise",
    "path-graph": "a path in time instead of the user's graph: smoothness in time alone; no verdict",
    "paper": "the published curve: raw states, own user kept, no null; no verdict",
}


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


def _component_in_words(profile: DecayProfile, model: str, component: str) -> str:
    verdict, name = profile.verdicts[component], COMPONENTS_IN_WORDS[component]
    if verdict.label == "none":
        return f"No verdict on {component}."
    if verdict.label.startswith(NOT_MEASURABLE):
        return (
            f"The inputs of {model} carry no measurable {name}: their excess is {profile.embed_excess[component]}. "
            "What the layers keep of it cannot be measured."
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


def _amount_in_words(profile: DecayProfile, model: str, component: str) -> str:
    """Return how much of a component is carried; no percentage where that is not measurably above 0."""
    name, retention, layer = COMPONENTS_IN_WORDS[component], profile.retention[component], profile.retention_layer
    if retention.low <= 0:
        low, high = (f"{value:z.2f}".replace("-", "−") for value in (retention.low, retention.high))
        return f"At {layer} {model} carries no measurable {name}; the 95 % CI of its retention is {low} to {high}"
    amount = f"{100 * retention.value:.0f} % (95 % CI {100 * retention.low:.0f} to {100 * retention.high:.0f} %)"
    amount = f"{amount} of the input's at {layer}"
    return f"The {name} that {model} carries is, as a share of the energy of its states, {amount}"


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
