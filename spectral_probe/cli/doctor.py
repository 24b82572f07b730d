"""``spectral-probe doctor``: what this installation can do."""

from __future__ import annotations

from typing import Annotated

import typer

from spectral_probe.cli.flags import RUN, examples
from spectral_probe.cli.json_output import AsJson, Fields
from spectral_probe.cli.status import working
from spectral_probe.cli.tables import print_records
from spectral_probe.progress import stage

EXAMPLES = examples(
    "spectral-probe doctor", "spectral-probe doctor --quick", "spectral-probe doctor --fields name,status"
)


def doctor(
    quick: Annotated[
        bool, typer.Option("--quick", help="Leave out the self-test, which takes some seconds.", rich_help_panel=RUN)
    ] = False,
    as_json: AsJson = False,
    fields: Fields = None,
) -> None:
    """Say what this installation can do: versions, device, caches, hub, plug-ins, and a self-test."""
    with working(lines=False):
        from spectral_probe.doctor.machine import diagnose, self_test

        stage("checks")
        checks = diagnose()
        if not quick:
            stage("self-test")
            checks = [*checks, *self_test()]
    print_records([check.to_dict() for check in checks], as_json, fields)
    if any(check.status == "fail" for check in checks):
        raise typer.Exit(1)
