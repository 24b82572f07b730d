"""Decay profiles: energies of many users as curves over layers, with confidence intervals and a verdict."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from spectral_probe import plots
from spectral_probe.bands import Bands
from spectral_probe.bootstrap import Interval, mean_over_users, percentile_interval, resampled_means
from spectral_probe.errors import ConfigError, DataError
from spectral_probe.filters import heat_kernel
from spectral_probe.spectrum import SpectralEnergy

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FloatArray = npt.NDArray[np.float64]
#: Inside this range a retention counts as preserved.
PRESERVED = (0.8, 1.25)
#: With fewer users no verdict but "inconclusive" is given.
MIN_USERS = 20
LABELS = ("model", "revision", "dataset", "inputs", "own_user")
#: What only a null gives.
AGAINST_NULL = (
    *("null_share", "excess", "excess_low", "excess_high"),
    *("retention", "retention_low", "retention_high"),
)
COLUMNS = [
    *(*LABELS, "null", "layer", "layer_name", "state", "band", "band_low", "band_high", "n_users", "control"),
    *("energy", "share", "share_low", "share_high", *AGAINST_NULL, "rayleigh"),
]
#: Names and labels that may look like numbers or missing values, and are neither.
TEXT_COLUMNS = (*LABELS, "null", "layer_name", "state", "band", "control")


@dataclass(frozen=True)
class Verdict:
    """What the confidence intervals say about the last block.

    ``label`` is one of ``attenuated``, ``amplified``, ``preserved``, ``inconclusive``,
    ``no measurable collaborative signal`` and ``none`` (a curve that no verdict may be drawn from).
    """

    label: str
    n_users: int
    users_needed: int | None = None

    def __str__(self) -> str:
        if self.label == "inconclusive":
            needed = f"; about {self.users_needed} needed" if self.users_needed is not None else ""
            return f"inconclusive ({self.n_users} users{needed})"
        return self.label


def judge(embed_excess: Interval, retention: Interval, n_users: int) -> Verdict:
    r"""Return the verdict from the two confidence intervals alone; the rules apply in this order.

    1. lower end of the ``embed`` excess ≤ 0: no measurable collaborative signal;
    2. CI of the retention ρ below 1: attenuated; above 1: amplified; inside [0.8, 1.25]: preserved;
    3. else inconclusive, with :math:`m = \lceil n (h/h^*)^2 \rceil` users needed, h half the width of the CI and
       :math:`h^* = \max(|\rho - 1|, \min(\rho - 0.8, 1.25 - \rho))`.
    """
    if n_users < MIN_USERS or not np.isfinite([embed_excess.low, retention.value, retention.low, retention.high]).all():
        return Verdict("inconclusive", n_users)
    if embed_excess.low <= 0:
        return Verdict("no measurable collaborative signal", n_users)
    if retention.high < 1:
        return Verdict("attenuated", n_users)
    if retention.low > 1:
        return Verdict("amplified", n_users)
    if PRESERVED[0] <= retention.low and retention.high <= PRESERVED[1]:
        return Verdict("preserved", n_users)
    rho, half = retention.value, (retention.high - retention.low) / 2
    target = max(abs(rho - 1), min(rho - PRESERVED[0], PRESERVED[1] - rho))
    return Verdict("inconclusive", n_users, math.ceil(n_users * (half / target) ** 2))


@dataclass(frozen=True, eq=False)
class DecayProfile:
    """Curves over layers: share, null share, excess and retention of every band, with 95 % intervals.

    Attributes
    ----------
    table : DataFrame
        One row per layer × band × null; columns :data:`COLUMNS`. Band ``low`` is the heat kernel, the headline.
    verdict : Verdict
    embed_excess, retention : Interval or None
        Of the low band under the verdict's null, at ``embed`` and at the last block.
    retention_layer : str
    null : str or None
        The null that the verdict rests on; None for a curve without verdict.
    n_users : int
        Users on the curve.
    skipped : {reason: count}
    per_user : DataFrame
        Low share, null share and excess of each user at each layer.
    protocol : dict
        Everything the numbers depend on.
    caveats : tuple of str
        Codes of what a reader must know.
    controls : {name: DecayProfile}
        The same users under other treatments; ``raw`` among them.
    energy : SpectralEnergy or None
        What the curves were made from.
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
            The null of the verdict; all nulls in ``energy`` have rows. None: no verdict.
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
        tau = float(energy.settings["tau"])
        on_curve = energy.is_valid
        eigenvalues = energy.eigenvalues[on_curve]
        weights = rule.weights(eigenvalues)
        total = energy.total[on_curve][..., None]

        def per_band(values: FloatArray) -> FloatArray:
            return np.asarray(np.einsum("nlk,nkb->nlb", values[on_curve], weights))

        band_energy = per_band(energy.energy)
        share = np.concatenate([energy.low[on_curve][..., None], band_energy / total], axis=-1)
        low_energy = np.einsum("nlk,nk->nl", energy.energy[on_curve], heat_kernel(eigenvalues, tau))
        mean_energy = mean_over_users(np.concatenate([low_energy[..., None], band_energy], axis=-1))
        null_share = {
            name: np.concatenate(
                [energy.null_low[name][on_curve][..., None], per_band(energy.null_energy[name]) / total], axis=-1
            )
            for name in energy.null_low
        }
        curves = _Curves(energy, rule, mean_energy, share, n_bootstrap, seed)
        frames = [curves.frame(name, values) for name, values in null_share.items()] or [curves.frame("none", None)]
        table = pd.concat(frames, ignore_index=True)
        given = dict(labels or {})
        for name in LABELS:
            table[name] = given.get(name, "")
        table["control"] = control
        profile = cls(
            table=table[COLUMNS].astype(dict.fromkeys(TEXT_COLUMNS, "string")),
            verdict=Verdict("none", len(share)),
            embed_excess=None,
            retention=None,
            retention_layer="",
            null=null,
            n_users=len(share),
            skipped=dict(energy.skipped),
            per_user=_per_user(energy),
            protocol={**energy.settings, "bands": str(rule), "null": null, "n_bootstrap": n_bootstrap},
            energy=energy,
        )
        return profile if null is None else profile._judged(null)

    def _judged(self, null: str) -> DecayProfile:
        """Return the profile with its verdict, read off the table."""
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
        """Return the tidy table: these curves, then those of every control."""
        return pd.concat([self.table, *(c.table for c in self.controls.values())], ignore_index=True)

    def summary(self) -> dict[str, Any]:
        """Return the verdict, the numbers it rests on, and the protocol, ready for JSON."""
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
        return plots.share_curve(self.to_frame(), null=self.null, ax=ax)

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Write ``bands.csv``, ``summary.json``, ``per_user.csv.gz`` and ``spectrum.npz``."""
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        self.to_frame().to_csv(folder / "bands.csv", index=False)
        self.per_user.to_csv(
            folder / "per_user.csv.gz",
            index=False,
            float_format="%.10g",
            # No time of writing in the archive: equal results are equal files.
            compression={"method": "gzip", "mtime": 0},
        )
        if self.energy is not None:
            self.energy.save(folder / "spectrum.npz")
        state = {
            "verdict": asdict(self.verdict),
            "null": self.null,
            "control_nulls": {name: control.null for name, control in self.controls.items()},
        }
        text = json.dumps(_without_nan({**self.summary(), "profile": state}), indent=2, allow_nan=False)
        (folder / "summary.json").write_text(text + "\n", encoding="utf-8")

    @classmethod
    def load(cls, directory: str | os.PathLike[str]) -> DecayProfile:
        """Read a saved profile; energies are not read back (analyse the saved Grams again for those).

        Raises
        ------
        DataError
            If a file is missing or damaged.
        """
        folder = Path(directory)
        try:
            everything = pd.read_csv(
                folder / "bands.csv",
                dtype=dict.fromkeys(TEXT_COLUMNS, "string"),
                keep_default_na=False,
                na_values=[""],
                float_precision="round_trip",
            )
            everything[list(TEXT_COLUMNS)] = everything[list(TEXT_COLUMNS)].fillna("")
            per_user = pd.read_csv(folder / "per_user.csv.gz")
            summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
            stored = summary["profile"]
            profile = cls(
                table=everything[everything["control"] == everything["control"].iloc[0]].reset_index(drop=True),
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
                table = everything[everything["control"] == name].reset_index(drop=True)
                control = replace(profile, table=table, null=null, verdict=Verdict("none", 0))
                controls[name] = control if null is None else control._judged(null)
            profile = replace(profile, controls=controls)
            return profile if profile.null is None else profile._judged(profile.null)
        except (OSError, ValueError, KeyError, IndexError, TypeError, EOFError) as error:
            raise DataError(
                f"{folder} holds no readable profile ({type(error).__name__}: {error}). "
                "Give the folder of a finished run, with its bands.csv, per_user.csv.gz and summary.json."
            ) from error


class _Curves:
    """Means over users and one seeded set of resamples, as rows of the tidy table."""

    def __init__(
        self,
        energy: SpectralEnergy,
        rule: Bands,
        mean_energy: FloatArray,
        share: FloatArray,
        n_bootstrap: int,
        seed: int,
    ) -> None:
        self.energy, self.share, self.mean_energy = energy, share, mean_energy
        self.n_bootstrap, self.seed = n_bootstrap, seed
        self.band_names = ["low", *(str(b + 1) for b in range(rule.n_bands))]
        self.edges = np.concatenate([[[np.nan, np.nan]], rule.edges])
        self.rayleigh = mean_over_users(energy.rayleigh[energy.is_valid])
        self.mean_share = mean_over_users(share)
        self.share_interval = percentile_interval(self._resample(share))

    def _resample(self, values: FloatArray) -> FloatArray:
        return resampled_means(values, n_bootstrap=self.n_bootstrap, seed=self.seed)

    def frame(self, null: str, null_share: FloatArray | None) -> pd.DataFrame:
        """Return the rows of one null, (n_layers × bands)."""
        n_layers, n_bands = self.mean_share.shape
        nothing = np.full((n_layers, n_bands), np.nan)
        columns = dict.fromkeys(AGAINST_NULL, nothing)
        n_users = (~np.isnan(self.share)).sum(axis=0)
        if null_share is not None:
            excess = self.share - null_share
            n_users = (~np.isnan(excess)).sum(axis=0)
            resampled = self._resample(excess)
            mean = mean_over_users(excess)
            columns["null_share"], columns["excess"] = mean_over_users(null_share), mean
            columns["excess_low"], columns["excess_high"] = percentile_interval(resampled)
            if "embed" in self.energy.layer_states:
                embed = self.energy.layer_states.index("embed")
                with np.errstate(invalid="ignore", divide="ignore"):
                    columns["retention"] = mean / mean[embed]
                    ratios = resampled / resampled[:, embed : embed + 1]
                columns["retention_low"], columns["retention_high"] = percentile_interval(ratios)
        columns |= {
            "share": self.mean_share,
            "share_low": self.share_interval[0],
            "share_high": self.share_interval[1],
            "energy": self.mean_energy,
            "n_users": n_users,
        }
        layer = np.repeat(np.arange(n_layers), n_bands)
        return pd.DataFrame(
            {
                "null": null,
                "layer": np.array(self.energy.layer_index)[layer],
                "layer_name": np.array(self.energy.layer_names)[layer],
                "state": np.array(self.energy.layer_states)[layer],
                "band": np.tile(self.band_names, n_layers),
                "band_low": np.tile(self.edges[:, 0], n_layers),
                "band_high": np.tile(self.edges[:, 1], n_layers),
                "rayleigh": self.rayleigh[layer],
                **{name: values.ravel() for name, values in columns.items()},
            }
        )


def _without_nan(value: Any) -> Any:
    """Return the value with NaN as None, which JSON can say."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def _per_user(energy: SpectralEnergy) -> pd.DataFrame:
    """Return one row per user on the curve and layer; ``sequence`` is the row of the Grams."""
    rows = np.flatnonzero(energy.is_valid)
    n_layers = len(energy.layer_names)
    columns: dict[str, Any] = {
        "sequence": np.repeat(rows, n_layers),
        "n_targets": np.repeat(energy.lengths[rows], n_layers),
        "layer_name": np.tile(energy.layer_names, len(rows)),
        "share": energy.low[rows].ravel(),
    }
    for name, values in energy.null_low.items():
        columns[f"excess_{name}"] = (energy.low[rows] - values[rows]).ravel()
    return pd.DataFrame(columns)
