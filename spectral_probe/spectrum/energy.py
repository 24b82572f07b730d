r"""Energies of graph frequencies, the low-pass share and their nulls, from Gram matrices alone.

Since :math:`E(l, k) = \lVert (U^\top H^{(l)})_k \rVert^2 = u_k^\top (H H^\top) u_k`, the Gram matrix of a layer is all
that any graph energy needs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from spectral_probe.errors import ConfigError, DataError, NonFiniteStateError, ShapeError, check_choice
from spectral_probe.graph.bases import GraphBases, groups_by_length
from spectral_probe.graph.filters import graph_operator, heat_kernel
from spectral_probe.graph.popularity import PopularityMatch
from spectral_probe.graph.threads import for_each
from spectral_probe.recording.layer_grams import LayerGrams
from spectral_probe.spectrum.components import (
    COMPONENT_TAU,
    MIN_CENTRED_ENERGY,
    ComponentOperators,
    Treatment,
    component_excess,
)
from spectral_probe.spectrum.gram_algebra import energies, prepare_gram
from spectral_probe.spectrum.nodes import MeasuredNodes
from spectral_probe.spectrum.nulls import MIN_REFERENCES, SwapNull, SwapReferences, cyclic_gram, permutation_energy
from spectral_probe.spectrum.result import SpectralEnergy
from spectral_probe.types import FloatArray, IntArray

__all__ = ["MIN_TARGETS", "NULLS", "SpectralEnergy", "spectral_energy"]

NULLS = ("swap", "permutation", "cyclic")
MIN_TARGETS = 4
#: Reason of a user who is left out.
EDGELESS = "local graph without an edge"


def spectral_energy(
    grams: LayerGrams,
    bases: GraphBases,
    *,
    matched: PopularityMatch | ComponentOperators | None = None,
    treatment: Literal["auto", "plain", "rows", "residual"] = "auto",
    drop_first: int = 1,
    center: bool = True,
    normalize_rows: bool = False,
    nulls: Sequence[str] = NULLS,
    tau: float = COMPONENT_TAU,
    whole_tau: float = 5.0,
    n_references: int = 256,
    min_targets: int = MIN_TARGETS,
    seed: int = 0,
    cache_dir: Path | None = None,
) -> SpectralEnergy:
    r"""Energy of every graph frequency, from the Gram matrices of the layers; with matched graphs, its components.

    .. math:: E_u(l, k) = u_k^\top \tilde G_u^{(l)} u_k, \qquad \tilde G = J G J

    with the first ``drop_first`` positions (and their nodes) removed, rows scaled to unit norm if asked, and then the
    mean over positions removed.

    Parameters
    ----------
    grams : LayerGrams, (n, n_layers, T, T)
        Inner products of the states; unit: squared activation.
    bases : GraphBases, (n, T)
        Local graphs of the same sequences, before the drop.
    matched : PopularityMatch or ComponentOperators, optional
        Popularity-matched graphs of the nodes of ``bases``. With them the swap excess is split into popularity, lag
        profile and taste; an item that comes again is measured at its first position only, and a user on as many
        leading nodes as at least 20 others have. Operators instead of a match say that ``grams`` and ``bases`` hold
        the measured nodes already, without the first ``drop_first``.
    treatment : {"auto", "plain", "rows", "residual"}
        States of the components: as they are, scaled to unit norm, or without what popularity explains. ``auto``:
        ``residual`` for taste if the Grams have treated states, ``rows`` for all else.
    drop_first : int
        Leading positions to remove; the Laplacian of what is left is computed anew.
    center, normalize_rows : bool
        Of the energies and shares.
    nulls : sequence of {"swap", "permutation", "cyclic"}
    tau, whole_tau : float
        Diffusion time of the heat kernel :math:`e^{-\tau L}` of the components, and of the low-pass share.
    n_references : int
        Users drawn per length for the swap null.
    min_targets : int
        Users with fewer targets are left out of the curve. At least 4; a larger number trades users for less noise
        (see ``docs/calibration.md``).
    seed : int
        Of that draw.
    cache_dir : Path, optional
        Where what depends on the data set only is stored: the averaged heat kernels of the references and the
        popularity-matched graphs.

    Raises
    ------
    ShapeError
        If ``grams``, ``bases`` and ``matched`` differ in n, T or lengths.
    ConfigError
        If an option is out of range, or components are asked of rows that have seen later items.
    DataError
        If no user is left on the curve.
    NonFiniteStateError
        If a Gram holds NaN or infinity.

    Notes
    -----
    Source: FreLLM4Rec Eq. (4); with ``drop_first=0, center=False`` it is Eq. (4) exactly. Deviation: the headline
    drops the first position and centres, without which the curve is mostly the mean vector and the attention sink.
    Cost: O(n_layers · T³) per sequence, independent of the width of the model.
    """
    settings: dict[str, Any] = {
        "drop_first": drop_first,
        "center": center,
        "normalize_rows": normalize_rows,
        "tau": tau,
        "whole_tau": whole_tau,
        "n_references": n_references,
        "min_targets": min_targets,
        "seed": seed,
    }
    _check_arguments(grams, bases, nulls, settings)
    _check_finite(grams)
    if matched is not None and not grams.is_causal:
        raise ConfigError("The rows of these Grams have seen later items, so their leading blocks cannot be compared.")
    n_nodes, operators = grams.lengths, matched if isinstance(matched, ComponentOperators) else None
    if isinstance(matched, PopularityMatch):
        nodes = MeasuredNodes.of(
            matched.nodes, grams.lengths, drop_first=drop_first, min_nodes=min_targets - drop_first
        )
        grams, n_nodes = nodes.select(grams), nodes.n_nodes
        bases = GraphBases.from_adjacency(nodes.adjacency(bases.adjacency), nodes.lengths)
        chosen = matched.select(nodes.index, nodes.n_nodes)
        operators = ComponentOperators.build(
            bases, chosen, tau=tau, n_references=n_references, seed=seed, cache_dir=cache_dir
        )
    # Of measured nodes, the first positions are gone already.
    n_dropped = drop_first if operators is None else 0
    local = bases.drop_first(n_dropped)
    with threadpool_limits(1):
        split, varies = _split(grams, operators, treatment)
        is_usable = varies[:, None] & _usable_blocks(grams.grams, grams.lengths, n_dropped, center, normalize_rows)
        is_valid, skipped = _valid_users(
            grams.lengths, local, is_usable, min_targets - (drop_first - n_dropped), min_targets
        )
        references = None
        if "swap" in nulls:
            draws: dict[str, Any] = {"n_references": n_references, "seed": seed, "cache_dir": cache_dir}
            draws |= {"is_causal": grams.is_causal, "drop_first": n_dropped, "tau": whole_tau}
            references = SwapReferences.draw(bases, is_usable, grams.lengths[is_valid], **draws)
        result = _unfilled(grams, local, nulls, is_valid, skipped, settings)
        _fill_all(result, grams, local, references, drop_first=n_dropped)
    return replace(result, **_components(result, operators, split, n_nodes))


def _fill_all(
    result: SpectralEnergy,
    grams: LayerGrams,
    local: GraphBases,
    references: SwapReferences | None,
    *,
    drop_first: int,
) -> None:
    """Compute the energies of all users at all layers into ``result``."""
    groups = [
        _Group.of(rows, length, local, float(result.settings["whole_tau"]), references)
        for length, rows in groups_by_length(np.where(result.is_valid, grams.lengths, 0))
    ]
    tasks = list(product(groups, range(grams.grams.shape[1])))
    for_each(lambda task: _fill(result, grams.grams, *task, drop_first=drop_first), tasks)


def _split(
    grams: LayerGrams, operators: ComponentOperators | None, treatment: str
) -> tuple[dict[str, dict[str, FloatArray]], npt.NDArray[np.bool_]]:
    """Return the components under each treatment that is asked for, and whether each user's states vary, (n,)."""
    varies = np.ones(len(grams.lengths), dtype=bool)
    split: dict[str, dict[str, FloatArray]] = {}
    if operators is None:
        return split, varies
    chosen: tuple[Treatment, ...] = ("rows", "residual") if grams.treated is not None else ("rows",)
    if treatment != "auto":
        chosen = (treatment,)  # type: ignore[assignment]
    for name in chosen:
        split[name], is_usable = component_excess(grams, operators, treatment=name)
        varies &= is_usable
    return split, varies


