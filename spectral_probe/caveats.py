"""What a reader must know beside a curve: codes for machines, sentences for people."""

from __future__ import annotations

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
