"""The command ``spectral-probe``. Nothing heavy is imported before a command runs."""

from __future__ import annotations

from spectral_probe.cli.analyze import analyze
from spectral_probe.cli.app import new_app, run_command
from spectral_probe.cli.compare import compare
from spectral_probe.cli.doctor import doctor
from spectral_probe.cli.listing import datasets, models
from spectral_probe.cli.report import report

app = new_app(
    "spectral-probe", "What do the layers of a model carry of taste and of popularity? Measured with exact nulls."
)
for command in (analyze, compare, report, models, datasets, doctor):
    app.command()(command)


def main() -> None:
    """Run the command line; every expected failure ends with its documented exit code and no traceback."""
    run_command(
        app,
        interrupted="finished shards and a training's last checkpoint are kept; --resume goes on.",
    )


if __name__ == "__main__":
    main()
