"""Sentences of the reports: caveats by their code, controls, quantities and the verdict."""

from __future__ import annotations

from spectral_probe.profiles.profile import DecayProfile

CAVEATS = {
    "raw-verdict-differs": (
        "The raw states (nothing dropped, nothing centred) give another verdict: the mean vector or the first position "
        "moves their curve."
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
    "no-swap-null": "The swap null needs at least 20 other users of at least the same length; some users have none.",
    "truncated-users": "Only a seeded draw of the users was probed.",
    "random-weights-model": "The weights are random: the curve shows an architecture, not a trained model.",
}


#: What each control changes, and what it shows.
CONTROLS_IN_WORDS = {
    "raw": "nothing dropped, nothing centred: the effect of the mean vector and the first position",
    "random-weights": "same inputs and architecture, every weight matrix redrawn: the effect without training",
    "shuffled-history": "each history and its graph nodes in random order: the effect without order in time",
    "normalized-rows": "every state scaled to unit norm: the effect without norms",
    "long-histories": "only users with at least 12 targets: long histories have far less noise",
    "path-graph": "a path in time instead of the user's graph: smoothness in time alone; no verdict",
    "paper": "the published curve: raw states, own user kept, no null; no verdict",
}


QUANTITIES_IN_WORDS = {
    "share": "low-pass share",
    "null_share_swap": "low-pass share of other users' states (swap null)",
    "excess_swap": "excess over swap",
    "excess_permutation": "excess over permutation",
    "excess_cyclic": "excess over cyclic",
    "retention": "retention of the swap excess, relative to its own input",
}


def verdict_in_words(profile: DecayProfile) -> str:
    """Return the verdict of a profile as one or two sentences."""
    model = str(profile.table["model"].iloc[0])
    label = profile.verdict.label
    if label == "none" or profile.embed_excess is None or profile.retention is None:
        return f"{model} gets no verdict."
    if label == "no measurable collaborative signal":
        return (
            f"The inputs of {model} have no measurable collaborative signal: the excess of their low-pass share over "
            f"the {profile.null} null is {profile.embed_excess}. Attenuation cannot be measured."
        )
    retention = profile.retention
    amount = f"{100 * retention.value:.0f} % (95 % CI {100 * retention.low:.0f} to {100 * retention.high:.0f} %)"
    beginning = f"Of the collaborative signal in its inputs, {model} has {amount} left at {profile.retention_layer}: "
    if label == "inconclusive":
        needed = profile.verdict.users_needed
        more = f"; about {needed} users would be needed" if needed else ""
        return beginning + f"{profile.verdict.n_users} users are too few for a verdict{more}."
    return beginning + f"it is {label}."
