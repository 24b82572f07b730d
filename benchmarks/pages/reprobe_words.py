"""Sentences about FreLLM4Rec probed again: the conclusion of the paper's Fig. 4, and that of the nulls.

Every statement follows from a 95 % interval, or from the label of :mod:`spectral_probe.comparison.words`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spectral_probe.comparison.paired import EXCESS, NULL_SHARE, Change
from spectral_probe.comparison.words import LOSS, RESTORED, SMOOTHING_AND_LOSS, WITHOUT_SHARE
from spectral_probe.profiles.bootstrap import Interval

#: The paper's quantity: share of raw energy in the lowest tenth of the frequencies, without a null.
QUANTITY = "published"
#: Labels of the first version, which called the whole excess collaboration, and the words for the same intervals now.
FIRST_VERSION_LABELS = {
    "preserved or restored collaboration (beyond smoothing)": RESTORED,
    "smoothing by construction, and collaboration lost": SMOOTHING_AND_LOSS,
    "more collaboration, without a higher share": WITHOUT_SHARE,
    "collaboration lost": LOSS,
}
#: (whether the published quantity rises, :func:`gains` of the label) → how the two agree.
_TOGETHER = {
    (True, 1): "The nulls bear this out",
    (True, 0): "The nulls do not bear this out",
    (True, -1): "The nulls say the opposite",
    (False, 1): "The nulls show what the published quantity does not",
    (False, 0): "The nulls show no gain either",
    (False, -1): "The nulls show a loss",
}


def story(comparison: Mapping[str, Any], at: Mapping[tuple[str, str], Change]) -> list[str]:
    """Return the conclusions of one comparison as list items.

    Parameters
    ----------
    comparison : dict
        One entry of ``comparison.json``.
    at : {(quantity, site): Change}
        Its changes, including those of the published quantity and of the retention.
    """
    base, other = comparison["base"], comparison["other"]
    if not comparison["changes"]:
        return ["- No verdict may be drawn."]
    return [
        f"- **As the paper's Fig. 4 would have it.** {_published(base, other, at)}",
        f"- **What the nulls say.** {_nulls(comparison['label'], at)}",
        f"- **What is left.** {_left(base, other, at)}",
    ]


def gains(label: str) -> int:
    """Return 1 for the labels that say more of the measure, −1 for those that say less, 0 for the others."""
    return 1 if label in (RESTORED, WITHOUT_SHARE) else -1 if label in (LOSS, SMOOTHING_AND_LOSS) else 0


def change_of(quantity: str, site: Any, values: Mapping[str, Mapping[str, float]]) -> Change:
    """Return a change from its plain values."""
    parts = {part: Interval(**values[part]) for part in ("base", "other", "difference")}
    return Change(quantity, site, **parts)


def interval(estimate: Interval, digits: int = 4) -> str:
    """Return an estimate with its interval."""
    text = f"{estimate.value:.{digits}f} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"
    return text.replace("-", "−")


def signed(change: Change, digits: int = 4) -> str:
    """Return a difference, sign first, with its interval."""
    numbers = (change.difference.value, change.difference.low, change.difference.high)
    value, low, high = (f"{number:+.{digits}f}".replace("-", "−") for number in numbers)
    return f"{value} [{low}, {high}]"


def _published(base: str, other: str, at: Mapping[tuple[str, str], Change]) -> str:
    last, gain = at[QUANTITY, "last block"], at[QUANTITY, "last block − embed"]
    along = gain.base
    through = f"from input to last layer ({interval(along)})"
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
    ends = f"({last.base.value:.4f} against {last.other.value:.4f}; change {signed(last)})"
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


def _nulls(label: str, at: Mapping[tuple[str, str], Change]) -> str:
    swap, null = at[EXCESS["swap"], "last block"], at[NULL_SHARE, "last block"]
    others = f"the low-pass share of other users' states on the same graph {_moves(null)}"
    excess = f"the excess of a user's own states over it {_moves(swap)}"
    return f"{_TOGETHER[at[QUANTITY, 'last block'].is_up, gains(label)]}: {others}, and {excess}."


def _left(base: str, other: str, at: Mapping[tuple[str, str], Change]) -> str:
    excess = at[EXCESS["swap"], "last block"]
    parts = []
    for name, value in ((base, excess.base), (other, excess.other)):
        above = "is above 0" if value.low > 0 else "is below 0" if value.high < 0 else "is not measurably above 0"
        parts.append(f"that of {name} {above} ({interval(value)})")
    sentence = f"The excess over swap at the last block: {', '.join(parts)}."
    retention = at.get(("retention", "last block"))
    if retention is None:
        return f"{sentence} Retention is not compared."
    parts = []
    for name, value in ((base, retention.base), (other, retention.other)):
        what = "a loss" if value.high < 1 else "a gain" if value.low > 1 else "neither loss nor gain shown"
        parts.append(f"{name} keeps {interval(value, 2)} ({what})")
    return f"{sentence} Of the excess in its own inputs, {', '.join(parts)}."


def _moves(change: Change) -> str:
    verb = "rises" if change.is_up else "falls" if change.is_down else "does not measurably change"
    return f"{verb} ({signed(change)})"
