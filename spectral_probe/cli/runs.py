"""``spectral-probe runs``: the runs in a folder, newest first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spectral_probe.cli.completion import complete_runs
from spectral_probe.cli.flags import RUN, examples
from spectral_probe.cli.json_output import AsJson, Fields, print_json
from spectral_probe.cli.tables import print_rows
from spectral_probe.cli.terminal import say_wrapped
from spectral_probe.errors import DataError, check_choice
from spectral_probe.runs.references import ANALYSIS, COMPARISON, ROOT, TRAINING, reference, runs_in

if TYPE_CHECKING:
    from spectral_probe.runs.references import RunEntry

EXAMPLES = examples(
    "spectral-probe runs", "spectral-probe runs --name base", "spectral-probe runs --fields run,verdict"
)


def runs(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder with runs.")] = ROOT,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="Only runs whose name, model, data or folder has this text.",
            rich_help_panel=RUN,
            autocompletion=complete_runs(),
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            metavar="KIND", help="Only runs of this kind: analysis, comparison, training.", rich_help_panel=RUN
        ),
    ] = None,
    as_json: AsJson = False,
    fields: Fields = None,
) -> None:
    """List runs, newest first: when, model, data, users, verdict.

    Every command takes a run by its folder, by the beginning of its folder's name, by its --name, or by counting the
    runs of the kind that it reads: @last, @-2, ….
    """
    _check_folder(folder := folder.expanduser())
    counted: dict[str, int] = {}
    rows = []
    entries = runs_in(folder)
    known = sorted({ANALYSIS, COMPARISON, TRAINING, *(entry.kind for entry in entries)})
    if kind is not None:
        check_choice("--kind", kind, known)
    for entry in entries:
        position = counted.get(entry.kind, 0)
        counted[entry.kind] = position + 1
        row = describe(entry, reference(position))
        texts = (entry.name, entry.path.name, entry.model, entry.dataset)
        if (kind is None or entry.kind == kind) and (name is None or any(name.lower() in t.lower() for t in texts)):
            rows.append(row)
    if as_json or fields:
        print_json(rows, fields)
    elif not rows:
        what = " that match" if counted else ""
        say_wrapped(f"{folder} holds no runs{what}. `spectral-probe analyze` makes one in runs/.")
    else:
        columns = {"ref": "ref", "when": "when (UTC)", "kind": "kind", "name": "name", "model": "model"}
        columns |= {"dataset": "data", "n_users": "n", "verdict": "verdict", "run": "run"}
        shown = [name for name in columns if any(row[name] not in ("", None) for row in rows)]
        rows = [row | {"model": _short(row["model"]), "dataset": _short(row["dataset"])} for row in rows]
        cells = [{columns[name]: "" if row[name] is None else str(row[name]) for name in shown} for row in rows]
        print_rows(cells, numbers=("n",), least=("run", "kind"))


def _check_folder(folder: Path) -> None:
    """Raise DataError for what can hold no runs; ``runs/`` may be missing, as it is before the first run."""
    what = ""
    if (folder / "run.json").exists():
        what = "is a run itself. Open report.html in it, or name the folder that holds it"
    elif folder.exists() and not folder.is_dir():
        what = "is a file. Name a folder with runs"
    elif not folder.exists() and folder != ROOT:
        what = "does not exist. Name a folder with runs"
    if what:
        raise DataError(f"{folder} {what}.")


def describe(entry: RunEntry, ref: str) -> dict[str, Any]:
    """Return what a list says of a run."""
    result, n_users = entry.state.get("result"), entry.state.get("n_users")
    if entry.kind == ANALYSIS and result is None:
        result, n_users = _of_older_version(entry)
    status = str(entry.state.get("status"))
    return {
        "ref": ref,
        "when": entry.when,
        "kind": entry.kind,
        "name": entry.name,
        "model": entry.model,
        "dataset": entry.dataset,
        "n_users": n_users,
        "verdict": (result or "") if status == "finished" else status,
        "status": status,
        "run": entry.path.name,
        "path": str(entry.path),
    }


def _short(name: str) -> str:
    """Return the last part of a path, and any other name as it is."""
    return Path(name).name if "/" in name else name


def _of_older_version(entry: RunEntry) -> tuple[str, int | None]:
    """Return verdict and users of a run whose ``run.json`` has neither, from its summary."""
    from spectral_probe.profiles.profile import DecayProfile
    from spectral_probe.report.words import verdict_in_short

    try:
        profile = DecayProfile.load(entry.path)
    except (DataError, OSError):
        return "", None
    return verdict_in_short(profile), profile.n_users
