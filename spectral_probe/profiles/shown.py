"""How a profile is shown: eight lines of text, a page of a notebook, an interactive chart, an explorer.

What draws a page or a chart lives in the folder ``notebook``, above this one. The methods here import it when they are
called, so that a profile needs none of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spectral_probe.graph.item_graph import ItemGraph
from spectral_probe.profiles.bootstrap import Interval
from spectral_probe.profiles.verdict import COMPONENT_NAMES
from spectral_probe.recording.layer_grams import LayerGrams

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spectral_probe.notebook.explorer import Explorer

#: Characters of a line of the text form.
WIDTH = 100


@dataclass(frozen=True, eq=False)
class Captured:
    """Grams in memory with the graph of the interactions: what an analysis without a run folder was computed from."""

    grams: LayerGrams
    graph: ItemGraph


class Shown:
    """The methods of a profile that show it."""

    def __repr__(self) -> str:
        return "\n".join(text_lines(self))

    def _repr_html_(self) -> str:
        """Return verdict, table and chart as HTML that needs nothing from outside."""
        from spectral_probe.notebook.page import profile_page

        return profile_page(self)  # type: ignore[arg-type]

    def chart(self, *, components: Sequence[str] = ("taste", "popularity")) -> Any:
        """Return an interactive chart of what is carried at each layer; hover shows the numbers.

        It works without network in a notebook, and as ``profile.chart().save("curve.html", inline=True)``.

        Parameters
        ----------
        components : sequence of {"taste", "popularity", "lag", "whole"}

        Raises
        ------
        MissingDependencyError
            Without the extra ``report``.
        ConfigError
            If a component is unknown or was not measured.
        """
        from spectral_probe.notebook.charts import profile_chart

        return profile_chart(self, components)  # type: ignore[arg-type]

    def explore(self, **options: Any) -> Explorer:
        """Return menus and sliders that change the measure, computed from saved Grams.

        Parameters
        ----------
        **options
            See :func:`spectral_probe.notebook.explorer.explore`.

        Raises
        ------
        MissingDependencyError
            Without the extra ``notebook``.
        DataError
            If the Grams were not saved or cannot be read.
        """
        from spectral_probe.notebook.explorer import explore

        return explore(self, **options)  # type: ignore[arg-type]


def text_lines(profile: Any) -> list[str]:
    """Return eight lines: what was measured, a line per component, the nulls, users, controls, caveats, hints."""
    names = {name: str(profile.table[name].iloc[0]) for name in ("model", "dataset", "inputs")}
    counts = profile.user_counts
    left = ", ".join(f"{null} {'n/a' if x is None else f'{x:.2f}'}" for null, x in profile.whole_retention().items())
    lines = [
        f"DecayProfile of {names['model']} on {names['dataset']} (inputs {names['inputs']}): "
        f"{profile.table['layer_name'].nunique()} layers, {profile.n_users:,} users",
        *(_component_line(profile, component) for component in ("taste", "popularity")),
        f"whole       left at {profile.retention_layer or 'the last block'}, by null: {left or 'n/a'}",
        f"users       {counts['probed']:,} probed, {counts['measured']:,} measured, "
        f"{counts['shortened']:,} of them on fewer nodes than they have",
        f"controls    {', '.join(profile.controls) or 'none'}",
        f"caveats     {', '.join(profile.caveats) or 'none'}",
        "see also    .curve() .users() .to_frame() .plot() .chart() .explore() .summary()",
    ]
    return [f"{line[: WIDTH - 1]}…" if len(line) > WIDTH else line for line in lines]


def _component_line(profile: Any, component: str) -> str:
    beginning = f"{component:<12}"
    if component not in profile.verdicts:
        return f"{beginning}not measured"
    verdict, embed = profile.verdicts[component], profile.embed_excess.get(component)
    numbers = ""
    if profile.has_measurable_input(component) and component in profile.retention:
        numbers = f"{_short(profile.retention[component])} of the input's left at {profile.retention_layer}; "
    elif embed is not None:
        numbers = f"excess at the input {thousandths(embed)}; no {COMPONENT_NAMES[component]} to keep; "
    return f"{beginning}{numbers}{verdict}"


def thousandths(interval: Interval) -> str:
    """Return an excess with its interval in units of 10⁻³, without a negative zero."""
    value, low, high = (round(1000 * x, 2) + 0.0 for x in (interval.value, interval.low, interval.high))
    return f"{value:+.2f} [{low:.2f}, {high:.2f}] × 10⁻³"


def _short(interval: Interval) -> str:
    return f"{interval.value:.2f} [{interval.low:.2f}, {interval.high:.2f}]"
