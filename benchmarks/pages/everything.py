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
from spectral_probe.figure_style import (
    DEFAULT_WIDTH,
    NULL_GREY,
    WIDTHS,
    PaperFigure,
    band_proxy,
    finish,
    label_line_end,
    model_styles,
    new_figure,
    panel_height,
    paper_style,
    style_axes,
)
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
_LAST_COLUMNS = ("taste left", "with random weights", "popularity left", "popularity, random weights")


def collect(runs: Sequence[Path], folder: Path) -> None:
    """Write ``everything.csv`` of finished analyses on one data set, and draw it."""
    table = pd.concat([rows_of(DecayProfile.load(path), backbone_of(path)) for path in runs], ignore_index=True)
    draw(table).save(folder / NAME)


def backbone_of(run: Path) -> str:
    """Return the short name of the language model of the training that an analysis probed; empty if it has none."""
    training = Path(str((RunFolder.open(run).state().get("request") or {}).get("model", "")))
    if not (training / "config.yaml").is_file():
        return ""
    return short_name(str(RunFolder.open(training).config().get("architecture", {}).get("backbone") or ""))


def rows_of(profile: DecayProfile, backbone: str = "") -> pd.DataFrame:
    """Return the carried components of a profile at the input and every block, with the relative depth.

    The state after the final norm is left out: retention is never read there.
    """
    table = profile.to_frame()
    is_shown = (table["nodes"] == "carried") & (table["band"] == "low") & (table["null"] == "swap")
    is_shown &= table["control"].isin(["none", "random-weights"]) & (table["state"] != "final_norm")
    is_component = pd.Series(False, index=table.index)
    for component, (treatment, _) in COMPONENTS.items():
        is_component |= (table["component"] == component) & (table["treatment"] == treatment)
    rows = table[is_shown & is_component]
    title = model_title(str(rows["model"].iloc[0]).split(" ")[0])
    label = f"{title} ({backbone})" if backbone else title
    return rows.assign(model=label, depth=rows["layer"] / rows["layer"].max())[COLUMNS]


def figure(table: pd.DataFrame, *, width: int = DEFAULT_WIDTH) -> Figure:
    """Return the figure: a panel per component, a curve per model with its 95 % interval, 1 at the input."""
    models = list(dict.fromkeys(table["model"]))
    styles = model_styles(models)
    with paper_style():
        shape = (1, len(COMPONENTS)) if width == max(WIDTHS) else (len(COMPONENTS), 1)
        drawn = new_figure(width, (panel_height(models, 50.0) + 16) * shape[0] + 4)
        axes = drawn.subplots(*shape, sharex=True, sharey=True, squeeze=False).ravel()
        for ax, (component, (_, title)) in zip(axes, COMPONENTS.items(), strict=True):
            ax.axhline(0.0, color=NULL_GREY, linewidth=0.8)
            ax.axhline(1.0, color=NULL_GREY, linewidth=0.8, linestyle=":")
            rows = table[(table["component"] == component) & (table["control"] == "none")]
            for model in models:
                curve = rows[rows["model"] == model].sort_values("layer")
                color, mark = styles[model]
                ax.plot(curve["depth"], curve["retention"], marker=mark, markersize=3, color=color, label=model)
                low, high = curve["retention_low"], curve["retention_high"]
                ax.fill_between(curve["depth"], low, high, color=color, alpha=0.15, linewidth=0)
                if len(curve):
                    label_line_end(ax, curve["depth"].iloc[-1], curve["retention"].iloc[-1], model, color)
            style_axes(ax)
            ax.tick_params(labelleft=True)
            ax.set_title(f"{title.capitalize()} carried\nas a part of that at the input")
            ax.set_xticks([0, 0.5, 1], ["input", "0.5", "1"])
        for ax in axes if shape[0] == 1 else axes[-1:]:
            ax.set_xlabel("relative depth (1: last block)")
        drawn.legend([band_proxy()], ["95 % interval over users"], loc="outside lower center")
        return finish(drawn)


def draw(table: pd.DataFrame, *, width: int = DEFAULT_WIDTH) -> PaperFigure:
    """Return the figure with its caption and a table of the last blocks."""
    caption = (
        "Taste and popularity that every probed recommender carries, as a part of that at its input, over relative "
        f"depth. Bands: 95 % bootstrap intervals over users. {int(table['n_users'].max()):,} users; one training each."
    )
    rows = []
    for model, cells in last_blocks(table):
        rows.append(dict(zip(("model", *_LAST_COLUMNS), (model, *cells), strict=True)))
    return PaperFigure(figure(table, width=width), table, caption, pd.DataFrame(rows))


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
        "[table2.md](table2.md), and is probed on histories without the test item. A value of 1 means that the states "
        "of the last block carry as much as the input of the first block. Models that see later items are probed "
        "prefix by prefix. The layers of BERT4Rec are states of the mask behind a prefix, not of an item. The input of "
        "FreLLM4Rec is behind its graph filter. Caser and SR-GNN have no states of items. Intervals are over users, of "
        "one training each.",
        "",
        *_last_blocks(table),
        "",
    ]


def last_blocks(table: pd.DataFrame) -> list[tuple[str, list[str]]]:
    """Return each model with what is left of taste and popularity at its last block, trained and random."""
    rows = []
    for model, part in table.groupby("model", sort=False):
        last = part[part["layer"] == part["layer"].max()].set_index(["component", "control"])
        values = [
            _value(last.loc[(component, control)].to_dict() if (component, control) in last.index else None)
            for component in COMPONENTS
            for control in ("none", "random-weights")
        ]
        rows.append((str(model), values))
    return rows


def _last_blocks(table: pd.DataFrame) -> list[str]:
    lines = [f"| model | {' | '.join(_LAST_COLUMNS)} | users |", "|---|---|---|---|---|---|"]
    users = table.groupby("model", sort=False)["n_users"].first()
    return [
        *lines,
        *(f"| {model} | {' | '.join(cells)} | {int(users[model]):,} |" for model, cells in last_blocks(table)),
    ]


def _value(row: dict[str, Any] | None) -> str:
    if row is None or pd.isna(row["retention"]):
        return "–"
    return f"{row['retention']:.2f} [{row['retention_low']:.2f}, {row['retention_high']:.2f}]".replace("-", "−")
