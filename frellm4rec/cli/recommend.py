"""``frellm4rec recommend``: the next items for known users, or for a history given on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from frellm4rec.cli.measures import Cut, SavedDataset
from spectral_probe.cli.completion import complete_runs
from spectral_probe.cli.flags import MEASURE, Columns, Device, FromDir, examples
from spectral_probe.cli.json_output import AsJson, Fields, print_json
from spectral_probe.cli.status import working
from spectral_probe.cli.terminal import say_wrapped
from spectral_probe.errors import ConfigError
from spectral_probe.progress import stage
from spectral_probe.runs.references import TRAINING, resolve_run

if TYPE_CHECKING:
    from frellm4rec.runs.recommendation import Recommendation
    from spectral_probe.interactions.dataset import Dataset

#: Items of the history that are shown.
N_SHOWN = 5
RunArgument = Annotated[
    Path,
    typer.Argument(
        metavar="RUN", help="Training run, or folder of a saved model.", autocompletion=complete_runs("training")
    ),
]
UserOption = Annotated[
    list[str] | None,
    typer.Option(metavar="ID", help="A user of the data set; repeatable.", rich_help_panel=MEASURE),
]
HistoryOption = Annotated[
    str | None,
    typer.Option(
        metavar="ITEM,…",
        help="Ids or titles, oldest first; a title with a comma stands in double quotes.",
        rich_help_panel=MEASURE,
    ),
]
IncludeSeenOption = Annotated[
    bool,
    typer.Option(
        "--include-seen", help="Recommend items of the history, too.", rich_help_panel=MEASURE, show_default=False
    ),
]
EXAMPLES = examples(
    "frellm4rec recommend @last --user u0001",
    "frellm4rec recommend @last --user u0001 --user u0002 --k 5",
    "frellm4rec recommend full --history i0001,i0002 --json",
)


def recommend(
    run: RunArgument,
    user: UserOption = None,
    history: HistoryOption = None,
    k: Cut = 10,
    include_seen: IncludeSeenOption = False,
    dataset: SavedDataset = None,
    from_dir: FromDir = None,
    columns: Columns = None,
    device: Device = "auto",
    as_json: AsJson = False,
    fields: Fields = None,
) -> None:
    """Print the items that a model ranks first after a history, with titles and scores."""
    if bool(user) == (history is not None):
        raise ConfigError("Recommendations are for users or for one history. Give --user ID or --history ITEM,ITEM.")
    run = resolve_run(run, (TRAINING,))
    with working(lines=False):
        from frellm4rec.runs.recommendation import describe, find_user, parse_history
        from frellm4rec.runs.recommendation import recommend as rank
        from frellm4rec.runs.trained import open_trained

        stage(f"model {run.name}")
        trained = open_trained(run, dataset=dataset, from_dir=from_dir, columns=columns, device=device)
        data = trained.dataset
        histories = (
            {"history": parse_history(data, history)}
            if history is not None
            else {f"user {name}": data.sequences[find_user(data, name)] for name in dict.fromkeys(user or ())}
        )
        stage("ranking")
        ranked_lists = {
            name: rank(trained.model, items, k=k, include_seen=include_seen) for name, items in histories.items()
        }
    if as_json or fields:
        print_json([{"for": name, **describe(ranked, data)} for name, ranked in ranked_lists.items()], fields)
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
    say_wrapped(f"{name}: {len(ranked.history)} items{read}. Last: {'; '.join(shown)}")
    print_rows(
        [
            {"rank": str(row["rank"]), "item": row["item_id"], "title": row["title"], "score": f"{row['score']:.4f}"}
            for row in ranked.to_frame(dataset).to_dict("records")
        ],
        numbers=("rank", "score"),
    )
