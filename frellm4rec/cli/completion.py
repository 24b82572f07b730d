"""What a shell offers for the beginning of a word: recommenders and experiments."""

from __future__ import annotations

from collections.abc import Iterator


def complete_recommenders(incomplete: str) -> Iterator[str]:
    """Return the registered recommenders that begin with a text."""
    from frellm4rec.models.registry import model_names

    return (name for name in model_names() if name.startswith(incomplete))


def complete_experiments(incomplete: str) -> Iterator[str]:
    """Return the published tables and figures that begin with a text."""
    from frellm4rec.experiments.definitions import experiment_names

    return (name for name in experiment_names() if name.startswith(incomplete))