def _components(
    result: SpectralEnergy,
    operators: ComponentOperators | None,
    split: dict[str, dict[str, FloatArray]],
    n_nodes: IntArray,
) -> dict[str, Any]:
    """Return the fields of a result that belong to the components; users who are not on the curve are NaN."""
    weights, match_error = np.ones(len(result.lengths)), float("nan")
    if operators is not None:
        weights, match_error = operators.weights, operators.matched.match_error
        for excess in split.values():
            for values in excess.values():
                values[~result.is_valid] = np.nan
    weights = np.where(result.is_valid, weights, 0.0)
    return {"split": split, "weights": weights, "n_nodes": n_nodes, "match_error": match_error}


def _check_arguments(grams: LayerGrams, bases: GraphBases, nulls: Sequence[str], settings: Mapping[str, Any]) -> None:
    n, _, T = grams.grams.shape[:3]
    if bases.eigenvalues.shape != (n, T) or not np.array_equal(grams.lengths, bases.lengths):
        raise ShapeError(
            f"Grams are for {n} sequences of up to {T} targets, bases for {bases.eigenvalues.shape}, or their lengths "
            "differ. Build both from the same targets and lengths."
        )
    for tau in (settings["tau"], settings["whole_tau"]):
        heat_kernel(np.empty(0), tau)
    for name in nulls:
        check_choice("nulls", name, NULLS)
    if not 0 <= settings["drop_first"] < MIN_TARGETS:
        raise ConfigError(f"drop_first must lie in 0…{MIN_TARGETS - 1}; got {settings['drop_first']}.")
    for name, least in (("min_targets", MIN_TARGETS), ("n_references", MIN_REFERENCES)):
        if settings[name] < least:
            raise ConfigError(f"{name} must be at least {least}; got {settings[name]}.")


