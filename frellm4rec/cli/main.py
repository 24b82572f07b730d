"""The command ``frellm4rec``: one module of :mod:`frellm4rec.cli` for each of its commands."""

from __future__ import annotations

from frellm4rec.cli.compare import compare
from frellm4rec.cli.data import data
from frellm4rec.cli.evaluate import evaluate
from frellm4rec.cli.experiment import experiment
from frellm4rec.cli.export import export
from frellm4rec.cli.models import models
from frellm4rec.cli.rayleigh import rayleigh
from frellm4rec.cli.recommend import recommend
from frellm4rec.cli.train import train
from frellm4rec.cli.tune import tune
from spectral_probe.cli.app import new_app, run_command

app = new_app(
    "frellm4rec", "Sequential recommendation with and without a language model: data, models, training, evaluation."
)
for command in (data, models, train, tune, evaluate, recommend, export, compare, experiment, rayleigh):
    app.command()(command)


def main() -> None:
    """Run the command line; every expected failure ends with its documented exit code and no traceback."""
    run_command(app, interrupted="what was finished is kept; the same command goes on, `train` with --resume.")


if __name__ == "__main__":
    main()
