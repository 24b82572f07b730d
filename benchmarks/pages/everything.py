"""Every probeable recommender on one axis: how much taste and how much popularity is left, over relative depth.

::

    spectral-probe analyze --model RUN --dataset lastfm --from-dir DIR --controls random-weights --out runs  # each
    python -m benchmarks.pages.results --everything RUN…

The runs analysed are first trials of a tuned table. A model is named by its title, and by its
language model if it has one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from frellm4rec.experiments.definitions import model_title
from frellm4rec.experiments.grid import short_name
from spectral_probe.figure_style import PALETTE, save_figure
from spectral_probe.profiles.profile import DecayProfile
from spectral_probe.runs.folder import RunFolder

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAME = "everything"
#: Component → treatment of its headline, and title of its panel.
COMPONENTS = {"taste": ("residual", "taste"), "popularity": ("rows", "popularity")}
COLUMNS = [
    *("model", "component", "control", "layer", "layer_name", "state", "depth", "n_users", "n_effective"),
    *("excess", "excess_low", "excess_high", "retention", "retention_low", "retention_high"),
]
_STYLES = ("-", "--", ":")


def collect(runs: Sequence[Path], folder: Path) -> None:
    """Write ``everything.csv`` of finished analyses on one data set, and draw it."""
    table = pd.concat([rows_of(DecayProfile.load(path), backbone_of(path)) for path in runs], ignore_index=True)
    save_figure(figure(table), folder / NAME, table)


def backbone_of(run: Path) -> str:
    """Return the short name of the language model of the training that an analysis probed; empty if it has none."""
    training = Path(str((RunFolder.open(run).state().get("request") or {}).get("model", "")))
    if not (training / "config.yaml").is_file():
        return ""
    return short_name(str(RunFolder.open(training).config().get("architecture", {}).get("backbone") or ""))


def rows_of(profile: DecayProfile, backbone: str = "") -> pd.DataFrame:
    """Return the carried components of a profile at every layer, with the relative depth of the layer."""
    table = profile.to_frame()
    is_shown = (table["nodes"] == "carried") & (table["band"] == "low") & (table["null"] == "swap")
    is_shown &= table["control"].isin(["none", "random-weights"])
    is_component = pd.Series(False, index=table.index)
    for component, (treatment, _) in COMPONENTS.items():
        is_component |= (table["component"] == component) & (table["treatment"] == treatment)
    rows = table[is_shown & is_component]
    title = model_title(str(rows["model"].iloc[0]).split(" ")[0])
    label = f"{title} ({backbone})" if backbone else title
    return rows.assign(model=label, depth=rows["layer"] / rows["layer"].max())[COLUMNS]


def figure(table: pd.DataFrame) -> Figure:
    """Return the figure: a panel per component, a curve per model with its 95 % interval, 1 at the input."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(10.4, 4.0), layout="constrained")
    models = list(dict.fromkeys(table["model"]))
    axes = drawn.subplots(1, len(COMPONENTS), sharex=True)
    for ax, (component, (_, title)) in zip(axes, COMPONENTS.items(), strict=True):
        ax.axhline(1.0, color="#B0B0B0", linewidth=0.8)
        rows = table[(table["component"] == component) & (table["control"] == "none")]
        for number, model in enumerate(models):
            curve = rows[rows["model"] == model].sort_values("layer")
            color, style = PALETTE[number % len(PALETTE)], _STYLES[number // len(PALETTE)]
            ax.plot(curve["depth"], curve["retention"], style, marker="o", markersize=3.5, color=color, label=model)
            ax.fill_between(
                curve["depth"], curve["retention_low"], curve["retention_high"], color=color, alpha=0.15, linewidth=0
            )
        ax.set(title=f"{title} that is carried", xlabel="relative depth (0: input of the first block, 1: last layer)")
        ax.grid(True, color="#E4E4E4")
        ax.set_axisbelow(True)
    axes[0].set_ylabel("share of the input's excess that is left")
    drawn.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    return drawn


def section(folder: Path) -> list[str]:
    """Return the lines of the section; none if there is no table."""
    path = folder / f"{NAME}.csv"
    if not path.exists():
        return []
    table = pd.read_csv(path, keep_default_na=False, na_values=[""])
    return [
        "## Which architecture keeps taste, and which popularity (LastFM)",
        "",
        "![Taste and popularity carried, over relative depth](../figures/lastfm/everything.png)",
        "",
        "Each recommender has the settings of its recipe and its published loss, the first trial in "
        "[table2.md](table2.md), and is probed on histories without the test item. A value of 1 means that the last "
        "layer's states carry as much as the input of the first block. Models that see later items are probed prefix "
        "by prefix. The layers of BERT4Rec are states of the mask behind a prefix, not of an item. The input of "
        "FreLLM4Rec is behind its graph filter. Caser and SR-GNN have no states of items. Intervals are over users, of "
        "one training each.",
        "",
        *_last_layers(table),
        "",
    ]


def _last_layers(table: pd.DataFrame) -> list[str]:
    lines = [
        "| model | taste left | with random weights | popularity left | with random weights | users |",
        "|---|---|---|---|---|---|",
    ]
    for model, rows in table.groupby("model", sort=False):
        last = rows[rows["layer"] == rows["layer"].max()].set_index(["component", "control"])
        values = [
            _value(last.loc[(component, control)].to_dict() if (component, control) in last.index else None)
            for component in COMPONENTS
            for control in ("none", "random-weights")
        ]
        lines.append(f"| {model} | {' | '.join(values)} | {int(rows['n_users'].iloc[0]):,} |")
    return lines


def _value(row: dict[str, Any] | None) -> str:
    if row is None or pd.isna(row["retention"]):
        return "–"
    return f"{row['retention']:.2f} [{row['retention_low']:.2f}, {row['retention_high']:.2f}]".replace("-", "−")