def _unfilled(
    grams: LayerGrams,
    local: GraphBases,
    nulls: Sequence[str],
    is_valid: npt.NDArray[np.bool_],
    skipped: dict[str, int],
    settings: dict[str, Any],
) -> SpectralEnergy:
    """Return a result without numbers: NaN for users who are not on the curve, energy 0 for the others."""
    shape = (*grams.grams.shape[:2], local.eigenvalues.shape[1])
    result = SpectralEnergy(
        energy=np.full(shape, np.nan),
        total=np.full(shape[:2], np.nan),
        null_energy={name: np.full(shape, np.nan) for name in nulls},
        low=np.full(shape[:2], np.nan),
        null_low={name: np.full(shape[:2], np.nan) for name in nulls},
        eigenvalues=local.eigenvalues,
        lengths=grams.lengths,
        is_valid=is_valid,
        skipped=skipped,
        layer_names=tuple(grams.layer_names),
        layer_states=tuple(grams.layer_states),
        layer_index=_depths(grams.layer_names, grams.layer_states),
        settings=settings,
    )
    for values in (result.energy, *result.null_energy.values()):
        values[is_valid] = 0.0
    return result


def _check_finite(grams: LayerGrams) -> None:
    """Raise NonFiniteStateError if a Gram is not finite; it would pass for one without variation."""
    for layer, name in enumerate(grams.layer_names):
        rows = np.flatnonzero(~np.isfinite(grams.grams[:, layer]).all(axis=(1, 2)))
        if rows.size:
            raise NonFiniteStateError(
                f"The Gram matrix of layer {name!r} holds NaN or infinity in {rows.size} of {len(grams.lengths)} "
                f"sequences, first in row {rows[0]}. Run the model in float32, or leave these sequences out."
            )


def _depths(names: Sequence[str], states: Sequence[str]) -> tuple[int, ...]:
    """Return the depth of each layer: the number in a block's name, else its index among the recorded layers."""
    depths: list[int] = []
    for name, state in zip(names, states, strict=True):
        number = name.rpartition(" ")[2]
        following = depths[-1] + 1 if depths else 0
        depths.append(int(number) if state == "block" and number.isdigit() else following)
    return tuple(depths)


def _usable_blocks(
    grams: npt.NDArray[np.float32], lengths: IntArray, drop_first: int, center: bool, normalize_rows: bool
) -> npt.NDArray[np.bool_]:
    """Return whether the leading m remaining rows of each Gram carry energy at every layer, for every m.

    Traces and sums of all leading blocks come from cumulative sums, without forming a block.
    """
    n_layers, T = grams.shape[1:3]
    usable = np.arange(1, T - drop_first + 1) <= (lengths - drop_first)[:, None]
    size = np.arange(1, T - drop_first + 1)
    for layer in range(n_layers):
        G = prepare_gram(grams[:, layer], drop_first=drop_first, center=False, normalize_rows=normalize_rows)
        diagonal = np.diagonal(G, axis1=-2, axis2=-1)
        trace = np.cumsum(diagonal, axis=-1)
        if center:
            block_sum = np.cumsum(2 * np.tril(G, -1).sum(axis=-1) + diagonal, axis=-1)
            usable &= trace - block_sum / size > MIN_CENTRED_ENERGY * trace
        else:
            usable &= trace > 0
    return np.asarray(usable)


