"""What a recommender says of itself, so that nobody has to ask its class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from spectral_probe.errors import ConfigError, did_you_mean

#: Clauses of the contract that a model may declare not to meet. All others hold for every model.
CLAUSES = {
    "order": "The order of a history changes the scores.",
    "company": "The score of a candidate depends neither on the order of the candidates nor on which others there are.",
    "blind loss": "A state of which a loss is taken has not read the item to be predicted.",
    "learns": "Training on histories that go round one cycle ranks the next item first.",
}
SOURCES = ("ids", "titles")


@dataclass(frozen=True)
class Traits:
    """Facts about a recommender.

    Attributes
    ----------
    is_causal : bool
        Whether the state at t depends only on items up to t.
    is_trained : bool
        Whether a trainer fits its weights; else the data set and the config determine it.
    reads : frozenset of {"ids", "titles"}
        What is known of an item.
    is_inner_product : bool
        Whether a score is the inner product of a state with a row of an item table.
    can_rank_all : bool
        Whether the whole catalogue can be scored; else only given candidates.
    why_no_layers : str
        Why the instrument cannot probe it; an empty string if it can.
    exceptions : {clause: reason}
        Clauses of :data:`CLAUSES` that it does not meet; the results print the reasons.

    Raises
    ------
    ConfigError
        If a clause or a source is unknown, or a reason is empty.
    """

    is_causal: bool = True
    is_trained: bool = True
    reads: frozenset[str] = frozenset({"ids"})
    is_inner_product: bool = True
    can_rank_all: bool = True
    why_no_layers: str = ""
    exceptions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for clause, reason in self.exceptions.items():
            if clause not in CLAUSES:
                raise ConfigError(
                    f"A model may declare exceptions from {', '.join(CLAUSES)}; got {clause!r}."
                    f"{did_you_mean(clause, CLAUSES)} Every other clause of the contract holds for every model."
                )
            if not reason.strip():
                raise ConfigError(f"The exception from {clause!r} needs a reason, which results print; it is empty.")
        if not self.reads or not set(self.reads) <= set(SOURCES):
            raise ConfigError(
                f"A model reads ids, titles or both; got {', '.join(sorted(self.reads))}. Correct its traits."
            )

    @property
    def sees_its_target(self) -> bool:
        """Whether it is declared that the loss at every position may be taken of states that see later items."""
        return "blind loss" in self.exceptions
