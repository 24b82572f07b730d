"""Compare groups of runs with the first group on each data set; runs of a group differ in their seed only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from frellm4rec.evaluation.contrasts import HOW, MIN_SEEDS, THESE_TRAININGS, Contrast, ModelValues, contrasts
from frellm4rec.evaluation.evaluator import Evaluation
from frellm4rec.runs.recipe import flatten_all
from spectral_probe.errors import ConfigError, DataError, check_choice

Metric = Literal["ndcg", "recall"]
METRICS = ("ndcg", "recall")
METRIC_NAMES = {"ndcg": "NDCG", "recall": "Recall"}
#: Settings that do not separate groups: seed, name, data set and device.
IGNORED_WHEN_GROUPING = ("seed", "name", "dataset", "dataset_fingerprint", "from_dir", "device")
#: Columns that the reference lacks.
CONTRAST_COLUMNS = ("difference", "low", "high", "p_value", "p_holm", "effect", "covers", "family")


@dataclass(frozen=True, eq=False)
class RunResult:
    """One run: its settings and its evaluation.

    Attributes
    ----------
    run : str
        Name of the run in messages.
    config : mapping
        Resolved settings, the seed among them.
    evaluation : Evaluation
    name : str
        Label of the run, such as ``full``; not a setting.
    """

    run: str
    config: Mapping[str, Any]
    evaluation: Evaluation
    name: str = ""


@dataclass(frozen=True, eq=False)
class RunComparison:
    """Means of every group on every data set, and their differences from the reference.

    Attributes
    ----------
    table : DataFrame
        One row per data set and group, the reference first: dataset, group, n_seeds, mean, std (over seeds, n − 1),
        n_users, reference, difference, low, high, p_value, p_holm, effect, covers, family; empty from ``difference`` on
        for the reference.
    metric : str
    protocols : list of str
        Evaluation protocol of each data set, one line each.
    family : str
        Size and name of the family of Holm's correction: all differences of the table.
    notes : list of str
        Remarks needed to read the table.
    """

    table: pd.DataFrame
    metric: str
    protocols: list[str]
    family: str
    notes: list[str]

    def to_frame(self) -> pd.DataFrame:
        """Return the table."""
        return self.table.copy()


def compare_runs(
    results: Sequence[RunResult], *, metric: Metric = "ndcg", n_bootstrap: int = 10_000, seed: int = 0
) -> RunComparison:
    """Compare groups of runs with the group of the first run, per user and over seeds.

    Parameters
    ----------
    results : sequence of RunResult
        Runs whose settings are equal except for seed and data set form one group.
    metric : {"ndcg", "recall"}
    n_bootstrap, seed : int
        Of the resampling, see :func:`contrasts`.

    Raises
    ------
    ConfigError
        If there is only one group, a group has a seed twice, or a data set lacks the reference.
    DataError
        If runs on one data set were evaluated by different protocols, candidates or users.
    """
    check_choice("metric", metric, METRICS)
    check_groups([result.config for result in results])
    groups = group_runs(results)
    firsts = [members[0] for members in groups.values()]
    names = group_labels([first.config for first in firsts], [first.name for first in firsts])
    labels = dict(zip(groups, names, strict=True))
    reference = next(iter(groups))
    datasets = list(dict.fromkeys(result.evaluation.fingerprint for result in results))
    rows: list[dict[str, Any]] = []
    pairs: list[tuple[ModelValues, ModelValues]] = []
    for fingerprint in datasets:
        members_of = {
            key: present
            for key, members in groups.items()
            if (present := [member for member in members if member.evaluation.fingerprint == fingerprint])
        }
        check_protocol([member for members in members_of.values() for member in members])
        name = next(iter(members_of.values()))[0].evaluation.dataset
        if reference not in members_of or len(members_of) < 2:
            raise ConfigError(
                f"{name} {fingerprint[:8]} needs runs of the reference ({labels[reference]}) and of another group; "
                f"got runs of {[labels[key] for key in members_of]}. Add the missing runs or leave it out."
            )
        values = {key: model_values(labels[key], members, metric) for key, members in members_of.items()}
        rows += [_mean_row(name, group, metric, labels[reference]) for group in values.values()]
        pairs += [(group, values[reference]) for key, group in values.items() if key != reference]
    family = _family([result.evaluation for result in results], metric, labels[reference])
    tested = contrasts(pairs, family, n_bootstrap=n_bootstrap, seed=seed)
    table = _with_contrasts(rows, tested)
    protocols = list(dict.fromkeys(result.evaluation.rule for result in results))
    notes = _notes(table, tested)
    run_notes = [(labels[key], run.evaluation.note) for key, members in groups.items() for run in members]
    notes += [f"{label}: {note}" for label, note in dict.fromkeys(run_notes) if note]
    return RunComparison(table, metric, protocols, tested[0].family, notes)


def group_runs(results: Iterable[RunResult]) -> dict[tuple[tuple[str, str], ...], list[RunResult]]:
    """Return the runs of each group; groups and runs keep their order.

    Raises
    ------
    ConfigError
        If two runs of a group have the same seed on the same data set.
    """
    groups: dict[tuple[tuple[str, str], ...], list[RunResult]] = {}
    run_by_seed: dict[Any, str] = {}
    for result in results:
        key = tuple(sorted(_settings(result.config).items()))
        seed_key = (key, result.evaluation.fingerprint, result.config.get("seed"))
        if seed_key in run_by_seed:
            raise ConfigError(
                f"{run_by_seed[seed_key]} and {result.run} have the same settings, data and seed "
                f"{result.config.get('seed')}; a seed counts once. Leave one out."
            )
        run_by_seed[seed_key] = result.run
        groups.setdefault(key, []).append(result)
    return groups


def check_groups(configs: Sequence[Mapping[str, Any]]) -> None:
    """Refuse runs that form a single group.

    Raises
    ------
    ConfigError
        If the runs differ in seed and data set only.
    """
    if len({tuple(sorted(_settings(config).items())) for config in configs}) < 2:
        raise ConfigError(
            f"A comparison needs two groups of runs; the {len(configs)} given differ in seed and data set only. "
            "Add runs of another model or with other settings."
        )


def group_labels(configs: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """Return model and name of each group, with the settings that differ where two groups share a name."""
    flat = [_settings(config) for config in configs]
    names = [f"{config.get('model', 'model')} {name}".strip() for config, name in zip(configs, names, strict=True)]
    labels = []
    for settings, name in zip(flat, names, strict=True):
        same_name = [other for other, other_name in zip(flat, names, strict=True) if other_name == name]
        keys = sorted({key for other in same_name for key in other})
        differing = [key for key in keys if len({other.get(key) for other in same_name}) > 1]
        labels.append(" ".join([name, *(f"{key}={settings.get(key, 'default')}" for key in differing)]))
    # A name may happen to be what the settings of another group give.
    return [
        f"{label} ({labels[: i + 1].count(label)})" if labels.count(label) > 1 else label
        for i, label in enumerate(labels)
    ]


def check_protocol(results: Sequence[RunResult]) -> None:
    """Refuse runs that were evaluated by different protocols.

    Raises
    ------
    DataError
        If data, part, k, candidates or users differ.
    """
    first = results[0]
    for other in results[1:]:
        ours, theirs = first.evaluation, other.evaluation
        names = ("fingerprint", "part", "k", "n_negatives", "candidate_seed", "candidates")
        differing = [name for name in names if getattr(ours, name) != getattr(theirs, name)]
        if differing or not np.array_equal(ours.users, theirs.users):
            raise DataError(
                f"Only runs evaluated by the same protocol can be compared. {first.run}: {ours.rule}; {other.run}: "
                f"{theirs.rule}; they differ in {', '.join(differing) or 'the users'}. Evaluate both with the same "
                "candidates."
            )


def model_values(label: str, results: Sequence[RunResult], metric: Metric) -> ModelValues:
    """Return the metric of every run and user of a group; of a model that is not trained, the only result."""
    is_trained = results[0].evaluation.is_trained
    results = results if is_trained else results[:1]
    values = np.stack([getattr(result.evaluation, metric) for result in results])
    seeds = tuple(int(result.config["seed"]) for result in results)
    return ModelValues(label, values, seeds, is_trained=is_trained)


def _settings(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings that separate groups: nested names joined by dots, values as text."""
    separating = {key: value for key, value in config.items() if key not in IGNORED_WHEN_GROUPING}
    return {name: str(value) for name, value in flatten_all(separating).items()}


