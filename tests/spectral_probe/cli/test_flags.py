"""Flags from a table: a flag that was not typed changes no setting."""

from __future__ import annotations

import re

import pytest
import typer
from typer.testing import CliRunner

from spectral_probe.cli.flags import Flag, given, split, with_flags

FLAGS = (
    Flag("width", int, "A number."),
    Flag("layers", str, "A list.", setting="model.layers", convert=split),
    Flag("compiled", bool, "A switch."),
)


@pytest.mark.parametrize(
    ("typed", "settings"),
    [
        ([], {}),
        (["--width", "0"], {"width": 0}),
        (["--compiled", "--layers", "1, 3"], {"model.layers": ["1", "3"], "compiled": True}),
    ],
)
def test_only_what_was_typed_is_given(typed, settings) -> None:
    app, seen = typer.Typer(), []

    @app.command()
    @with_flags(FLAGS, before="last")
    def command(first: int = 1, last: int = 2, **options: object) -> None:
        seen.append((first, last, given(FLAGS, options)))

    result = CliRunner().invoke(app, [*typed, "--last", "5"])
    assert result.exit_code == 0, result.output
    assert seen == [(1, 5, settings)]


def test_flags_are_listed_before_the_parameter_and_a_switch_has_no_opposite() -> None:
    app = typer.Typer(add_completion=False)

    @app.command()
    @with_flags(FLAGS, before="last")
    def command(first: int = 1, last: int = 2, **options: object) -> None:
        pass

    text = re.sub(r"\x1b\[[0-9;]*m", "", CliRunner().invoke(app, ["--help"]).output)
    assert re.findall(r"--(?!help)[a-z-]+", text) == ["--first", "--width", "--layers", "--compiled", "--last"]
