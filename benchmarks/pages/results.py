"""Collect finished runs into ``figures/<dataset>/`` and write ``docs/results.md`` from what lies there.

::

    spectral-probe analyze --model sasrec --model DIR/stories260K --model minilm --dataset lastfm --from-dir DIR \
        --preset paper --controls random-weights,shuffled-history,normalized-rows,path-graph
    python -m benchmarks.pages.results --collect RUN RUN RUN
    python -m benchmarks.pages.results --components RUN RUN RUN
    python -m benchmarks.pages.results --experiment RUN      # of the recommender, see benchmarks.pages.recommender
    python -m benchmarks.pages.results --reprobe RUN         # of spectral-probe compare, see benchmarks.pages.reprobe
    python -m benchmarks.pages.results            # the text alone, from the tables

Every number in the text is read from ``bands.csv``, ``settings.json`` and the tables of the experiments. A test writes
the page again and compares.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.pages import components, recommender, reprobe, reprobe_page
from spectral_probe.analysis.options import LONG_HISTORY
from spectral_probe.analysis.pipeline import reanalyze
from spectral_probe.figure_style import save_figure
from spectral_probe.profiles.figures import decay_figure
from spectral_probe.profiles.profile import DecayProfile
from spectral_probe.report.words import CAVEATS
from spectral_probe.runs.folder import RunFolder
from spectral_probe.storage.atomic import write_csv, write_text

ROOT = Path(__file__).resolve().parents[2]
FIGURES = ROOT / "figures" / "lastfm"
PAGE = ROOT / "docs" / "results.md"
#: Settings that contain a path on the machine of the run.
_PATH_SETTINGS = ("model",)


def collect(runs: list[Path], folder: Path = FIGURES) -> None:
    """Copy tables, settings and verdicts of runs, and draw all of them on one axis."""
    profiles = [DecayProfile.load(path) for path in runs]
    tables = [profile.to_frame() for profile in profiles]
    write_csv(folder / "bands.csv", pd.concat(tables, ignore_index=True))
    settings = []
    for path, profile in zip(runs, profiles, strict=True):
        run = RunFolder.open(path)
        summary = profile.summary()
        summary["protocol"] = {k: v for k, v in summary["protocol"].items() if k not in _PATH_SETTINGS}
        model = profile.table["model"].iloc[0]
        settings.append({"model": model, "versions": run.state()["versions"], **summary})
    write_text(folder / "settings.json", json.dumps(settings, indent=2))
    save_figure(decay_figure(tables), folder / "decay", pd.concat(tables, ignore_index=True))
    write_csv(folder / "sensitivity.csv", sensitivity(runs))
    # bands.csv already contains the data of the figure.
    (folder / "decay.csv").unlink()


def sensitivity(runs: list[Path]) -> pd.DataFrame:
    """Return the verdict of every run for several diffusion times, and for long histories only, from saved Grams."""
    rows = []
    for path in runs:
        for changes in (
            {"tau": 1.0},
            {"tau": 2.0},
            {"tau": 5.0},
            {"tau": 10.0},
            {"tau": 5.0, "min_targets": LONG_HISTORY},
        ):
            profile = reanalyze(path, {**changes, "controls": [], "preset": None}).profile
            assert profile.embed_excess is not None
            assert profile.retention is not None
            spread = profile.embed_excess.high - profile.embed_excess.low
            rows.append(
                {
                    "model": profile.table["model"].iloc[0],
                    "tau": profile.protocol["tau"],
                    "min_targets": profile.protocol["min_targets"],
                    "n_users": profile.verdict.n_users,
                    # A 95 % interval is 2 × 1.96 standard errors wide.
                    "embed_z": profile.embed_excess.value / (spread / 3.92),
                    "retention": profile.retention.value,
                    "retention_low": profile.retention.low,
                    "retention_high": profile.retention.high,
                    "verdict": str(profile.verdict),
                }
            )
    return pd.DataFrame(rows)


def page(folder: Path = FIGURES) -> str:
    """Return the text of ``docs/results.md``."""
    table = pd.read_csv(folder / "bands.csv", keep_default_na=False, na_values=[""])
    settings: list[dict[str, Any]] = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    quality = pd.read_csv(folder / "sasrec_quality.csv", keep_default_na=False, na_values=[""])
    lines = [
        *_opening(settings[0]),
        *_verdicts(settings),
        "",
        "## What the published curve shows, and what it shows once corrected",
        "",
        *(_story(entry, table[table["model"] == entry["model"]]) for entry in settings),
        "",
        "The published quantity is the share of raw energy in the lowest tenth of the frequencies, own user kept, "
        "nothing dropped or centred (`--preset paper`). It has no null: its level says how alike a user's states are, "
        "whatever the graph.",
        "",
        "## Excess over the swap null, layer by layer",
        "",
    ]
    for entry in settings:
        lines += [f"### {entry['model']}", "", *_layers(table[table["model"] == entry["model"]]), ""]
    lines += [
        *components.section(folder),
        *_controls(settings),
        "",
        "## Other diffusion times, and long histories only",
        "",
        "The same Grams; z is the excess at `embed` in standard errors.",
        "",
        "| model | τ | least targets | users | z at embed | retention at the last block | verdict |",
        "|---|---|---|---|---|---|---|",
        *_sensitivity(pd.read_csv(folder / "sensitivity.csv")),
        "",
        "## SASRec, which the ID inputs come from",
        "",
        *_quality(quality),
        "",
        *recommender.section(folder / "recommender"),
        *reprobe_page.section(folder / "reprobe"),
        *_notes(settings),
        "",
    ]
    return "\n".join(lines)


def _opening(entry: dict[str, Any]) -> list[str]:
    return [
        "# Results on LastFM",
        "",
        "<!-- Written by `python -m benchmarks.pages.results` from figures/lastfm; do not edit by hand. -->",
        "",
        "![decay curves](../figures/lastfm/decay.png)",
        "",
        f"{entry['n_users']} users are on every curve. The headline is the low-pass share (heat kernel, τ = "
        f"{entry['protocol']['tau']:g}) of centred states without their first position, and its excess over the "
        "swap null: the same graphs with other users' states. Retention is the excess at the last block over that at "
        "`embed`. Intervals are 95 % bootstrap intervals over users.",
        "",
        "An independent check found that 97 % of the excess at `embed` is popularity, not personal taste. The verdicts "
        "below are therefore about popularity first, until a measure that tells the two apart replaces these numbers.",
        "",
    ]


def _verdicts(settings: list[dict[str, Any]]) -> list[str]:
    lines = [
        "## Verdicts",
        "",
        "| model | inputs | excess at embed | retention at the last block | verdict | verdict on raw states |",
        "|---|---|---|---|---|---|",
    ]
    for entry in settings:
        retention = entry["retention"]
        lines.append(
            f"| {entry['model']} | {entry['protocol']['inputs']} | {_interval(entry['embed_excess'], 4)} | "
            f"{_interval(retention, 2)} ({retention['layer']}) | **{entry['verdict']}** | {entry['raw_verdict']} |"
        )
    return lines


def _controls(settings: list[dict[str, Any]]) -> list[str]:
    lines = [
        "## Controls",
        "",
        "Retention at the last block with its interval, and the verdict that it would give.",
        "",
        "| model | control | retention | verdict |",
        "|---|---|---|---|",
    ]
    for entry in settings:
        for name, control in entry["controls"].items():
            if control["retention"] is not None:
                lines.append(
                    f"| {entry['model']} | {name} | {_interval(control['retention'], 2)} | {control['verdict']} |"
                )
    return [
        *lines,
        "",
        "`random-weights` keeps the inputs and redraws every weight matrix with its own mean and standard deviation; "
        "`shuffled-history` permutes each history, nodes following; `raw` drops and centres nothing. "
        "`path-graph` has no verdict: its rows are in `bands.csv`.",
    ]


def _notes(settings: list[dict[str, Any]]) -> list[str]:
    """Return the caveats with the models they are about, and who was left out."""
    lines = ["## Notes", ""]
    for code in dict.fromkeys(code for entry in settings for code in entry["caveats"]):
        models = ", ".join(entry["model"] for entry in settings if code in entry["caveats"])
        lines.append(f"- `{code}` ({models}): {CAVEATS[code]}")
    skipped = "; ".join(f"{reason}: {count}" for reason, count in settings[0]["skipped"].items())
    return [*lines, f"- Users left out ({settings[0]['model']}): {skipped}."]


def _story(entry: dict[str, Any], table: pd.DataFrame) -> str:
    """Return one list item: the change of the published curve and of the corrected one."""
    published = table[(table["control"] == "paper") & (table["band"] == "1")].sort_values("layer", kind="stable")
    first, last = published["share"].iloc[0], published["share"].iloc[-1]
    way = "rises" if last > first else "falls"
    retention, random = entry["retention"], entry["controls"]["random-weights"]["retention"]
    if retention["low"] > random["high"]:
        cause = "more than"
    elif retention["high"] < random["low"]:
        cause = "less than"
    else:
        cause = "not distinguishably more or less than"
    return (
        f"- **{entry['model']}**: the published share {way} from {first:.3f} to {last:.3f}; the excess over the swap "
        f"null keeps {_interval(retention, 2)} of its value at `embed`: {entry['verdict']}. That is {cause} the same "
        f"architecture with random weights keeps, {_interval(random, 2)} (intervals compared)."
    )


def _layers(table: pd.DataFrame) -> list[str]:
    rows = table[(table["control"] == "none") & (table["band"] == "low") & (table["null"] == "swap")]
    lines = ["| layer | share | swap null | excess | retention |", "|---|---|---|---|---|"]
    for row in rows.to_dict("records"):
        lines.append(
            f"| {row['layer_name']} | {row['share']:.4f} | {row['null_share']:.4f} | "
            f"{row['excess']:.4f} [{row['excess_low']:.4f}, {row['excess_high']:.4f}] | "
            f"{row['retention']:.2f} [{row['retention_low']:.2f}, {row['retention_high']:.2f}] |"
        )
    return lines


def _sensitivity(table: pd.DataFrame) -> list[str]:
    return [
        f"| {row['model']} | {row['tau']:g} | {row['min_targets']} | {row['n_users']} | {row['embed_z']:.1f} | "
        f"{row['retention']:.2f} [{row['retention_low']:.2f}, {row['retention_high']:.2f}] | {row['verdict']} |"
        for row in table.to_dict("records")
    ]


def _quality(quality: pd.DataFrame) -> list[str]:
    lines = ["| ranking | seeds | NDCG@10 | Recall@10 |", "|---|---|---|---|"]
    for ranking, rows in quality.groupby("ranking"):
        lines.append(
            f"| {ranking} | {len(rows)} | {rows['ndcg'].mean():.4f} (sd {rows['ndcg'].std():.4f}) | "
            f"{rows['recall'].mean():.4f} (sd {rows['recall'].std():.4f}) |"
        )
    return [*lines, "", f"Protocol: {quality['protocol'].iloc[0]}. The paper prints NDCG@10 0.1996 (its Table 2)."]


def _interval(value: dict[str, float], digits: int) -> str:
    return f"{value['value']:.{digits}f} [{value['low']:.{digits}f}, {value['high']:.{digits}f}]"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pages.results", description=__doc__)
    parser.add_argument("--collect", nargs="+", type=Path, metavar="RUN", help="finished runs to copy from")
    parser.add_argument("--experiment", nargs="+", type=Path, metavar="RUN", help="finished experiments to copy from")
    parser.add_argument("--reprobe", nargs="+", type=Path, metavar="RUN", help="comparisons to copy from")
    parser.add_argument("--components", nargs="+", type=Path, metavar="RUN", help="finished runs whose excess is split")
    options = parser.parse_args()
    if options.collect:
        collect(options.collect)
    if options.experiment:
        recommender.collect(options.experiment, FIGURES / "recommender")
    if options.reprobe:
        reprobe.collect(options.reprobe, FIGURES / "reprobe")
    if options.components:
        components.collect(options.components, FIGURES)
    write_text(PAGE, page().removesuffix("\n"))


if __name__ == "__main__":
    main()
