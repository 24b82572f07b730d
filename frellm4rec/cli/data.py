"""``frellm4rec data``: what a data set holds, and what every filter leaves of it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spectral_probe.cli.completion import complete_datasets
from spectral_probe.cli.flags import DATA, RUN, Columns, FromDir, examples
from spectral_probe.cli.status import working
from spectral_probe.cli.terminal import say_wrapped
from spectral_probe.errors import ConfigError, check_choice, did_you_mean
from spectral_probe.progress import stage

if TYPE_CHECKING:
    from spectral_probe.interactions.dataset import Dataset

CORES = ("iterative", "single", "none")
EXPORTS = ("recbole",)
EXAMPLES = examples(
    "frellm4rec data demo",
    "frellm4rec data log.csv --columns user=u,item=i --core iterative",
    "frellm4rec data demo --export recbole exported",
)


def data(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FILE",
            help="demo, lastfm, movielens:100k, … or a file.",
            autocompletion=complete_datasets,
        ),
    ],
    from_dir: FromDir = None,
    columns: Columns = None,
    core: Annotated[
        str | None,
        typer.Option(
            help="5-core filter: iterative, single (one pass, as the paper's code makes it) or none. Left out: "
            "iterative for lastfm, movielens and amazon, none for files.",
            rich_help_panel=DATA,
        ),
    ] = None,
    export: Annotated[
        tuple[str, Path] | None,
        typer.Option(metavar="FORMAT DIR", help="Write the data set: --export recbole DIR.", rich_help_panel=RUN),
    ] = None,
    export_items: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write the items in their order, as CSV: position, item_id, title.",
            rich_help_panel=RUN,
        ),
    ] = None,
) -> None:
    """Print how many users, items and interactions every filter leaves, beside the paper's Table 1."""
    if core is not None:
        check_choice("--core", core, CORES)
    if export is not None and export[0] not in EXPORTS:
        raise ConfigError(
            f"--export writes {', '.join(EXPORTS)}; got {export[0]!r}.{did_you_mean(export[0], EXPORTS)} Write for "
            "example --export recbole DIR."
        )
    with working(lines=False), _without_warnings():  # they are printed with the counts
        from frellm4rec.data.counts import format_report, report_of
        from frellm4rec.data.recbole import write_recbole
        from frellm4rec.items.export import write_items
        from spectral_probe.plugins.datasets import with_columns

        stage(f"data {name}")
        dataset = _load(with_columns(name, columns), from_dir, core)
        report = report_of(dataset)
        written = [] if export is None else [write_recbole(dataset, export[1].expanduser())]
        if export_items is not None:
            written.append(write_items(dataset, export_items.expanduser()))
    say_wrapped(format_report(report))
    for path in written:
        say_wrapped(f"written: {path}")


@contextmanager
def _without_warnings() -> Iterator[None]:
    logger = logging.getLogger("frellm4rec")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _load(name: str, from_dir: Path | None, core: str | None) -> Dataset:
    """Return a data set after the filter asked for, or after its own where none was."""
    from frellm4rec.data.counts import filter_core
    from frellm4rec.data.datasets import lastfm_source, movielens_source
    from frellm4rec.data.lastfm import load_lastfm
    from frellm4rec.data.movielens import load_movielens
    from spectral_probe.plugins.registry import load_plugin, plugin_names

    plugin, _, argument = name.partition(":")
    if core is not None and plugin == "amazon":
        # Amazon's filter starts from other files for another core, so it must know.
        argument = f"{argument},core={core}"
    elif core is not None and plugin == "lastfm":
        source = lastfm_source(argument or None, from_dir=from_dir)
        return load_lastfm(source, k=1 if core == "none" else 5, iterative=core == "iterative")
    elif core is not None and plugin == "movielens":
        source = movielens_source(argument or None, from_dir=from_dir)
        return load_movielens(source, argument, k=1 if core == "none" else 5, iterative=core == "iterative")
    known = plugin_names("datasets")
    if plugin in known:
        dataset: Dataset = load_plugin("datasets", plugin)(argument or None, from_dir=from_dir)
    elif Path(name).suffix or "/" in name or Path(name).is_file():
        dataset = load_plugin("datasets", "table")(name, from_dir=from_dir)
    else:
        raise ConfigError(f"Unknown data set {name!r}; known: {known}.{did_you_mean(name, known)} A file is fine too.")
    if core in (None, "none") or plugin == "amazon":
        return dataset
    return filter_core(dataset, iterative=core == "iterative")
