"""Groups of runs that differ by their seed only, compared with the first group, data set by data set."""

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
#: Settings that do not tell groups apart: the seed, a name, and where and on what a run was made.
NOT_OF_THE_MODEL = ("seed", "name", "dataset", "dataset_fingerprint", "from_dir", "device")
#: Seeds below which the spread over them says little.
ENOUGH_SEEDS = 3


@dataclass(frozen=True, eq=False)
class RunResult:
    """One run: what it was asked for, and how it did.

    Attributes
    ----------
    run : str
        What messages call it.
    config : mapping
        Resolved settings, the seed among them.
    evaluation : Evaluation
    name : str
        What the run was called, such as ``full``; a label, not a setting.
    """

    run: str
    config: Mapping[str, Any]
    evaluation: Evaluation
    name: str = ""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Means of every group on every data set, and how they differ from the reference.

    Attributes
    ----------
    table : DataFrame
        One row per data set and group, the reference first: dataset, group, n_seeds, mean, std (over seeds, n − 1),
        n_users, reference, difference, low, high, p_value, p_holm; NaN from ``difference`` on for the reference.
    metric : str
    protocols : list of str
        One line per data set: what all its numbers were measured by.
    n_tests : int
        Size of the family of Holm's correction: all tests of the table.
    notes : list of str
        What a reader must know.
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
) -> Comparison:
    """Compare groups of runs with the group of the first run, per user and over seeds.

    Parameters
    ----------
    results : sequence of RunResult
        Runs whose settings are equal but for seed and data set are one group.
    metric : {"ndcg", "recall"}
    n_bootstrap, seed : int
        Of the resampling, see :func:`paired_bootstrap`.

    Raises
    ------
    ConfigError
        If there is but one group, a group has a seed twice, or a data set lacks the reference.
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
        here = {
            key: present
            for key, members in groups.items()
            if (present := [member for member in members if member.evaluation.fingerprint == fingerprint])
        }
        check_protocol([member for members in here.values() for member in members])
        name = next(iter(here.values()))[0].evaluation.dataset
        if reference not in here or len(here) < 2:
            raise ConfigError(
                f"On {name} {fingerprint[:8]} there must be runs of the reference ({labels[reference]}) and of another "
                f"group; there are those of {[labels[key] for key in here]}. Name such runs, or leave it out."
            )
        base = per_user(here[reference], metric)
        for key, members in here.items():
            found = paired_bootstrap(per_user(members, metric), base, n_bootstrap=n_bootstrap, seed=seed).to_dict()
            row = {
                "dataset": name,
                "group": labels[key],
                "metric": metric,
                **{column: found[column] for column in ("n_seeds", "mean", "std", "n_users")},
                "reference": labels[reference],
            }
            if key != reference:
                row |= {column: found[column] for column in ("difference", "low", "high", "p_value")}
            rows.append(row)
    columns = ["difference", "low", "high", "p_value", "p_holm"]
    table = pd.DataFrame(rows).reindex(columns=[*(c for c in rows[0] if c not in columns), *columns])
    is_tested = table["p_value"].notna()
    table.loc[is_tested, "p_holm"] = holm(table.loc[is_tested, "p_value"])
    protocols = list(dict.fromkeys(result.evaluation.rule for result in results))
    notes = _notes(table, n_bootstrap=n_bootstrap, seed=seed, n_datasets=len(datasets))
    said = [(labels[key], each.evaluation.note) for key, members in groups.items() for each in members]
    notes += [f"{label}: {note}" for label, note in dict.fromkeys(said) if note]
    return Comparison(table, metric, protocols, int(is_tested.sum()), notes)


def group_runs(results: Iterable[RunResult]) -> dict[tuple[tuple[str, str], ...], list[RunResult]]:
    """Return the runs of each group, groups and runs in the order given.

    Raises
    ------
    ConfigError
        If two runs of a group have the same seed on the same data set: one run would count twice.
    """
    groups: dict[tuple[tuple[str, str], ...], list[RunResult]] = {}
    seen: dict[Any, str] = {}
    for result in results:
        key = tuple(sorted(_settings(result.config).items()))
        once = (key, result.evaluation.fingerprint, result.config.get("seed"))
        if once in seen:
            raise ConfigError(
                f"{seen[once]} and {result.run} have the same settings, data and seed {result.config.get('seed')}; a "
                "seed counts once. Leave one out."
            )
        seen[once] = result.run
        groups.setdefault(key, []).append(result)
    return groups


def check_groups(configs: Sequence[Mapping[str, Any]]) -> None:
    """Refuse runs that differ by seed and data set only: there is nothing to compare.

    Raises
    ------
    ConfigError
    """
    if len({tuple(sorted(_settings(config).items())) for config in configs}) < 2:
        raise ConfigError(
            f"A comparison needs two groups of runs; the {len(configs)} given differ by seed and data set only. "
            "Name runs of another model or of other settings, too."
        )


def group_labels(configs: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[str]:
    """Return model and name of each group; where two would be the same, with the settings that set them apart."""
    flat = [_settings(config) for config in configs]
    names = [f"{config.get('model', 'model')} {name}".strip() for config, name in zip(configs, names, strict=True)]
    labels = []
    for settings, name in zip(flat, names, strict=True):
        alike = [other for other, theirs in zip(flat, names, strict=True) if theirs == name]
        keys = sorted({key for other in alike for key in other})
        apart = [key for key in keys if len({other.get(key) for other in alike}) > 1]
        labels.append(" ".join([name, *(f"{key}={settings.get(key, 'default')}" for key in apart)]))
    return labels


def check_protocol(results: Sequence[RunResult]) -> None:
    """Refuse to compare numbers that were not measured in the same way.

    Raises
    ------
    DataError
        If part, candidates, cut or users differ.
    """
    first = results[0]
    for other in results[1:]:
        ours, theirs = first.evaluation, other.evaluation
        names = ("fingerprint", "part", "k", "n_negatives", "candidate_seed", "candidates")
        differing = [name for name in names if getattr(ours, name) != getattr(theirs, name)]
        if differing or not np.array_equal(ours.users, theirs.users):
            raise DataError(
                f"Only what was measured in the same way can be compared. {first.run}: {ours.rule}; {other.run}: "
                f"{theirs.rule}; they differ in {', '.join(differing) or 'the users'}. Evaluate both with the same "
                "candidates."
            )


def per_user(results: Sequence[RunResult], metric: Metric) -> npt.NDArray[np.float64]:
    """Return the metric of every run and user, (n_seeds, n_users)."""
    return np.stack([getattr(result.evaluation, metric) for result in results])


def _settings(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the settings that tell groups apart, nested names joined by dots, values as text."""
    flat: dict[str, str] = {}

    def walk(values: Mapping[str, Any], prefix: str) -> None:
        for key, value in values.items():
            if isinstance(value, Mapping):
                walk(value, f"{prefix}{key}.")
            else:
                flat[f"{prefix}{key}"] = str(value)

    walk({key: value for key, value in config.items() if key not in NOT_OF_THE_MODEL}, "")
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
    few = table[table["n_seeds"] < ENOUGH_SEEDS]
    if len(few):
        rows = "; ".join(f"{row.group} on {row.dataset}: {row.n_seeds}" for row in few.itertuples())
        notes.append(
            f"fewer than {ENOUGH_SEEDS} seeds ({rows}): the interval speaks of other users, not of another training"
        )
    return notes
