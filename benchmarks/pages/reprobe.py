"""Base and FreLLM4Rec probed again: collect comparisons into ``figures/<dataset>/reprobe/``.

::

    spectral-probe analyze --model BASE_TRAINING --model FULL_TRAINING --preset paper --out RUNS
    spectral-probe compare BASE FULL --out RUNS
    python -m benchmarks.pages.results --reprobe COMPARISON [COMPARISON ...]

A comparison is filed under what its models were trained with, such as ``stories260K-causal``: ``run.json`` leads from
it to its analyses and from those to the training runs. The comparison contains the corrected quantities only, so the
paired change of the published quantity is measured here from the saved Grams. :mod:`~benchmarks.pages.reprobe_page`
writes the section.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from frellm4rec.experiments.grid import short_name
from spectral_probe.analysis.measure import measure
from spectral_probe.analysis.options import MAIN, AnalysisOptions
from spectral_probe.comparison.paired import SITES
from spectral_probe.errors import ConfigError, DataError
from spectral_probe.plugins.saved_models import open_training_run
from spectral_probe.profiles.bootstrap import percentile_interval, resampled_means
from spectral_probe.runs.analysis_run import AnalysisRun
from spectral_probe.spectrum.bands import Bands
from spectral_probe.storage.atomic import write_csv, write_text

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
        If the training runs of a comparison cannot be found, or the analyses lack the published curve.
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
        names = [model["name"] for model in settings["models"]]
        table = published_changes(comparison.compared_runs(), names)
        target = folder / label
        target.mkdir(parents=True, exist_ok=True)
        for name in ("comparison.png", "comparison.pdf", "comparison.csv"):
            shutil.copyfile(comparison.path / "figures" / name, target / name)
        results = json.loads((comparison.path / "comparison.json").read_text(encoding="utf-8"))
        for name, values in (("comparison.json", results), ("settings.json", settings)):
            write_text(target / name, json.dumps(values, indent=2))
        write_csv(target / "published.csv", table, float_format="%.10g")
        folders.append(target)
    return folders


def published_changes(runs: Sequence[AnalysisRun], names: Sequence[str]) -> pd.DataFrame:
    """Return the change of the published quantity from the first run to each other run, paired over users.

    The sites are those of :data:`spectral_probe.comparison.paired.SITES`; ``last block`` is the last layer of the
    published curve, which for a language model is after the final norm.

    Raises
    ------
    DataError
        If a run lacks the published curve, or its histories differ from those of the first.
    """
    shares = [_published_shares(run) for run in runs]
    histories, base, options = shares[0]
    rows = []
    for run, name, (other_histories, other, _) in zip(runs[1:], names[1:], shares[1:], strict=True):
        if not np.array_equal(histories, other_histories):
            raise DataError(f"{runs[0].path} and {run.path} have different histories. Probe both on the same ones.")
        both = np.stack([base, other], axis=1)
        both = both[~np.isnan(both).any(axis=(1, 2))]
        resampled = resampled_means(both, n_bootstrap=options.n_bootstrap, seed=options.seed)
        values = {"base": both[:, 0], "other": both[:, 1], "difference": both[:, 1] - both[:, 0]}
        draws = {
            "base": resampled[:, 0],
            "other": resampled[:, 1],
            "difference": resampled[:, 1] - resampled[:, 0],
        }
        for s, site in enumerate(SITES):
            row: dict[str, Any] = {"base_model": names[0], "other_model": name, "place": site, "n_users": len(both)}
            for part in values:
                low, high = percentile_interval(draws[part][:, s])
                row |= {part: values[part][:, s].mean(), f"{part}_low": float(low), f"{part}_high": float(high)}
            rows.append(row)
    return pd.DataFrame(rows)


def _published_shares(run: AnalysisRun) -> tuple[np.ndarray, np.ndarray, AnalysisOptions]:
    """Return histories, lowest tenth of the published curve (n_users, 3 sites; NaN off the curve), options."""
    source = run.grams_run()
    options = AnalysisOptions.from_saved(source.config()["options"])
    captures = source.load_captures()
    if "paper" not in captures:
        raise DataError(f"{run.path} lacks the published curve. Analyse its model again with --preset paper.")
    paper, main = captures["paper"], captures[MAIN]
    profile = measure(captures, source.load_graph(), options, {})
    headline, energy = profile.energy, profile.controls["paper"].energy
    assert energy is not None
    assert headline is not None
    # The published curve is of the users of the headline.
    users = headline.is_valid if headline.split else np.ones(len(main.lengths), dtype=bool)
    rows = np.flatnonzero(np.isin(paper.users, main.users[users]))
    lowest = Bands.parse("deciles").weights(energy.eigenvalues[energy.is_valid])[..., 0]
    of_users = np.einsum("nlk,nk->nl", energy.energy[energy.is_valid], lowest) / energy.total[energy.is_valid]
    share = np.full((len(paper.lengths), energy.total.shape[1]), np.nan)
    share[rows[energy.is_valid]] = of_users
    at_sites = np.stack([share[:, 0], share[:, -1], share[:, -1] - share[:, 0]], axis=1)
    assert paper.targets is not None
    return paper.targets, at_sites, options


def _settings(comparison: AnalysisRun) -> dict[str, Any]:
    """Return the settings that the models of a comparison were trained and probed with."""
    runs = comparison.compared_runs()  # first, because it refuses a folder of another kind
    protocols = comparison.config()["compared"]
    results = json.loads((comparison.path / "comparison.json").read_text(encoding="utf-8"))
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
