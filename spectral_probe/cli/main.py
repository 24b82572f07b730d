"""The command ``spectral-probe``. Nothing heavy is imported before a command runs."""

from __future__ import annotations

from spectral_probe.cli import analyze, compare, doctor, explain, listing, report, runs
from spectral_probe.cli.app import add_commands, new_app, run_command

app = new_app(
    "spectral-probe", "What do the layers of a model carry of taste and of popularity? Measured with exact nulls."
)
add_commands(
    app,
    (analyze.analyze, analyze.EXAMPLES),
    (compare.compare, compare.EXAMPLES),
    (report.report, report.EXAMPLES),
    (runs.runs, runs.EXAMPLES),
    (explain.explain, explain.EXAMPLES),
    (listing.models, listing.MODEL_EXAMPLES),
    (listing.datasets, listing.DATASET_EXAMPLES),
    (doctor.doctor, doctor.EXAMPLES),
)


def main() -> None:
    """Run the command line; every expected failure ends with its documented exit code and no traceback."""
    run_command(
        app,
        interrupted="finished shards and a training's last checkpoint are kept; --resume goes on.",
    )


if __name__ == "__main__":
    main()
