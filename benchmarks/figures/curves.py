"""Figs 1a, 1b, 4 and 8: the published quantity beside what is carried, from the committed curves."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from benchmarks.pages import curves
from spectral_probe.figure_style import DEFAULT_WIDTH, NULL_GREY, PaperFigure, label_line_end
from spectral_probe.profiles.drawing import curves_by_model, excess_curve, retention_curve
from spectral_probe.profiles.figures import RANDOM, models_of, panels_figure
from spectral_probe.profiles.tables import FIRST_VERSION, select_curve
from spectral_probe.report.paper_figures import interval, number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

#: The paper, §5.3: at the last layers of a language model more than this part of the initial strength is lost.
PUBLISHED_LOSS = 0.70
_BELOW = f"the paper, §5.3: last layers below {1 - PUBLISHED_LOSS:.1f}"
_TITLES = {
    "published": "As published\nraw share, part of the input's",
    "taste": "Taste carried\npart of that at the input",
    "popularity": "Popularity carried\npart of that at the input",
}
_PUBLISHED = (
    "As published: share of raw energy in the lowest tenth of the graph frequencies, as a part of that at the first "
    "entry."
)
_CARRIED = "Beside it what is carried of the items that the rows read, beyond what other users' states carry."
_WHOLE = (
    "Beside it the whole excess of the items that the rows predict (heat kernel τ = {tau}, every user with equal "
    "weight), beyond what other users' states have: the measure of the first version (0.1.0)."
)
_INTERVALS = "Bands and bars: 95 % bootstrap intervals over users."
SASREC = "sasrec"
#: The language model of Fig. 1a: the first of these that was probed.
_FIRST_CHOICE = ("qwen2.5-7b", "smollm2", "minilm")


def fig1a(folder: Path, width: int = DEFAULT_WIDTH) -> PaperFigure | None:
    """Return Fig. 1a of the language model that was probed; None if there is none."""
    models = _models(folder)
    chosen = next((model for model in (*_FIRST_CHOICE, *models) if model in models and model != SASREC), None)
    return None if chosen is None else _spectral(folder, [chosen], width, is_language_model=True)


def fig1b(folder: Path, width: int = DEFAULT_WIDTH) -> PaperFigure | None:
    """Return Fig. 1b, of SASRec; None if it was not probed."""
    return _spectral(folder, [SASREC], width) if SASREC in _models(folder) else None


def fig8(folder: Path, width: int = DEFAULT_WIDTH) -> PaperFigure | None:
    """Return Fig. 8, of all language models; None if there are none."""
    models = [model for model in _models(folder) if model != SASREC]
    return _spectral(folder, models, width, is_language_model=True) if models else None


def fig4(folder: Path, width: int = DEFAULT_WIDTH) -> PaperFigure | None:
    """Return Fig. 4: base and full model of every comparison; None if there is no comparison.

    Comparisons of the first version have no components: the whole excess over the swap null takes their place.
    """
    tables = {path.parent.name: comparison_curves(path) for path in sorted(folder.glob("reprobe/*/comparison.csv"))}
    if not tables:
        return None
    drawn: dict[str, Callable[[Axes], Any]] = {}
    titles, thousandfold, has_random, beside = {}, set(), False, []
    for label, table in tables.items():
        drawn[f"published {label}"] = _published(table)
        titles[f"published {label}"] = f"{label}\n{_TITLES['published']}"
        if (table["component"] == "taste").any():
            has_random |= bool((table["control"] == "random-weights").any())
            beside.append(_CARRIED)
            for component in ("taste", "popularity"):
                drawn[f"{component} {label}"] = _retention(table, component)
                titles[f"{component} {label}"] = f"{label}\n{_TITLES[component]}"
        else:
            drawn[f"whole {label}"] = _whole(table)
            titles[f"whole {label}"] = f"{label}\nWhole excess over swap × 1000\n(taste and popularity together)"
            thousandfold.add(f"whole {label}")
            settings = json.loads((folder / "reprobe" / label / "settings.json").read_text(encoding="utf-8"))
            beside.append(_WHOLE.format(tau=f"{settings['probed']['tau']:g}"))
    data = pd.concat(tables, names=["comparison", None]).reset_index(0)
    figure = panels_figure(
        drawn,
        titles,
        models_of(data),
        width,
        dashed=RANDOM if has_random else "",
        thousandfold=thousandfold,
        n_columns=len(drawn) // len(tables),
        legend=_threshold(),
    )
    rows = [
        {"comparison": label, **row}
        for label, table in tables.items()
        for row in published_rows(table, models_of(table))
    ]
    caption = " ".join([_PUBLISHED, *dict.fromkeys(beside), _INTERVALS])
    return PaperFigure(figure, data, caption, pd.DataFrame(rows))


def comparison_curves(path: Path) -> pd.DataFrame:
    """Return the curves of a ``comparison.csv``, those of the first version with the columns that came later."""
    table = pd.read_csv(path, keep_default_na=False, na_values=[""], dtype={"band": str})
    table = table[(table["part"] == "curve") & table["band"].isin(["low", "1"])]
    missing = {name: value for name, value in FIRST_VERSION.items() if name not in table}
    table = table.assign(**missing).dropna(axis=1, how="all")
    return table.assign(tau=table.get("tau", np.nan)).reset_index(drop=True)


def published_rows(table: pd.DataFrame, models: Sequence[str]) -> list[dict[str, str]]:
    """Return, for a table, the published share at the first and the last entry, and what is carried at the last."""
    rows = []
    for model in models:
        part = table[table["model"] == model]
        curve = select_curve(part, band="1", null=None, control="paper").to_dict("records")
        row = {"model": model}
        if curve:
            row["published share, input"] = interval(curve[0], digits=3, prefix="share")
            row["last"] = interval(curve[-1], digits=3, prefix="share")
            row["part of the input's"] = number(curve[-1]["share"] / curve[0]["share"])
        for component in ("taste", "popularity"):
            blocks = select_curve(part, component=component, nodes="carried")
            blocks = blocks[blocks["state"] == "block"]
            if len(blocks):
                row[f"{component} carried"] = interval(blocks.iloc[-1].to_dict(), prefix="retention")
        rows.append(row)
    return rows


def _models(folder: Path) -> list[str]:
    return models_of(curves.load(folder)[0]) if (folder / "curves.csv").exists() else []


def _spectral(folder: Path, models: list[str], width: int, *, is_language_model: bool = False) -> PaperFigure:
    table = curves.load(folder)[0]
    table = table[table["model"].isin(models)]
    drawn = {"published": _published(table, is_language_model=is_language_model)}
    drawn |= {name: _retention(table, name) for name in ("taste", "popularity")}
    is_few = len(models) <= 2
    if not is_few:  # two columns: what is carried side by side, the published form below
        drawn["published"] = drawn.pop("published")
    is_random = bool((table["control"] == "random-weights").any())
    figure = panels_figure(
        drawn,
        _TITLES,
        models,
        width,
        dashed=RANDOM if is_random else "",
        shared=("taste", "popularity"),
        n_columns=3 if is_few else 2,
        legend=_threshold() if is_language_model else None,
    )
    is_shown = (table["control"] == "paper") | table["component"].isin(["taste", "popularity"])
    data = table[is_shown & ((table["nodes"] == "carried") | (table["control"] == "paper"))]
    caption = f"{_PUBLISHED} {_CARRIED} {_INTERVALS} {_users(data)}"
    return PaperFigure(figure, data, caption, pd.DataFrame(published_rows(table, models)))


def _users(drawn: pd.DataFrame) -> str:
    """Return how many users are on the curves of the trained models."""
    counts = drawn.loc[drawn["control"].isin(["none", "paper"]), "n_users"].astype(int)
    fewest, most = counts.min(), counts.max()
    return f"{most:,} users." if fewest == most else f"{fewest:,} to {most:,} users."


def _published(table: pd.DataFrame, *, is_language_model: bool = True) -> Callable[[Axes], Any]:
    def draw(ax: Axes) -> None:
        ax.axhline(0.0, color=NULL_GREY, linewidth=0.8)
        ax.axhline(1.0, color=NULL_GREY, linewidth=0.8, linestyle=":")
        if is_language_model:
            ax.axhspan(0.0, 1 - PUBLISHED_LOSS, color=NULL_GREY, alpha=0.22, linewidth=0)
        for look, rows in curves_by_model(table):
            curve = select_curve(rows, band="1", null=None, control="paper")
            if curve.empty:
                continue
            depth = np.linspace(0, 1, len(curve))
            part = (curve["share"] / curve["share"].iloc[0]).to_numpy()
            size = 2.0 if len(curve) > 12 else 3.0
            ax.plot(depth, part, color=look.color, marker=look.shape, markersize=size, label=look.label)
            label_line_end(ax, 1.0, float(part[-1]), look.label, look.color)
        ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["input", "0.25", "0.5", "0.75", "1"])
        ax.set_xlabel("relative depth (entry / number of entries)")

    return draw


def _retention(table: pd.DataFrame, component: str) -> Callable[[Axes], Any]:
    return lambda ax: retention_curve(table, component=component, ax=ax, is_labelled=True)


def _whole(table: pd.DataFrame) -> Callable[[Axes], Any]:
    return lambda ax: excess_curve(table, null="swap", ax=ax, is_labelled=True)


def _threshold() -> dict[str, Any]:
    """Return the entry of the legend for the grey area of the published panel."""
    from matplotlib.patches import Patch

    return {_BELOW: Patch(facecolor=NULL_GREY, alpha=0.5, linewidth=0)}
