"""A profile on disk: ``bands.csv``, ``summary.json``, ``per_user.csv.gz``, ``spectrum.npz``, ``published.csv.gz``."""

from __future__ import annotations

import json
import math
import os
import zlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from spectral_probe.errors import DataError
from spectral_probe.profiles.bootstrap import Interval
from spectral_probe.profiles.tables import FIRST_VERSION, PUBLISHED_SHARE, TEXT_COLUMNS
from spectral_probe.profiles.verdict import Verdict
from spectral_probe.storage.atomic import write_csv, write_text
from spectral_probe.storage.plain_text import without_nan
from spectral_probe.storage.reading import check_shape, read_json, refuse_special

FORMAT = 2
#: The published share of each user, if the control ``paper`` was measured. Runs of older versions lack it.
PUBLISHED_FILE = "published.csv.gz"
ProfileT = TypeVar("ProfileT")
_VERDICT = {"label": str, "n_users?": int, "users_needed?": (int, None), "n_effective?": (float, None)} | {
    "depends_on?": [str],
    "note?": str,
}
_INTERVAL = dict.fromkeys(("value", "low", "high"), (float, None))
_SUMMARY = {"format?": int, "n_users": int, "protocol": {"tau?": (float, None)}, "caveats": [str], "profile": {}}
_FIRST_SUMMARY = {
    "skipped": {str: int},
    "profile": {"null": str, "verdict": {"label": str, "users_needed?": (int, None)}, "control_nulls": {}},
}
_SECOND_SUMMARY = {
    "verdicts": {str: _VERDICT},
    "component": str,
    "users": {"probed": int, "measured": int, "shortened": int, "skipped": {str: int}},
    "protocol": {"options?": {}, "number_format?": (str, None)},
    "paired": {str: {str: {str: _INTERVAL}}},
    "foreseen": ([{}], None),
    "profile": {
        "null": (str, None),
        "controls": {str: {"null": (str, None), "component": str, "verdicts": {str: _VERDICT}}},
    },
}


def save_profile(profile: Any, directory: str | os.PathLike[str]) -> None:
    """Write the files of a :class:`~spectral_probe.profiles.profile.DecayProfile`."""
    folder = Path(directory)
    write_csv(folder / "bands.csv", profile.to_frame())
    write_csv(folder / "per_user.csv.gz", profile.per_user, float_format="%.10g")
    if "paper" in profile.controls and PUBLISHED_SHARE in profile.controls["paper"].per_user:
        write_csv(folder / PUBLISHED_FILE, profile.controls["paper"].per_user, float_format="%.10g")
    if profile.energy is not None:
        profile.energy.save(folder / "spectrum.npz")
    state = {
        "null": profile.null,
        "controls": {
            name: {
                "null": control.null,
                "component": control.component,
                "verdicts": {key: asdict(verdict) for key, verdict in control.verdicts.items()},
            }
            for name, control in profile.controls.items()
        },
    }
    text = json.dumps(without_nan({**profile.summary(), "profile": state}), indent=2, allow_nan=False)
    write_text(folder / "summary.json", text)


def load_profile(kind: type[ProfileT], directory: str | os.PathLike[str]) -> ProfileT:
    """Read a saved profile and build it as a ``kind``, the class ``DecayProfile``; see :meth:`DecayProfile.load`."""
    folder = Path(directory)
    try:
        per_user = _read_users(folder / "per_user.csv.gz")
        refuse_special(folder / "bands.csv")
        curves = pd.read_csv(folder / "bands.csv", keep_default_na=False, na_values=[""], dtype=_text_types())
        summary = read_json(folder / "summary.json", _SUMMARY)
        is_first = "format" not in summary
        if is_first:
            tau = float(summary["protocol"].get("tau", math.nan))
            curves = curves.assign(**FIRST_VERSION, tau=tau, n_effective=curves["n_users"])
        elif summary["format"] != FORMAT:
            raise ValueError(f"format {summary['format']}; this version reads 1 and {FORMAT}")
        check_shape(summary, _FIRST_SUMMARY if is_first else _SECOND_SUMMARY)
        _check_columns(curves)
        text = [name for name in TEXT_COLUMNS if name in curves]
        curves[text] = curves[text].astype("string").fillna("")
        build = _first_version if is_first else _profile
        # Carried and foreseen nodes may be measured on other users; the headline is of one kind.
        numbers = set(per_user.groupby("nodes")["sequence"].nunique()) if "nodes" in per_user else set()
        if numbers and summary["n_users"] not in numbers:
            raise ValueError(f"per_user.csv.gz has {max(numbers)} users, and summary.json {summary['n_users']}")
        profile = build(kind, curves, per_user, summary)
        if "paper" in profile.controls and (folder / PUBLISHED_FILE).exists():
            paper = replace(profile.controls["paper"], per_user=_read_users(folder / PUBLISHED_FILE))
            profile = replace(profile, controls={**profile.controls, "paper": paper})
    except (OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, EOFError, zlib.error) as error:
        raise DataError(
            f"{folder} has no readable profile ({type(error).__name__}: {error}). "
            "Give the folder of a finished run, with its bands.csv, per_user.csv.gz and summary.json."
        ) from error
    loaded: ProfileT = profile
    return loaded


