"""What a reader must know beside a curve: codes for machines, sentences for people."""

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
    "no-final-norm": "The model has no final norm, so no `final_norm` state is shown.",
    "leaky": "Rows have seen the items they should predict; no verdict is drawn.",
    "few-users": "Fewer than 200 users are on the curve; intervals of so few are less certain than they look.",
    "no-swap-null": "The swap null needs at least 20 other users of at least the same length; some users have none.",
    "truncated-users": "Only a seeded draw of the users was probed.",
    "random-weights-model": "The weights are random: the curve shows an architecture, not a trained model.",
}


#: What each control shows, for the reader of its row.
CONTROLS_IN_WORDS = {
    "raw": "nothing dropped, nothing centred: what the mean vector and the first position add",
    "random-weights": "same inputs and architecture, every weight matrix redrawn: what needs no training",
    "shuffled-history": "each history in random order, nodes following: what needs no order in time",
    "normalized-rows": "every state scaled to unit norm: what does not hang on norms",
    "long-histories": "users with at least 12 targets only: far less noise where histories are long",
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
    """Return one or two sentences that a reader can quote."""
    model = str(profile.table["model"].iloc[0])
    label = profile.verdict.label
    if label == "none" or profile.embed_excess is None or profile.retention is None:
        return f"No verdict is drawn for {model}."
    if label == "no measurable collaborative signal":
        return (
            f"No collaborative signal can be measured in what {model} reads: the excess of its low-pass share over "
            f"the {profile.null} null is {profile.embed_excess} at the input. There is nothing that could decay."
        )
    kept = profile.retention
    amount = f"{100 * kept.value:.0f} % (95 % CI {100 * kept.low:.0f} to {100 * kept.high:.0f} %)"
    beginning = f"Of the collaborative signal in its inputs, {model} has {amount} left at {profile.retention_layer}: "
    if label == "inconclusive":
        needed = profile.verdict.users_needed
        more = f"; about {needed} users would be needed" if needed else ""
        return beginning + f"{profile.verdict.n_users} users cannot tell whether it is attenuated or kept{more}."
    return beginning + f"it is {label}."
