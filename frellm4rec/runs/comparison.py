"""Compare groups of runs with the first group on each data set; runs of a group differ in their seed only."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from frellm4rec.evaluation.evaluator import Evaluation
from frellm4rec.evaluation.significance import holm, paired_bootstrap
from spectral_probe.errors import ConfigError, DataError, did_you_mean

Metric = Literal["ndcg", "recall"]
METRICS = ("ndcg", "recall")
#: Settings that do not separate groups: seed, name, data set and device.
IGNORED_WHEN_GROUPING = ("seed", "name", "dataset", "dataset_fingerprint", "from_dir", "device")
#: With fewer seeds, a note warns that the spread over seeds is unreliable.
MIN_SEEDS = 3


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
        n_users, reference, difference, low, high, p_value, p_holm; NaN from ``difference`` on for the reference.
    metric : str
    protocols : list of str
        Evaluation protocol of each data set, one line each.
    n_tests : int
        Size of the family of Holm's correction: all tests of the table.
    notes : list of str
        Remarks needed to read the table.
    """

    table: pd.DataFrame
    metric: str
    protocols: list[str]
    n_tests: int
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
        Of the resampling, see :func:`paired_bootstrap`.

    Raises
    ------
    ConfigError
        If there is only one group, a group has a seed twice, or a data set lacks the reference.
    DataError
        If runs on one data set were evaluated by different protocols, candidates or users.
    """
    if metric not in METRICS:
        raise ConfigError(f"metric must be one of {list(METRICS)}; got {metric!r}.{did_you_mean(metric, METRICS)}")
    check_groups([result.config for result in results])
    groups = group_runs(results)
    firsts = [members[0] for members in groups.values()]
    names = group_labels([first.config for first in firsts], [first.name for first in firsts])
    labels = dict(zip(groups, names, strict=True))
    reference = next(iter(groups))
    datasets = list(dict.fromkeys(result.evaluation.fingerprint for result in results))
    rows: list[dict[str, Any]] = []
    for fingerprint in datasets:
        present_groups = {
            key: present
            for key, members in groups.items()
            if (present := [member for member in members if member.evaluation.fingerprint == fingerprint])
        }
        check_protocol([member for members in present_groups.values() for member in members])
        name = next(iter(present_groups.values()))[0].evaluation.dataset
        if reference not in present_groups or len(present_groups) < 2:
            raise ConfigError(
                f"{name} {fingerprint[:8]} needs runs of the reference ({labels[reference]}) and of another group; "
                f"got runs of {[labels[key] for key in present_groups]}. Add the missing runs or leave it out."
            )
        base = per_user(present_groups[reference], metric)
        for key, members in present_groups.items():
            difference = paired_bootstrap(per_user(members, metric), base, n_bootstrap=n_bootstrap, seed=seed)
            values = difference.to_dict()
            row = {
                "dataset": name,
                "group": labels[key],
                "metric": metric,
                **{column: values[column] for column in ("n_seeds", "mean", "std", "n_users")},
                "reference": labels[reference],
            }
            if key != reference:
                row |= {column: values[column] for column in ("difference", "low", "high", "p_value")}
            rows.append(row)
    columns = ["difference", "low", "high", "p_value", "p_holm"]
    table = pd.DataFrame(rows).reindex(columns=[*(c for c in rows[0] if c not in columns), *columns])
    is_tested = table["p_value"].notna()
    table.loc[is_tested, "p_holm"] = holm(table.loc[is_tested, "p_value"])
    protocols = list(dict.fromkeys(result.evaluation.rule for result in results))
    notes = _notes(table, n_bootstrap=n_bootstrap, seed=seed, n_datasets=len(datasets))
    run_notes = [(labels[key], run.evaluation.note) for key, members in groups.items() for run in members]
    notes += [f"{label}: {note}" for label, note in dict.fromkeys(run_notes) if note]
    return RunComparison(table, metric, protocols, int(is_tested.sum()), notes)


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
    return labels


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


def per_user(results: Sequence[RunResult], metric: Metric) -> npt.NDArray[np.float64]:
    """Return the metric of every run and user, (n_seeds, n_users)."""
    return np.stack([getattr(result.evaluation, metric) for result in results])


def _settings(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings that separate groups: nested names joined by dots, values as text."""
    flat: dict[str, str] = {}

    def walk(values: Mapping[str, Any], prefix: str) -> None:
        for key, value in values.items():
            if isinstance(value, Mapping):
                walk(value, f"{prefix}{key}.")
            else:
                flat[f"{prefix}{key}"] = str(value)

    walk({key: value for key, value in config.items() if key not in IGNORED_WHEN_GROUPING}, "")
    return flat


def _notes(table: pd.DataFrame, *, n_bootstrap: int, seed: int, n_datasets: int) -> list[str]:
    n_tests = int(table["p_value"].notna().sum())
    family = f"{n_tests} tests: {n_datasets} data sets" if n_datasets > 1 else f"{n_tests} tests on one data set"
    notes = [
        f"difference: paired percentile bootstrap over users ({n_bootstrap} resamples, seed {seed}) of per-user values "
        "averaged over seeds; 95 % interval; p two-sided",
        f"p Holm: corrected over all tests of this table ({family})"
        if n_tests > 1
        else "p Holm: one test, so p itself",
    ]
    few = table[table["n_seeds"] < MIN_SEEDS]
    if len(few):
        rows = "; ".join(f"{row.group} on {row.dataset}: {row.n_seeds}" for row in few.itertuples())
        notes.append(f"fewer than {MIN_SEEDS} seeds ({rows}): the interval covers other users, not other trainings")
    return notes
