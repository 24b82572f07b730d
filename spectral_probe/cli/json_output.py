"""JSON on standard output: all of a result, or chosen fields of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from spectral_probe.errors import ConfigError, did_you_mean
from spectral_probe.storage.plain_text import without_nan

#: The panel of these options in the help of every command.
PANEL = "Run"


def _not_empty(fields: str | None) -> str | None:
    """Refuse ``--fields`` without a name before a command begins its work."""
    if fields is not None and not _names(fields):
        raise ConfigError(f"--fields needs the name of a field or more; got {fields!r}. --json prints all of them.")
    return fields


def _names(fields: str | None) -> list[str]:
    return [name.strip() for name in (fields or "").split(",") if name.strip()]


AsJson = Annotated[
    bool, typer.Option("--json", help="Print the result as JSON.", show_default=False, rich_help_panel=PANEL)
]
Fields = Annotated[
    str | None,
    typer.Option(
        "--fields",
        metavar="A,B.C",
        callback=_not_empty,
        help="Print only these fields, as JSON; B.C is field C of B.",
        rich_help_panel=PANEL,
    ),
]


def check_fields(fields: str | None, known: Iterable[str]) -> None:
    """Refuse a field that a result will not have, before the work; of ``B.C`` only B is known by then.

    Parameters
    ----------
    fields : str, optional
        As :func:`print_json` takes it.
    known : iterable of str
        The fields of the result, without those in them.

    Raises
    ------
    ConfigError
    """
    known = list(known)
    for name in _names(fields):
        if name.partition(".")[0] not in known:
            raise _unknown(name, known)


def print_json(content: Any, fields: str | None = None, *, finished: Sequence[Path] = ()) -> None:
    """Print a result as JSON.

    Parameters
    ----------
    content : object
        Of dicts, lists, texts and numbers.
    fields : str, optional
        Comma-separated names of the fields that are printed, of each entry where the result is a list.
    finished : sequence of Path
        The runs that the result is of; an error names them.

    Raises
    ------
    ConfigError
        If no entry has a field.
    """
    names = _names(fields)
    try:
        shown = chosen(content, names) if names else content
    except ConfigError as error:
        if not finished:
            raise
        runs, are = ("run", "is") if len(finished) == 1 else ("runs", "are")
        raise ConfigError(
            f"{error} The {runs} {are} finished: {', '.join(map(str, finished))}. report.html in the folder of a run "
            "shows it; `spectral-probe runs` lists every run."
        ) from error
    typer.echo(json.dumps(without_nan(shown), indent=2, default=str, allow_nan=False))


def chosen(content: Any, names: Iterable[str]) -> Any:
    """Return these fields of a result, with their dotted names; of each entry where it is a list."""
    names = list(names)
    entries = content if isinstance(content, list) else [content]
    flat = [_flat(entry) for entry in entries]
    for name in names:
        if flat and not any(name in entry for entry in flat):
            raise _unknown(name, sorted({key for entry in flat for key in entry}))
    picked = [{name: entry.get(name) for name in names} for entry in flat]
    return picked if isinstance(content, list) else picked[0]


def _unknown(name: str, known: Sequence[str]) -> ConfigError:
    top = [key for key in known if not any(key.startswith(f"{other}.") for other in known)]
    has = ", ".join(top)
    return ConfigError(f"--fields has no field {name!r}; the result has {has}.{did_you_mean(name, known)}")


def _flat(entry: Any, prefix: str = "") -> dict[str, Any]:
    """Return every field of an entry, and of the dicts in it, by dotted name."""
    fields: dict[str, Any] = {}
    for name, value in entry.items() if isinstance(entry, dict) else ():
        fields[f"{prefix}{name}"] = value
        fields |= _flat(value, f"{prefix}{name}.")
    return fields
