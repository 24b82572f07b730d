"""JSON on standard output: all of a result, or chosen fields of it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated, Any

import typer

from spectral_probe.errors import ConfigError, did_you_mean

#: The panel of these options in the help of every command.
PANEL = "Run"

AsJson = Annotated[
    bool, typer.Option("--json", help="Print the result as JSON.", show_default=False, rich_help_panel=PANEL)
]
Fields = Annotated[
    str | None,
    typer.Option(
        "--fields",
        metavar="A,B.C",
        help="Print only these fields, as JSON; B.C is field C of B.",
        rich_help_panel=PANEL,
    ),
]


def print_json(content: Any, fields: str | None = None) -> None:
    """Print a result as JSON.

    Parameters
    ----------
    content : object
        Of dicts, lists, texts and numbers.
    fields : str, optional
        Comma-separated names of the fields that are printed, of each entry where the result is a list.

    Raises
    ------
    ConfigError
        If no entry has a field.
    """
    names = [name.strip() for name in (fields or "").split(",") if name.strip()]
    typer.echo(json.dumps(chosen(content, names) if names else content, indent=2, default=str))


def chosen(content: Any, names: Iterable[str]) -> Any:
    """Return these fields of a result, with their dotted names; of each entry where it is a list."""
    names = list(names)
    entries = content if isinstance(content, list) else [content]
    flat = [_flat(entry) for entry in entries]
    for name in names:
        if flat and not any(name in entry for entry in flat):
            known = sorted({key for entry in flat for key in entry})
            raise ConfigError(
                f"--fields has no field {name!r}; the result has {', '.join(k for k in known if '.' not in k)}."
                f"{did_you_mean(name, known)}"
            )
    picked = [{name: entry.get(name) for name in names} for entry in flat]
    return picked if isinstance(content, list) else picked[0]


def _flat(entry: Any, prefix: str = "") -> dict[str, Any]:
    """Return every field of an entry, and of the dicts in it, by dotted name."""
    fields: dict[str, Any] = {}
    for name, value in entry.items() if isinstance(entry, dict) else ():
        fields[f"{prefix}{name}"] = value
        fields |= _flat(value, f"{prefix}{name}.")
    return fields
