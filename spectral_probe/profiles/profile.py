"""Decay profiles: mean energies over users as curves over layers, with confidence intervals and a verdict."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from spectral_probe.errors import ConfigError, DataError
from spectral_probe.profiles.bootstrap import Interval
from spectral_probe.profiles.figures import share_curve
from spectral_probe.profiles.tables import TEXT_COLUMNS, curve_table, user_table
from spectral_probe.profiles.verdict import Verdict, judge
from spectral_probe.spectrum.bands import Bands
from spectral_probe.spectrum.energy import SpectralEnergy
from spectral_probe.storage.atomic import write_csv, write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False)
class DecayProfile:
    """Curves over layers: share, null share, excess and retention of every band, with 95 % intervals.

    Attributes
    ----------
    table : DataFrame
        One row per layer × band × null, columns :data:`~spectral_probe.profiles.tables.COLUMNS`; band ``low`` is the
        headline.
    verdict : Verdict
    embed_excess, retention : Interval or None
        Of the low band under the verdict's null, at ``embed`` and at the last block.
    retention_layer : str
    null : str or None
        The null that the verdict uses; None for a curve without verdict.
    n_users : int
        Users on the curve.
    skipped : {reason: count}
    per_user : DataFrame
        Low share, null share and excess of each user at each layer.
    protocol : dict
        All settings that the numbers depend on.
    caveats : tuple of str
        Codes of :data:`spectral_probe.report.words.CAVEATS`.
    controls : {name: DecayProfile}
        Profiles of the same users under other treatments, such as ``raw``.
    energy : SpectralEnergy or None
        The energies that the curves are means of; None for a loaded profile.
    """

    table: pd.DataFrame
    verdict: Verdict
    embed_excess: Interval | None
    retention: Interval | None
    retention_layer: str
    null: str | None
    n_users: int
    skipped: dict[str, int]
    per_user: pd.DataFrame
    protocol: dict[str, Any] = field(default_factory=dict)
    caveats: tuple[str, ...] = ()
    controls: dict[str, DecayProfile] = field(default_factory=dict)
    energy: SpectralEnergy | None = None

    @classmethod
    def from_energy(
        cls,
        energy: SpectralEnergy,
        *,
        bands: int | str | Bands = 4,
        null: str | None = "swap",
        n_bootstrap: int = 1000,
        seed: int = 0,
        labels: Mapping[str, str] | None = None,
        control: str = "none",
    ) -> DecayProfile:
        """Aggregate energies over users, every user with equal weight.

        Parameters
        ----------
        energy : SpectralEnergy
        bands : int or str
            Bands for display: ``B``, ``"rank:B"``, ``"pooled:B"`` or ``"deciles"``.
        null : str or None
            The null of the verdict; None for no verdict. All nulls in ``energy`` get rows.
        n_bootstrap, seed : int
            One seeded set of resamples of users gives all intervals; bands and nulls are held fixed.
        labels : mapping, optional
            Values of the columns ``model``, ``revision``, ``dataset``, ``inputs``, ``own_user``.
        control : str
            Value of the column ``control``.

        Raises
        ------
        ConfigError
            If ``null`` is not among the nulls of ``energy``, or an option is out of range.
        """
        if null is not None and null not in energy.null_low:
            raise ConfigError(f"null must be among the computed nulls {sorted(energy.null_low)}; got {null!r}.")
        rule = Bands.parse(bands)
        table = curve_table(energy, rule, labels=labels or {}, control=control, n_bootstrap=n_bootstrap, seed=seed)
        n_users = int(energy.is_valid.sum())
        profile = cls(
            table=table,
            verdict=Verdict("none", n_users),
            embed_excess=None,
            retention=None,
            retention_layer="",
            null=null,
            n_users=n_users,
            skipped=dict(energy.skipped),
            per_user=user_table(energy),
            protocol={
                **energy.settings,
                "bands": str(rule),
                "null": null,
                "n_bootstrap": n_bootstrap,
                "bootstrap_seed": seed,
            },
            energy=energy,
        )
        return profile if null is None else profile._with_verdict(null)

    def _with_verdict(self, null: str) -> DecayProfile:
        """Return the profile with its verdict, computed from the table."""
        low = self.table[(self.table["band"] == "low") & (self.table["null"] == null)]
        embed, blocks = low[low["state"] == "embed"], low[low["state"] == "block"]
        if embed.empty or blocks.empty:
            return self
        first, last = embed.iloc[0], blocks.iloc[-1]
        excess = Interval(*(float(first[c]) for c in ("excess", "excess_low", "excess_high")))
        retention = Interval(*(float(last[c]) for c in ("retention", "retention_low", "retention_high")))
        return replace(
            self,
            verdict=judge(excess, retention, int(last["n_users"])),
            embed_excess=excess,
            retention=retention,
            retention_layer=str(last["layer_name"]),
        )

    def to_frame(self) -> pd.DataFrame:
        """Return the tidy table: the rows of this profile, then those of every control."""
        return pd.concat([self.table, *(c.table for c in self.controls.values())], ignore_index=True)

    def summary(self) -> dict[str, Any]:
        """Return the verdict, its numbers and the protocol, ready for JSON."""
        raw = self.controls.get("raw")
        return {
            "verdict": str(self.verdict),
            "raw_verdict": str(raw.verdict) if raw is not None else None,
            "retention": {**asdict(self.retention), "layer": self.retention_layer} if self.retention else None,
            "embed_excess": asdict(self.embed_excess) if self.embed_excess else None,
            "n_users": self.n_users,
            "skipped": self.skipped,
            "controls": {
                name: {
                    "verdict": str(control.verdict),
                    "retention": asdict(control.retention) if control.retention else None,
                }
                for name, control in self.controls.items()
            },
            "protocol": self.protocol,
            "caveats": list(self.caveats),
        }

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the low-pass share and its null over the layers on ``ax``; return the Axes."""
        return share_curve(self.to_frame(), null=self.null, ax=ax)

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write ``bands.csv``, ``summary.json``, ``per_user.csv.gz`` and ``spectrum.npz``."""
        folder = Path(directory)
        write_csv(folder / "bands.csv", self.to_frame())
        write_csv(folder / "per_user.csv.gz", self.per_user, float_format="%.10g")
        if self.energy is not None:
            self.energy.save(folder / "spectrum.npz")
        state = {
            "verdict": asdict(self.verdict),
            "null": self.null,
            "control_nulls": {name: control.null for name, control in self.controls.items()},
        }
        text = json.dumps(_without_nan({**self.summary(), "profile": state}), indent=2, allow_nan=False)
        write_text(folder / "summary.json", text)

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> DecayProfile:
        """Read a saved profile, without its energies (analyse the saved Grams again for those).

        Raises
        ------
        DataError
            If a file is missing or damaged.
        """
        folder = Path(directory)
        try:
            curves = pd.read_csv(
                folder / "bands.csv",
                dtype=dict.fromkeys(TEXT_COLUMNS, "string"),
                keep_default_na=False,
                na_values=[""],
            )
            curves[list(TEXT_COLUMNS)] = curves[list(TEXT_COLUMNS)].fillna("")
            # Read as text: a user_id may be 007 or NA.
            per_user = pd.read_csv(
                folder / "per_user.csv.gz", dtype={"user_id": "string"}, keep_default_na=False, na_values=[""]
            )
            summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
            stored = summary["profile"]
            profile = cls(
                table=curves[curves["control"] == curves["control"].iloc[0]].reset_index(drop=True),
                verdict=Verdict(**stored["verdict"]),
                embed_excess=None,
                retention=None,
                retention_layer="",
                null=stored["null"],
                n_users=summary["n_users"],
                skipped=summary["skipped"],
                per_user=per_user,
                protocol=summary["protocol"],
                caveats=tuple(summary["caveats"]),
            )
            controls = {}
            for name, null in stored["control_nulls"].items():
                table = curves[curves["control"] == name].reset_index(drop=True)
                control = replace(profile, table=table, null=null, verdict=Verdict("none", 0))
                controls[name] = control if null is None else control._with_verdict(null)
            profile = replace(profile, controls=controls)
            return profile if profile.null is None else profile._with_verdict(profile.null)
        except (OSError, ValueError, KeyError, IndexError, TypeError, EOFError) as error:
            raise DataError(
                f"{folder} has no readable profile ({type(error).__name__}: {error}). "
                "Give the folder of a finished run, with its bands.csv, per_user.csv.gz and summary.json."
            ) from error


def _without_nan(value: Any) -> Any:
    """Return the value with NaN replaced by None, because JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
