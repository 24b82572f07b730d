"""The command ``frellm4rec``: one module of :mod:`frellm4rec.cli` for each of its commands."""

from __future__ import annotations

from frellm4rec.cli import compare, data, evaluate, experiment, export, models, rayleigh, recommend, train, tune
from spectral_probe.cli.app import add_commands, new_app, run_command

app = new_app(
    "frellm4rec", "Sequential recommendation with and without a language model: data, models, training, evaluation."
)
add_commands(
    app,
    (data.data, data.EXAMPLES),
    (models.models, models.EXAMPLES),
    (train.train, train.EXAMPLES),
    (tune.tune, tune.EXAMPLES),
    (evaluate.evaluate, evaluate.EXAMPLES),
    (recommend.recommend, recommend.EXAMPLES),
    (export.export, export.EXAMPLES),
    (compare.compare, compare.EXAMPLES),
    (experiment.experiment, experiment.EXAMPLES),
    (rayleigh.rayleigh, rayleigh.EXAMPLES),
)


def main() -> None:
    """Run the command line; every expected failure ends with its documented exit code and no traceback."""
    run_command(app, interrupted="what was finished is kept; the same command goes on, `train` with --resume.")


if __name__ == "__main__":
    main()
