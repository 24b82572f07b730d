"""How a run was made: the command line that makes it again, and the options that differ from their defaults."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from spectral_probe.analysis.options import AnalysisOptions
from spectral_probe.analysis.saved_options import saved_config
from spectral_probe.errors import ConfigError, DataError
from spectral_probe.report.origin import Origin
from spectral_probe.runs.analysis_run import AnalysisRun

#: Options of programs alone: the command line has no flag for them.
WITHOUT_FLAG = ("prefixes", "n_bootstrap", "n_references", "whole_tau")


def origin_of(run: AnalysisRun) -> Origin | None:
    """Return how an analysis was made; None for a comparison, or if its configuration cannot be read."""
    try:
        options = AnalysisOptions.from_saved(dict(saved_config(run)["options"])).to_dict()
        source = run.state().get("grams_from")
        before = AnalysisOptions() if source is None else AnalysisOptions.from_saved(_source_options(run))
    except (ConfigError, DataError, KeyError):
        return None
    changed = _changed(options, AnalysisOptions().to_dict())
    return Origin(_command(run.state(), source, _changed(options, before.to_dict())), changed)


def _source_options(run: AnalysisRun) -> dict[str, Any]:
    return dict(saved_config(run.grams_run())["options"])


def _changed(options: dict[str, Any], before: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {name: (value, before[name]) for name, value in options.items() if value != before[name]}


def _command(state: dict[str, Any], source: str | None, changed: dict[str, tuple[Any, Any]]) -> str:
    """Return the command, or the call where the command line cannot say it."""
    values = {name: value for name, (value, _) in changed.items()}
    request = state.get("request")
    what = ["model", "dataset"] if request is None else [repr(request["model"]), repr(request["dataset"])]
    if (source is None and request is None) or any(name in WITHOUT_FLAG for name in values):
        if source is not None:
            return f"spectral_probe.analysis.reanalysis.reanalyze(Path({source.rpartition('/')[2]!r}), {values!r})"
        given = [*what, *(f"{name}={value!r}" for name, value in values.items())]
        return f"spectral_probe.analyze({', '.join(given)})"
    parts = ["spectral-probe", "analyze"]
    if source is not None:
        parts.append(source.rpartition("/")[2])
    elif request is not None:
        parts += ["--model", request["model"], "--dataset", request["dataset"]]
        parts += ["--from-dir", request["from_dir"]] if request.get("from_dir") else []
    return shlex.join([*parts, *flags_of(values)])


def flags_of(values: Mapping[str, Any]) -> list[str]:
    """Return the parts of a command line that set options."""
    parts: list[str] = []
    for name, value in values.items():
        flag = f"--{name.replace('_', '-')}"
        parts += [flag] if value is True else [flag, ",".join(value) if isinstance(value, list) else str(value)]
    return parts
