"""How much the graph filter can change given item vectors, beyond their centre and scale."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from frellm4rec.modules.glpf import GraphLowPassFilter


def glpf_strength(glpf: GraphLowPassFilter, vectors: npt.ArrayLike) -> float:
    r"""Return the relative distance of the filtered table from the best multiple of the table itself.

    .. math:: \min_c \lVert Y - cX \rVert / \lVert Y \rVert

    with X the centred table and Y the centred filtered table. Centre and scale of an item table have no effect on the
    model, so this is what is left of the filter.

    Parameters
    ----------
    glpf : GraphLowPassFilter
    vectors : (n_items, d) float

    Returns
    -------
    float in [0, 1]

    Notes
    -----
    Source: ours; the filter is FreLLM4Rec Eq. (7).
    """
    table = torch.as_tensor(np.asarray(vectors)).double()
    before, after = (values - values.mean(0) for values in (table, glpf(table)))
    multiple = (before * after).sum() / before.square().sum()
    return float((after - multiple * before).norm() / after.norm())


def spectrum_near_one(glpf: GraphLowPassFilter, *, above: float = 0.9) -> float:
    r"""Return the part of the eigenvalues of the graph above a bound, where :math:`1 - \alpha\lambda` hardly differs.

    Notes
    -----
    Cost: a dense eigenvalue problem, O(n_items³).
    """
    eigenvalues = 1.0 - np.linalg.eigvalsh(glpf.adjacency.to_dense().double().numpy())
    return float((eigenvalues > above).mean())