def _read_users(path: Path) -> pd.DataFrame:
    refuse_special(path)
    # Read as text: a user_id may be 007 or NA.
    return pd.read_csv(path, dtype={"user_id": "string"}, keep_default_na=False, na_values=[""])


def _check_columns(curves: pd.DataFrame) -> None:
    """Raise ValueError if a table has no rows, or text where numbers belong."""
    if curves.empty:
        raise ValueError("bands.csv has no rows")
    for name in curves.columns:
        if name not in TEXT_COLUMNS and not pd.api.types.is_numeric_dtype(curves[name]):
            raise ValueError(f"the column {name} of bands.csv must hold numbers")


def _text_types() -> dict[str, str]:
    return dict.fromkeys(TEXT_COLUMNS, "string")


def _profile(kind: Any, curves: pd.DataFrame, per_user: pd.DataFrame, summary: dict[str, Any]) -> Any:
    stored = summary["profile"]
    profile = kind(
        table=_of_control(curves, str(curves["control"].iloc[0])),
        verdicts={name: Verdict(**verdict) for name, verdict in summary["verdicts"].items()},
        embed_excess={},
        retention={},
        retention_layer="",
        component=summary["component"],
        null=stored["null"],
        n_users=summary["n_users"],
        user_counts=summary["users"],
        per_user=per_user,
        protocol=summary["protocol"],
        caveats=tuple(summary["caveats"]),
        paired={
            control: {
                component: {name: _interval(x) for name, x in values.items()} for component, values in parts.items()
            }
            for control, parts in summary["paired"].items()
        },
        foreseen=pd.DataFrame(summary["foreseen"]) if summary["foreseen"] else None,
    )
    controls = {}
    for name, state in stored["controls"].items():
        verdicts = {key: Verdict(**verdict) for key, verdict in state["verdicts"].items()}
        control = replace(
            profile, table=_of_control(curves, name), null=state["null"], component=state["component"], paired={}
        )
        controls[name] = _restored(replace(control, verdicts=verdicts, foreseen=None))
    return _restored(replace(profile, controls=controls))


def _first_version(kind: Any, curves: pd.DataFrame, per_user: pd.DataFrame, summary: dict[str, Any]) -> Any:
    """Return a profile of format 1: the whole excess of what is foreseen, with equal weights."""
    stored, n_users = summary["profile"], summary["n_users"]
    verdict = Verdict(stored["verdict"]["label"], n_users, stored["verdict"].get("users_needed"))
    profile = kind(
        table=_of_control(curves, str(curves["control"].iloc[0])),
        verdicts={"whole": verdict},
        embed_excess={},
        retention={},
        retention_layer="",
        component="whole",
        null=stored["null"],
        n_users=n_users,
        user_counts={"probed": n_users + sum(summary["skipped"].values()), "measured": n_users, "shortened": 0}
        | {"skipped": summary["skipped"]},
        per_user=per_user.assign(nodes="foreseen"),
        protocol={**summary["protocol"], "whole_tau": summary["protocol"].get("tau"), **FIRST_VERSION},
        caveats=(*summary["caveats"], "first-version"),
    )
    controls = {}
    for name, null in stored["control_nulls"].items():
        control = replace(profile, table=_of_control(curves, name), null=null, verdicts={"whole": Verdict("none", 0)})
        controls[name] = control if null is None else control.judged()
    return _restored(replace(profile, controls=controls))


def _restored(profile: Any) -> Any:
    """Return the profile with its numbers read from its table, and the verdicts it had."""
    return profile if profile.null is None else replace(profile.judged(), verdicts=profile.verdicts)


def _of_control(curves: pd.DataFrame, name: str) -> pd.DataFrame:
    return curves[curves["control"] == name].reset_index(drop=True)


def _interval(stored: dict[str, float | None]) -> Interval:
    return Interval(*(math.nan if stored[name] is None else float(stored[name]) for name in ("value", "low", "high")))  # type: ignore[arg-type]
