"""Base and FreLLM4Rec probed again: collect comparisons into ``figures/<dataset>/reprobe/``.

::

    spectral-probe analyze --model BASE_TRAINING --model FULL_TRAINING --preset paper --out RUNS
    spectral-probe compare BASE FULL --out RUNS
    python -m benchmarks.pages.results --reprobe COMPARISON [COMPARISON ...]

A comparison is filed under what its models were trained with, such as ``stories260K-causal``: ``run.json`` leads from
it to its analyses and from those to the training runs. :mod:`~benchmarks.pages.reprobe_page` writes the section.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from frellm4rec.experiments.grid import short_name
from spectral_probe.errors import ConfigError, DataError
from spectral_probe.plugins.saved_models import open_training_run
from spectral_probe.runs.analysis_run import AnalysisRun
from spectral_probe.storage.atomic import write_text

#: Settings of training and of probing that the page shows of each model.
TRAINED = ("inputs", "alpha", "cutoff", "tfm_order")
PROBED = ("sequence", "max_length", "min_targets", "tau", "n_references", "n_bootstrap", "seed")


def collect(comparisons: Sequence[Path], folder: Path) -> list[Path]:
    """Copy figures, numbers and training settings of comparisons; return one folder for each.

    Raises
    ------
    ConfigError
        If the models of a comparison differ in backbone, mode or seed, or two comparisons have one folder.
    DataError
        If the training runs of a comparison cannot be found, or it lacks the published share.
    """
    comparison_of: dict[str, tuple[AnalysisRun, dict[str, Any]]] = {}
    for path in comparisons:
        comparison = AnalysisRun.open(path)
        settings = _settings(comparison)
        label = "-".join([settings["backbone"], settings["mode"], *([f"seed{s}"] if (s := settings["seed"]) else [])])
        if label in comparison_of:
            raise ConfigError(f"{comparison_of[label][0].path} and {path} are both of {label}. Give one of them.")
        comparison_of[label] = comparison, settings
    folders = []
    for label, (comparison, settings) in comparison_of.items():
        target = folder / label
        target.mkdir(parents=True, exist_ok=True)
        for name in ("comparison.png", "comparison.pdf", "comparison.csv"):
            shutil.copyfile(comparison.path / "figures" / name, target / name)
        for name, values in (("comparison.json", _results(comparison)), ("settings.json", settings)):
            write_text(target / name, json.dumps(values, indent=2))
        (target / "published.csv").unlink(missing_ok=True)  # of the first version, whose comparisons lacked this share
        folders.append(target)
    return folders


def _results(comparison: AnalysisRun) -> list[dict[str, Any]]:
    """Return the entries of ``comparison.json``, with the published share in all of them."""
    results: list[dict[str, Any]] = json.loads((comparison.path / "comparison.json").read_text(encoding="utf-8"))
    if not all(result.get("published", {}).get("changes") for result in results):
        raise DataError(
            f"{comparison.path} lacks the published share. Analyse its models with --preset paper, then compare again."
        )
    return results


def _settings(comparison: AnalysisRun) -> dict[str, Any]:
    """Return the settings that the models of a comparison were trained and probed with."""
    runs = comparison.compared_runs()  # first, because it refuses a folder of another kind
    protocols = comparison.config()["compared"]
    results = _results(comparison)
    names = [results[0]["base"], *(result["other"] for result in results)]
    models, common = [], set()
    for name, run, protocol in zip(names, runs, protocols, strict=True):
        model = run.grams_run().request()["model"]
        training = open_training_run(model)
        if training is None:
            raise DataError(f"{run.path} was made of {model}, which is not a training run. Analyse a trained model.")
        config = training.config()
        architecture = config["architecture"]
        common.add((short_name(architecture["backbone"]), architecture["mode"], config["seed"]))
        trained_on = config["dataset_fingerprint"]
        shown = {field: architecture[field] for field in TRAINED}
        models.append({"name": name, **shown, "prefix_by_prefix": bool(protocol["prefix_by_prefix"])})
    if len(common) > 1:
        raise ConfigError(f"Models of one comparison have one backbone, mode and seed; {comparison.path} has {common}.")
    backbone, mode, seed = common.pop()
    values = {**protocols[0]["options"], **protocols[0]}
    return {
        "backbone": backbone.replace("/", "-"),
        "mode": mode,
        "seed": seed,
        "dataset": values["dataset"],
        "trained_on": trained_on,
        "models": models,
        "probed": {name: values[name] for name in PROBED},
        "versions": comparison.state()["versions"],
    }
