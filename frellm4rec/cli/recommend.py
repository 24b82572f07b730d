"""``frellm4rec recommend``: the next items for known users, or for a history given on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spectral_probe.cli.flags import Columns
from spectral_probe.cli.terminal import say
from spectral_probe.errors import ConfigError

if TYPE_CHECKING:
    from frellm4rec.runs.recommendation import Recommendation
    from spectral_probe.interactions.dataset import Dataset

#: Items of the history that are shown.
N_SHOWN = 5


def recommend(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Training run, or folder of a saved model.")],
    user: Annotated[list[str] | None, typer.Option(help="Id of a user in the data set; may be repeated.")] = None,
    history: Annotated[
        str | None,
        typer.Option(
            metavar='"ITEM,ITEM,…"',
            help="Ids or titles, oldest first; a title with a comma stands in double quotes.",
        ),
    ] = None,
    k: Annotated[int, typer.Option(help="How many items.")] = 10,
    include_seen: Annotated[bool, typer.Option(help="Recommend items of the history, too.")] = False,
    dataset: Annotated[
        str | None, typer.Option(help="Data set of a saved model; of a run, where its data are now.")
    ] = None,
    from_dir: Annotated[Path | None, typer.Option(help="Folder or zip with the raw files.")] = None,
    columns: Columns = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as JSON.")] = False,
) -> None:
    """Print the items that a model ranks first after a history, with titles and scores."""
    if bool(user) == (history is not None):
        raise ConfigError("Recommendations are for users or for one history. Give --user ID or --history ITEM,ITEM.")
    from frellm4rec.runs.recommendation import describe, find_user, parse_history
    from frellm4rec.runs.recommendation import recommend as rank
    from frellm4rec.runs.trained import open_trained

    trained = open_trained(run, dataset=dataset, from_dir=from_dir, columns=columns, device=device)
    data = trained.dataset
    histories = (
        {"history": parse_history(data, history)}
        if history is not None
        else {f"user {name}": data.sequences[find_user(data, name)] for name in dict.fromkeys(user or ())}
    )
    ranked_lists = {
        name: rank(trained.model, items, k=k, include_seen=include_seen) for name, items in histories.items()
    }
    if as_json:
        content = [{"for": name, **describe(ranked, data)} for name, ranked in ranked_lists.items()]
        typer.echo(json.dumps(content, indent=2))
        return
    for name, ranked in ranked_lists.items():
        _print(name, ranked, data)


def _print(name: str, ranked: Recommendation, dataset: Dataset) -> None:
    from frellm4rec.runs.recommendation import titles_of
    from spectral_probe.cli.tables import print_rows

    last = ranked.history[-N_SHOWN:]
    shown = [
        f"{dataset.item_ids[item]}{f' ({title})' if title else ''}"
        for item, title in zip(last, titles_of(dataset, last), strict=True)
    ]
    read = f"; the model reads the last {ranked.n_read} of them" if ranked.is_truncated else ""
    say(f"{name}: {len(ranked.history)} items{read}. Last: {'; '.join(shown)}")
    print_rows(
        [
            {"rank": str(row["rank"]), "item": row["item_id"], "title": row["title"], "score": f"{row['score']:.4f}"}
            for row in ranked.to_frame(dataset).to_dict("records")
        ]
    )
