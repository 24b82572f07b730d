"""Flags from a table: each is written once and becomes an option of a command."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import typer

Command = TypeVar("Command", bound=Callable[..., None])


@dataclass(frozen=True)
class Flag:
    """One option of a command that sets one setting.

    Attributes
    ----------
    name : str
        Name of the parameter; the flag is ``--name`` with hyphens.
    kind : type
        ``str``, ``int``, ``float``, ``Path``, or ``bool`` for a switch without a value.
    help : str
    setting : str
        What the flag sets; left out: ``name``.
    names : tuple of str
        The flag as it is typed, where it is not ``--name``.
    convert : callable, optional
        From the value that was typed to the value of the setting.
    """

    name: str
    kind: type
    help: str
    setting: str = ""
    names: tuple[str, ...] = ()
    convert: Callable[[Any], Any] | None = None

    def parameter(self) -> inspect.Parameter:
        """Return the parameter that typer makes the option from."""
        # A switch names itself, or typer would add its opposite, --no-name.
        names = self.names or ((f"--{self.name.replace('_', '-')}",) if self.kind is bool else ())
        option = typer.Option(*names, help=self.help)
        is_switch = self.kind is bool
        annotation: Any = Annotated[self.kind if is_switch else self.kind | None, option]
        default = False if is_switch else None
        return inspect.Parameter(self.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def with_flags(flags: Sequence[Flag], *, before: str) -> Callable[[Command], Command]:
    """Give a command that takes ``**options`` the flags of a table, listed in its help before one of its parameters."""

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command, eval_str=True)
        parameters: list[inspect.Parameter] = []
        for parameter in signature.parameters.values():
            if parameter.name == before:
                parameters += [flag.parameter() for flag in flags]
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD:
                parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
        command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return command

    return decorate


def given(flags: Iterable[Flag], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``{setting: value}`` of the flags that were given; a switch that is off was not."""
    values = {}
    for flag in flags:
        value = options[flag.name]
        if value is not None and value is not False:
            values[flag.setting or flag.name] = value if flag.convert is None else flag.convert(value)
    return values


def _figure_width(value: int) -> int:
    from spectral_probe.figure_style import check_width

    return check_width(value)


#: The option of every command that draws figures.
FigureWidth = Annotated[
    int,
    typer.Option(
        metavar="85|178", help="Width of the figures in mm: one column of a paper, or both.", callback=_figure_width
    ),
]
#: The option of every command that reads a data set.
Columns = Annotated[
    str | None,
    typer.Option(
        "--columns",
        metavar="user=…,item=…",
        help="Columns of a file by name, also time= and title=; by position where it has no header.",
    ),
]


def split(text: str) -> list[str]:
    """Return the parts of a comma-separated list."""
    return [part.strip() for part in text.split(",") if part.strip()]
