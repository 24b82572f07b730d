"""``spectral-probe doctor``: what this installation can do."""

from __future__ import annotations

from typing import Annotated

import typer

from spectral_probe.cli.tables import print_records


def doctor(
    quick: Annotated[bool, typer.Option("--quick", help="Leave out the self-test, which takes some seconds.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Say what this installation can do: versions, device, caches, hub, plug-ins, and a self-test."""
    from spectral_probe.doctor.machine import diagnose, self_test

    checks = [*diagnose(), *([] if quick else self_test())]
    print_records([check.to_dict() for check in checks], as_json)
    if any(check.status == "fail" for check in checks):
        raise typer.Exit(1)