def _valid_users(
    lengths: IntArray, local: GraphBases, is_usable: npt.NDArray[np.bool_], least: int, min_targets: int
) -> tuple[npt.NDArray[np.bool_], dict[str, int]]:
    """Return who is on the curve, and how many are not, by the first reason that applies; ``least`` is of lengths."""
    last = np.maximum(local.lengths - 1, 0)
    has_energy = is_usable[np.arange(len(lengths)), last] if is_usable.shape[1] else np.zeros(len(lengths), dtype=bool)
    is_short = lengths < least
    edgeless = ~is_short & ~local.has_edges
    flat = ~is_short & ~edgeless & ~has_energy
    skipped = {
        too_short(min_targets): int(is_short.sum()),
        EDGELESS: int(edgeless.sum()),
        "no variation over positions at some layer": int(flat.sum()),
    }
    is_valid = ~(is_short | edgeless | flat)
    if not is_valid.any():
        raise nobody_measured(len(lengths), skipped)
    return is_valid, skipped


def too_short(min_targets: int) -> str:
    """Return the reason of a user who is left out for a short history."""
    return f"fewer than {min_targets} targets"


def nobody_measured(n_users: int, skipped: Mapping[str, int]) -> DataError:
    """Return the error of a probe in which nobody can be measured, with the number of users by reason."""
    reasons = ", ".join(f"{reason} ({n})" for reason, n in skipped.items() if n)
    return DataError(
        f"None of the {n_users} users can be measured: {reasons}. "
        "Lower --min-targets, probe longer histories, or check that the states differ between positions."
    )


@dataclass(frozen=True, eq=False)
class _Group:
    """Users of equal length: their rows, basis, low-pass response and swap null."""

    rows: IntArray
    length: int
    U: FloatArray
    h: FloatArray
    swap: SwapNull | None

    @classmethod
    def of(
        cls, rows: IntArray, length: int, local: GraphBases, tau: float, references: SwapReferences | None
    ) -> _Group:
        m = int(local.lengths[rows[0]])
        U, h = local.eigenvectors[rows, :m, :m], heat_kernel(local.eigenvalues[rows, :m], tau)
        if references is None:
            return cls(rows, length, U, h, None)
        P = graph_operator(U, h)
        return cls(rows, length, U, h, SwapNull(rows, references.rows[length], references.heat[length], P))


def _fill(
    result: SpectralEnergy, grams: npt.NDArray[np.float32], group: _Group, layer: int, *, drop_first: int
) -> None:
    """Compute all energies of one group at one layer into ``result``; no two calls write to the same elements."""
    center = result.settings["center"]
    treatment: dict[str, Any] = {"drop_first": drop_first, "normalize_rows": result.settings["normalize_rows"]}
    rows, length, U, h = group.rows, group.length, group.U, group.h
    m = U.shape[-1]
    G = prepare_gram(grams[rows, layer, :length, :length], center=center, **treatment)
    total = np.trace(G, axis1=-2, axis2=-1)
    energy = energies(G, U)
    low = (h * energy).sum(axis=-1) / total
    result.energy[rows, layer, :m] = energy
    result.total[rows, layer] = total
    result.low[rows, layer] = low
    for name in result.null_energy:
        if group.swap is not None and name == "swap":
            others = grams[group.swap.references, layer, :length, :length]
            blocks = prepare_gram(others, center=False, **treatment)
            share, null_low = group.swap(blocks, center, G / total[:, None, None], energy / total[:, None], low, U)
            null_energy = share * total[:, None]
        else:
            null_energy = permutation_energy(G, U) if name == "permutation" else energies(cyclic_gram(G), U)
            null_low = (h * null_energy).sum(axis=-1) / total
        result.null_energy[name][rows, layer, :m] = null_energy
        result.null_low[name][rows, layer] = null_low
