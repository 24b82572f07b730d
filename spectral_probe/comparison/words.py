r"""Label a comparison from its intervals: is a higher low-pass share taste, or smoothing by construction?

A filter that averages positions raises the low-pass share of every user on every graph, whatever the items are. The
swap null contains the same filter, because other users' states went through the same layers. So

.. math:: \Delta\,\text{share} = \Delta\,\text{null share (swap)} + \Delta\,\text{excess (swap)},

and a rise of the null share is smoothing; a rise of the excess is a better fit of these states to these items. The
permutation null reorders positions and thereby destroys smoothness in time, so that a filter in time raises the excess
over it by construction. The cyclic null keeps only smoothness that is the same everywhere in the history.

The *measure* is the taste that is carried; for runs without components it is the whole excess over swap, which is
popularity and lag profile too. Every statement rests on 95 % intervals of paired differences (other − base) at the last
block: *rises* means an interval above 0, *falls* one below 0.

=============  ======================================  =====================================================
share          measure                                 label
=============  ======================================  =====================================================
rises          rises, and other's own is above 0       preserved or restored (beyond smoothing)
rises          falls, and base's own was above 0       smoothing by construction, and a smaller share of it
rises          does not rise; the null share rises     smoothing by construction
does not rise  rises, and other's own is above 0       more of it, without a higher low-pass share
does not rise  falls, and base's own was above 0       a smaller share of it
falls          neither                                 lower low-pass share
neither        neither                                 no measurable change
=============  ======================================  =====================================================

Anything else is inconclusive, as is every comparison over fewer than 20 common users. An interval that contains 0 does
not show that nothing rose. All are shares of the energy of the states: unrelated energy that grows makes them smaller.

Inputs may differ between the two (G-LPF changes them). The difference in differences (last block − embed) tells the
effect of the layers from that of the inputs, and retention compares each model with its own input. Comparisons with
several models are separate; there is no correction for their number.
"""

from __future__ import annotations

from spectral_probe.comparison.paired import EXCESS, NULL_SHARE, SHARE, Change, Changes
from spectral_probe.profiles.bootstrap import Interval
from spectral_probe.profiles.verdict import MIN_USERS

RESTORED = "preserved or restored (beyond smoothing)"
SMOOTHING = "smoothing by construction"
SMOOTHING_AND_LOSS = "smoothing by construction, and a smaller share of it"
WITHOUT_SHARE = "more of it, without a higher low-pass share"
LOSS = "a smaller share of it"
LOWER = "lower low-pass share"
NO_CHANGE = "no measurable change"
INCONCLUSIVE = "inconclusive"
NONE = "none"
_SWAP, _PERMUTATION, _CYCLIC = (EXCESS[null] for null in ("swap", "permutation", "cyclic"))
#: What the label is about, by measure.
MEASURE_IN_WORDS = {"taste": "taste carried", _SWAP: "whole excess over swap"}


def label_of(changes: Changes) -> str:
    """Return the label that the intervals at the last block support; see the table of this module."""
    if changes.n_users < MIN_USERS:
        return INCONCLUSIVE
    share, swap = changes.at[SHARE, "last block"], changes.at[changes.measure, "last block"]
    gains, loses = swap.is_up and swap.other.low > 0, swap.is_down and swap.base.low > 0
    if gains:
        return RESTORED if share.is_up else WITHOUT_SHARE
    if loses:
        return SMOOTHING_AND_LOSS if share.is_up else LOSS
    if share.is_up:
        is_smoothed = changes.at[NULL_SHARE, "last block"].is_up and not swap.is_up
        return SMOOTHING if is_smoothed else INCONCLUSIVE
    if swap.is_up or swap.is_down:
        return INCONCLUSIVE
    return LOWER if share.is_down else NO_CHANGE


def sentences(label: str, changes: Changes, names: tuple[str, str], last: str) -> list[str]:
    """Return the sentences that compare ``names[1]`` with ``names[0]``, from the intervals alone.

    Parameters
    ----------
    label : str
        From :func:`label_of`.
    changes : Changes
    names : (base, other)
    last : str
        Name of the last block in the sentences.
    """
    first = f"{names[1]} against {names[0]}, {MEASURE_IN_WORDS[changes.measure]}: {label}."
    if changes.n_users < MIN_USERS:
        return [
            first,
            f"{changes.n_users} users are on both curves with every null; it takes at least {MIN_USERS}.",
        ]
    parts = [
        first,
        _headline(label, changes, last),
        _time_smoothing(changes),
        _inputs_and_layers(changes),
        _retention(changes, names),
        f"{changes.n_users} users, paired; 95 % intervals.",
    ]
    return [sentence for sentence in parts if sentence]


