"""Flags from a table: each is written once and becomes an option of a command."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

Command = TypeVar("Command", bound=Callable[..., None])

#: The groups of options in the help of a command.
MODEL, DATA, MEASURE, TRAINING, RUN = "Model", "Data", "Measure", "Training", "Run"


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
    panel : str
        The group of options that it stands in: :data:`MODEL`, :data:`DATA`, :data:`MEASURE`, :data:`TRAINING` or
        :data:`RUN`.
    default : str
        What holds where the flag is left out, as the help shows it; empty: nothing to show.
    complete : callable, optional
        Returns what a shell offers for the beginning of a value.
    metavar : str
        What stands for the value in the help; left out: the kind.
    is_repeatable : bool
        Whether the flag may be given several times; its value is then a list.
    """

    name: str
    kind: type
    help: str
    setting: str = ""
    names: tuple[str, ...] = ()
    convert: Callable[[Any], Any] | None = None
    panel: str | None = None
    default: str = ""
    complete: Callable[[str], Any] | None = None
    metavar: str | None = None
    is_repeatable: bool = False

    def parameter(self) -> inspect.Parameter:
        """Return the parameter that typer makes the option from."""
        # A switch names itself, or typer would add its opposite, --no-name.
        names = self.names or ((f"--{self.name.replace('_', '-')}",) if self.kind is bool else ())
        text = with_default(self.help, self.default)
        option = typer.Option(
            *names, help=text, metavar=self.metavar, rich_help_panel=self.panel, autocompletion=self.complete
        )
        is_switch = self.kind is bool
        if is_switch:
            option.show_default = False
        kind: Any = list[self.kind] if self.is_repeatable else self.kind  # type: ignore[name-defined]
        annotation: Any = Annotated[kind if is_switch else kind | None, option]
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
    """Return ``{setting: value}`` of the flags that were given; a switch that is off, and an empty list, was not."""
    values = {}
    for flag in flags:
        value = options[flag.name]
        if value is not None and value is not False and value != []:
            values[flag.setting or flag.name] = value if flag.convert is None else flag.convert(value)
    return values


def with_default(text: str, default: object) -> str:
    """Return the help of an option with its default, which markup must not take for a style."""
    return rf"{text} \[default: {default}]" if str(default) else text


def examples(*lines: str) -> str:
    """Return what the help of a command ends with: an example a line."""
    return "\n".join(["Examples:", *(f"$ {line}" for line in lines)])


def _figure_width(value: int) -> int:
    from spectral_probe.figure_style import check_width

    return check_width(value)


RunName = Annotated[
    str | None,
    typer.Option("--name", metavar="NAME", help="Name of the run; of several, NAME-MODEL.", rich_help_panel=RUN),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what it would take, and stop.", rich_help_panel=RUN)]
#: The option of every command that draws figures.
FigureWidth = Annotated[
    int,
    typer.Option(
        metavar="85|178",
        help="Width of the figures in mm: one column of a paper, or both.",
        callback=_figure_width,
        rich_help_panel=RUN,
    ),
]
#: Options that many commands share.
Columns = Annotated[
    str | None,
    typer.Option(
        "--columns",
        metavar="user=…,item=…",
        help="Columns of a file by name, also time= and title=; by position where it has no header.",
        rich_help_panel=DATA,
    ),
]
FromDir = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Folder or zip with the raw files of the data set.",
        rich_help_panel=DATA,
        show_default=False,
    ),
]
Device = Annotated[str, typer.Option(metavar="DEVICE", help="auto, cpu, cuda, cuda:N or mps.", rich_help_panel=RUN)]


def split(text: str) -> list[str]:
    """Return the parts of a comma-separated list."""
    return [part.strip() for part in text.split(",") if part.strip()]
