"""What a shell offers for the beginning of a word: models, data sets, runs and terms."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence


def complete_models(incomplete: str) -> Iterator[str]:
    """Return the short names of models, and the names of training runs, that begin with a text."""
    from spectral_probe.backbones.aliases import known_aliases
    from spectral_probe.plugins.registry import plugin_names
    from spectral_probe.runs.references import TRAINING

    yield from _beginning([*plugin_names("models"), *known_aliases()], incomplete)
    for name, _ in _runs((TRAINING,)):
        if incomplete and name.startswith(incomplete):
            yield name


def complete_datasets(incomplete: str) -> Iterator[str]:
    """Return the names of data sets that begin with a text."""
    from spectral_probe.plugins.registry import plugin_names

    return _beginning(plugin_names("datasets"), incomplete)


def complete_terms(incomplete: str) -> Iterator[tuple[str, str]]:
    """Return the terms of the glossary that begin with a text, each with what it is in short."""
    from spectral_probe.report.glossary import glossary

    for term in glossary().values():
        if term.name.lower().startswith(incomplete.lower()):
            yield term.name, term.short


def complete_runs(*kinds: str) -> Callable[[str], Iterator[tuple[str, str]]]:
    """Return a function that returns the runs of some kinds that a beginning may mean, the newest first."""

    def complete(incomplete: str) -> Iterator[tuple[str, str]]:
        return ((name, text) for name, text in _runs(kinds) if name.startswith(incomplete))

    return complete


def _runs(kinds: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield every way to write the runs in ``runs/``, with what each run is."""
    from spectral_probe.runs.references import reference, runs_in

    for position, entry in enumerate(runs_in(kinds=kinds)):
        text = f"{entry.when} {entry.model} on {entry.dataset}"
        for name in (reference(position), entry.name, entry.path.name):
            if name:
                yield name, text


def _beginning(names: Sequence[str], incomplete: str) -> Iterator[str]:
    return (name for name in names if name.startswith(incomplete))