def _mean_row(dataset: str, group: ModelValues, metric: Metric, reference: str) -> dict[str, Any]:
    return {
        "dataset": dataset,
        "group": group.label,
        "metric": metric,
        "n_seeds": group.n_seeds,
        "is_trained": group.is_trained,
        "mean": float(group.values.mean()),
        "std": group.std,
        "n_users": group.n_users,
        "reference": reference,
    }


def _family(evaluations: Sequence[Evaluation], metric: Metric, reference: str) -> str:
    *others, last = dict.fromkeys(evaluation.dataset for evaluation in evaluations)
    datasets = f"{', '.join(others)} and {last}" if others else last
    return f"{METRIC_NAMES[metric]}@{evaluations[0].k} from {reference} on {datasets}, {evaluations[0].ranking}"


def _with_contrasts(rows: Sequence[dict[str, Any]], tested: Sequence[Contrast]) -> pd.DataFrame:
    """Return the table: the contrasts stand in the rows that are not of the reference, in the order of both."""
    table = pd.DataFrame(rows)
    is_tested = (table["group"] != table["reference"]).to_numpy()
    columns = pd.DataFrame([contrast.to_dict() for contrast in tested], index=table.index[is_tested])
    return table.join(columns[list(CONTRAST_COLUMNS)])


def _notes(table: pd.DataFrame, tested: Sequence[Contrast]) -> list[str]:
    n_bootstrap, seed = tested[0].n_bootstrap, tested[0].seed
    kinds = list(dict.fromkeys(contrast.covers for contrast in tested))
    notes = [
        f"difference: paired by user; p two-sided, from the {n_bootstrap} resamples (seed {seed}) of the interval",
        *(f"95 % CI {HOW[kind]}" for kind in kinds if kind != THESE_TRAININGS),
    ]
    few = table[table["is_trained"] & (table["n_seeds"] < MIN_SEEDS)]
    if len(few):
        rows = "; ".join(f"{row.group} on {row.dataset}: {row.n_seeds}" for row in few.itertuples())
        notes.append(f"95 % CI {HOW[THESE_TRAININGS]}; fewer than {MIN_SEEDS} seeds ({rows})")
    family = tested[0].family
    notes.append(f"p Holm: over {family}" if len(tested) > 1 else f"p Holm: {family}, so p itself")
    return notes
