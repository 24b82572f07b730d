"""``frellm4rec rayleigh``: what filtering along time does to the smoothness of real states on real local graphs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spectral_probe.cli.terminal import say
from spectral_probe.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from frellm4rec.theory.rayleigh import RayleighReport

MODES = {
    "two_sided": ("two_sided",),
    "causal": ("causal",),
    "prefix": ("prefix",),
    "both": ("two_sided", "causal"),
    "all": ("two_sided", "causal", "prefix"),
}
LEAK = (
    "two_sided shows row t what comes after it, its own answer included: a change under this mode is no evidence about "
    "states that a recommender may use. causal and prefix read the past alone."
)


def rayleigh(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A finished run of spectral-probe analyze.")],
    cutoff: Annotated[float, typer.Option(help="Cutoff of the filter, as a fraction of Nyquist.")] = 0.3,
    order: Annotated[int, typer.Option(help="Order of the Butterworth gain.")] = 2,
    n_layers: Annotated[int, typer.Option(help="How many filters in a row.")] = 1,
    mode: Annotated[str, typer.Option(help="two_sided, causal, prefix, both (the first two) or all.")] = "all",
    out: Annotated[Path | None, typer.Option(metavar="CSV", help="Write the table to this file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Report how often and how much TFM lowers the Rayleigh quotient of saved states, and on whose graphs.

    The same states on other users' graphs are the yardstick: a fall that any graph sees is not about this user's items.
    """
    if mode not in MODES:
        raise ConfigError(f"--mode must be one of {list(MODES)}; got {mode!r}.{did_you_mean(mode, MODES)}")
    from frellm4rec.theory.rayleigh import rayleigh_of_run
    from spectral_probe.storage.atomic import disk_errors, write_csv

    report = rayleigh_of_run(run, cutoff=cutoff, order=order, n_layers=n_layers, modes=MODES[mode])
    if out is not None:
        with disk_errors(out):
            write_csv(out, report.table)
    if as_json:
        typer.echo(json.dumps({**report.to_dict(), "note": LEAK}, indent=2))
        return
    _print(report)
    if "two_sided" in MODES[mode]:
        say(f"note: {LEAK}")
    if out is not None:
        say(f"written: {out}")


def _print(report: RayleighReport) -> None:
    """Print one table per treatment, and Assumption 1 below."""
    from spectral_probe.cli.tables import print_rows

    first = report.table.iloc[0]
    for treatment, rows in report.table.groupby("treatment", sort=False):
        say(
            f"{first['model']} on {first['dataset']}, {treatment} states, cutoff {first['cutoff']:g}, order "
            f"{first['order']}, {first['n_layers']} filter(s), {rows['n_users'].iloc[0]} users"
        )
        print_rows(
            [
                {
                    "layer": str(row["layer_name"]),
                    "mode": str(row["mode"]),
                    "quotient": f"{row['rayleigh_before']:.3f} → {row['rayleigh_after']:.3f}",
                    "falls": f"{row['share_falls']:.1%}",
                    "on others": f"{row['other_share_falls']:.1%}",
                    "change": f"{row['change']:+.2%}",
                    "on others ": f"{row['other_change']:+.2%}",
                    "own − others, 95 %": f"{row['excess_change']:+.2%} "
                    f"[{row['excess_change_low']:+.2%}, {row['excess_change_high']:+.2%}]",
                }
                for row in rows.to_dict("records")
            ]
        )
    say(
        f"Assumption 1, correlation of A_ij with −|i − j|: mean {report.locality} over {report.n_local} users; "
        f"positive for {report.share_local:.1%}."
    )