def _headline(label: str, changes: Changes, last: str) -> str:
    share, null, measure = (changes.at[q, "last block"] for q in (SHARE, NULL_SHARE, changes.measure))
    first = f"At {last} the low-pass share {moves(share)}"
    excess = f"{MEASURE_IN_WORDS[changes.measure]} {moves(measure)}"
    others = f"other users' states on the same graph {moves(null, plural=True)}"
    if label == SMOOTHING:
        swap = changes.at[_SWAP, "last block"].difference
        most = "none of it is" if swap.high <= 0 else f"no more than {swap.high:.4f} of it is"
        return f"{first}, but {others}, and {excess}: as far as these users can tell, {most} excess over the null."
    if label in (RESTORED, SMOOTHING_AND_LOSS):
        return f"{first}, {excess}, and {others}."
    if label == INCONCLUSIVE and (measure.is_up or measure.is_down):
        whose = "what is left is" if measure.is_up else "what it falls from was"
        return f"{first} and {excess}, but {whose} not measurably above 0 itself."
    if label == INCONCLUSIVE:
        return f"{first}; whether as smoothing ({others}) or as a better fit ({excess}) cannot be told."
    return f"{first}, and {excess}."


def _time_smoothing(changes: Changes) -> str:
    """Return a sentence if the excess over a weaker null rises while that over swap does not, else an empty string."""
    weak = {"permutation": changes.at[_PERMUTATION, "last block"], "cyclic": changes.at[_CYCLIC, "last block"]}
    rising = [f"{null} {signed(change.difference)}" for null, change in weak.items() if change.is_up]
    if not rising or changes.at[_SWAP, "last block"].is_up:
        return ""
    return (
        f"The excess over weaker nulls rises ({', '.join(rising)}) while that over swap does not: the signature of "
        "smoothing in time, which swap keeps and those nulls do not."
    )


def _inputs_and_layers(changes: Changes) -> str:
    embed, gain = (changes.at[changes.measure, site] for site in ("embed", "last block − embed"))
    inputs = "more" if embed.is_up else "less" if embed.is_down else "neither measurably more nor less"
    layers = (
        "the layers add to the difference"
        if gain.is_up
        else "the layers take from the difference"
        if gain.is_down
        else "no effect of the layers on the difference can be measured"
    )
    return (
        f"The inputs carry {inputs} of it (at embed {signed(embed.difference)}), and {layers} "
        f"(last block − embed {signed(gain.difference)})."
    )


def _retention(changes: Changes, names: tuple[str, str]) -> str:
    retention = changes.retention
    if retention is None:
        embed = changes.at[changes.measure, "embed"]
        missing = [name for name, excess in zip(names, (embed.base, embed.other), strict=True) if not excess.low > 0]
        return f"Retention is not compared: the inputs of {' and '.join(missing)} have no measurable excess."
    texts = [_kept(retention, names)]
    if "popularity" in changes.retentions and changes.measure == "taste":
        texts.append(_kept(changes.retentions["popularity"], names, of=" of popularity"))
    return " ".join(texts)


def _kept(retention: Change, names: tuple[str, str], *, of: str = "") -> str:
    more = "more" if retention.is_up else "less" if retention.is_down else "neither measurably more nor less"
    return (
        f"Relative to its own inputs {names[1]} keeps {more}{of}: {retention.other.value:.2f} against "
        f"{retention.base.value:.2f}, difference {signed(retention.difference, 2)}."
    )


def moves(change: Change, *, plural: bool = False) -> str:
    """Return whether a quantity rises, falls or does not measurably change, with the difference and its interval."""
    verb, rest = ("rise", "do") if plural else ("rises", "does")
    if change.is_up:
        return f"{verb} ({signed(change.difference)})"
    if change.is_down:
        return f"{'fall' if plural else 'falls'} ({signed(change.difference)})"
    return f"{rest} not measurably change ({signed(change.difference)})"


def signed(interval: Interval, digits: int = 4) -> str:
    """Return a difference, sign first, with its interval."""
    value, low, high = (
        f"{round(number, digits) + 0.0:+.{digits}f}" for number in (interval.value, interval.low, interval.high)
    )
    return f"{value} [{low}, {high}]"
