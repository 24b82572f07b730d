"""``frellm4rec rayleigh``: what filtering along time does to the smoothness of real states on real local graphs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spectral_probe.cli.completion import complete_runs
from spectral_probe.cli.flags import MEASURE, RUN, examples
from spectral_probe.cli.json_output import AsJson, Fields, print_json
from spectral_probe.cli.status import working
from spectral_probe.cli.terminal import say_wrapped
from spectral_probe.errors import check_choice
from spectral_probe.profiles.numbers import fixed
from spectral_probe.progress import stage
from spectral_probe.runs.references import ANALYSIS, resolve_run

if TYPE_CHECKING:
    from frellm4rec.theory.rayleigh import RayleighReport

MODES = {
    "two_sided": ("two_sided",),
    "causal": ("causal",),
    "prefix": ("prefix",),
    "both": ("two_sided", "causal"),
    "all": ("two_sided", "causal", "prefix"),
}
EXAMPLES = examples(
    "frellm4rec rayleigh @last",
    "frellm4rec rayleigh @last --mode causal --cutoff 0.5",
    "frellm4rec rayleigh @last --out rayleigh.csv",
)
LEAK = (
    "two_sided shows row t what comes after it, its own answer included: a change under this mode is no evidence about "
    "states that a recommender may use. causal and prefix read the past alone."
)


def rayleigh(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="A finished run of spectral-probe analyze.", autocompletion=complete_runs("analysis")
        ),
    ],
    cutoff: Annotated[
        float, typer.Option(help="Cutoff of the filter, as a fraction of Nyquist.", rich_help_panel=MEASURE)
    ] = 0.3,
    order: Annotated[int, typer.Option(help="Order of the Butterworth gain.", rich_help_panel=MEASURE)] = 2,
    n_layers: Annotated[int, typer.Option(help="How many filters in a row.", rich_help_panel=MEASURE)] = 1,
    mode: Annotated[
        str, typer.Option(help="two_sided, causal, prefix, both (the first two) or all.", rich_help_panel=MEASURE)
    ] = "all",
    out: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Write the table to this file.", rich_help_panel=RUN)
    ] = None,
    as_json: AsJson = False,
    fields: Fields = None,
) -> None:
    """Report how often and how much TFM lowers the Rayleigh quotient of saved states, and on whose graphs.

    The same states on other users' graphs are the yardstick: a fall that any graph sees is not about this user's items.
    """
    check_choice("--mode", mode, MODES)
    run = resolve_run(run, (ANALYSIS,))
    with working(lines=False):
        from frellm4rec.theory.rayleigh import rayleigh_of_run
        from spectral_probe.storage.atomic import disk_errors, write_csv

        stage("filters")
        report = rayleigh_of_run(run, cutoff=cutoff, order=order, n_layers=n_layers, modes=MODES[mode])
        if out is not None:
            with disk_errors(out):
                write_csv(out, report.table)
    if as_json or fields:
        print_json({**report.to_dict(), "note": LEAK}, fields)
        return
    _print(report)
    if "two_sided" in MODES[mode]:
        say_wrapped(f"note: {LEAK}")
    if out is not None:
        say_wrapped(f"written: {out}")


def percent(share: float) -> str:
    """Return a change in per cent, with its sign and one decimal."""
    return f"{fixed(100 * share, 1, sign=True)}%"


def _print(report: RayleighReport) -> None:
    """Print one table per treatment, and Assumption 1 below."""
    from spectral_probe.cli.tables import print_rows

    first = report.table.iloc[0]
    for treatment, rows in report.table.groupby("treatment", sort=False):
        say_wrapped(
            f"{first['model']} on {first['dataset']}, {treatment} states, cutoff {first['cutoff']:g}, order "
            f"{first['order']}, {first['n_layers']} filter(s), {rows['n_users'].iloc[0]} users"
        )
        print_rows(
            [
                {
                    "layer": str(row["layer_name"]),
                    "mode": str(row["mode"]),
                    "quotient": f"{row['rayleigh_before']:.3f} → {row['rayleigh_after']:.3f}",
                    "falls": f"{row['share_falls']:.0%}",
                    "others": f"{row['other_share_falls']:.0%}",
                    "change": percent(row["change"]),
                    "others ": percent(row["other_change"]),
                    "own − others": percent(row["excess_change"]),
                    "95 % CI": f"[{percent(row['excess_change_low'])}, {percent(row['excess_change_high'])}]",
                }
                for row in rows.to_dict("records")
            ],
            numbers=("quotient", "falls", "others", "change", "others ", "own − others", "95 % CI"),
            least=("quotient", "others ", "others"),
        )
    say_wrapped(
        f"Assumption 1, correlation of A_ij with −|i − j|: mean {report.locality} over {report.n_local} users; "
        f"positive for {report.share_local:.1%}."
    )
