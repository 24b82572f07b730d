"""Item vectors that a language model can read: ID embeddings, titles, both, or a file."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from spectral_probe.backbones import HFDecoder
from spectral_probe.errors import ConfigError, DataError, ShapeError
from spectral_probe.inputs.vector_files import load_embeddings
from spectral_probe.interactions.sequences import batches_by_length
from spectral_probe.types import Float32Array, FloatArray

__all__ = [
    "UNKNOWN_TITLE",
    "id_inputs",
    "isometry",
    "joint_inputs",
    "load_embeddings",
    "scale_to_rms",
    "scaled_inputs",
    "text_inputs",
]

logger = logging.getLogger(__name__)
#: Text read for an item without a title.
UNKNOWN_TITLE = "unknown"


def isometry(d_in: int, d_out: int, seed: int = 0) -> FloatArray:
    r"""Seeded (d_in, d_out) matrix with orthonormal rows: ``x @ Q`` keeps every inner product.

    .. math:: Q Q^\top = I, \quad \langle xQ, yQ \rangle = \langle x, y \rangle

    The spectrum of any Gram matrix, and so every graph energy at ``embed``, is that of the vectors before the map.

    Raises
    ------
    ConfigError
        If ``d_out < d_in``: no such map exists.
    """
    check_width(d_in, d_out)
    Q, R = np.linalg.qr(np.random.default_rng(seed).standard_normal((d_out, d_in)))
    # The signs of a QR factorisation depend on the LAPACK; a positive diagonal of R makes the factor unique.
    signs = np.where(np.diag(R) < 0, -1.0, 1.0)
    return np.ascontiguousarray((Q * signs).T)


def check_width(d_in: int, d_out: int) -> None:
    """Raise ConfigError if item vectors of width ``d_in`` do not fit into a model of width ``d_out``."""
    if d_in < 1 or d_out < d_in:
        raise ConfigError(
            f"Item vectors are mapped to the model's width by an isometry, so they must not be wider than the "
            f"model: width {d_out} < {d_in}. Use a model of width {d_in} or more, or item vectors of {d_out} "
            "dimensions or fewer."
        )


def scale_to_rms(vectors: npt.NDArray[np.floating], rms: float) -> Float32Array:
    """Return all vectors times one factor, so that the root mean square over all their entries is ``rms``.

    One factor for the whole table, so the ratios of the items' norms do not change.

    Raises
    ------
    DataError
        If the vectors hold a NaN or an infinity, or are all zero.
    """
    vectors = np.asarray(vectors, dtype=np.float64)
    current_rms = float(np.sqrt(np.mean(np.square(vectors)))) if vectors.size else 0.0
    if not np.isfinite(current_rms) or current_rms == 0.0:
        raise DataError(
            f"Item vectors must be finite and not all zero; their root mean square is {current_rms}. Check their "
            "source: an untrained or failed embedding is a common cause."
        )
    return (vectors * (rms / current_rms)).astype(np.float32)


def scaled_inputs(model: HFDecoder, vectors: npt.ArrayLike, *, seed: int = 0) -> Float32Array:
    """Item vectors mapped to a model's width, (n_items, d) → (n_items, d_model), with the same RMS as its tokens.

    Vectors of the model's width are used unchanged, narrower ones go through :func:`isometry`; all are scaled to the
    root mean square of the model's token embeddings. Pass the result to ``model.set_item_embeddings``.

    Raises
    ------
    ShapeError
        If ``vectors`` is not (n_items, d).
    ConfigError
        If they are wider than the model.
    DataError
        If they are not finite or all zero.
    """
    table = np.asarray(vectors, dtype=np.float64)
    if table.ndim != 2:
        raise ShapeError(f"Item vectors must be (n_items, d); got {table.shape}.")
    if table.shape[1] != model.width:
        table = table @ isometry(table.shape[1], model.width, seed)
    return scale_to_rms(table, model.token_rms())


def id_inputs(model: HFDecoder, vectors: npt.ArrayLike, *, seed: int = 0) -> Float32Array:
    """ID embeddings, such as SASRec's, for a language model; the same as :func:`scaled_inputs`.

    Notes
    -----
    Source: FreLLM4Rec section 3, e_id of Eq. (2). Deviation: a fixed isometry replaces the learned fusion, so that
    the measured change is that of the layers, not of a trained fusion.
    """
    return scaled_inputs(model, vectors, seed=seed)


def text_inputs(
    model: HFDecoder, titles: Sequence[str], *, batch_size: int = 32, max_tokens: int = 128
) -> Float32Array:
    """Item titles read by the same model, (n_items, d_model), with the same RMS as its tokens.

    The final hidden state, averaged over the tokens of the title: special tokens included, padding left out. An empty
    title is read as ``"unknown"``, and their number is logged. Titles of similar length share a batch, each distinct
    title runs once, and longer ones are cut to ``max_tokens``. An encoder (BERT) reads text in both directions, as in
    its training, even if it is probed causally.

    Raises
    ------
    DataError
        If there are no titles, or the tokenizer finds no token in one.
    ModelError
        If the model comes without a tokenizer.

    Notes
    -----
    Source: FreLLM4Rec section 3, e_text of Eq. (2). Deviation: the authors take the state of a pad token.
    """
    cleaned = [title.strip() or UNKNOWN_TITLE for title in titles]
    n_empty = sum(not title.strip() for title in titles)
    if not cleaned:
        raise DataError("There are no titles to read. Use a data set with titles, or --inputs id.")
    if n_empty:
        logger.warning("%d of %d items have no title; they are read as %r.", n_empty, len(cleaned), UNKNOWN_TITLE)
    # Each title runs once, so items with the same title get the same vector whatever the batches.
    distinct = list(dict.fromkeys(cleaned))
    tokens: list[list[int]] = [
        list(model.tokenizer(title, truncation=True, max_length=max_tokens)["input_ids"]) for title in distinct
    ]
    lengths = np.array([len(ids) for ids in tokens], dtype=np.int64)
    if not lengths.min():
        title = distinct[int(lengths.argmin())]
        raise DataError(f"The tokenizer of {model.name!r} finds no token in the title {title!r}. Give it another.")
    means = np.empty((len(distinct), model.width), dtype=np.float64)
    for rows in batches_by_length(lengths, batch_size):
        # Padded here, because many decoders' tokenizers have no pad token and some pad on the left.
        ids = torch.zeros((len(rows), int(lengths[rows].max())), dtype=torch.long)
        for index, row in enumerate(rows):
            ids[index, : lengths[row]] = torch.tensor(tokens[row])
        mask = torch.arange(ids.shape[1]) < torch.from_numpy(lengths[rows])[:, None]
        states = model.encode_tokens(ids, mask.long()).float().cpu().double()
        means[rows] = (torch.where(mask[..., None], states, 0.0).sum(1) / mask.sum(1, keepdim=True)).numpy()
    row_of = {title: row for row, title in enumerate(distinct)}
    return scale_to_rms(means[[row_of[title] for title in cleaned]], model.token_rms())


def joint_inputs(
    model: HFDecoder, vectors: npt.ArrayLike, titles: Sequence[str], *, seed: int = 0, batch_size: int = 32
) -> Float32Array:
    r"""Return ID and title in one vector, :math:`(e_{id} + e_{text}) / \sqrt 2`, (n_items, d_model), scaled like both.

    Parameters and errors are those of :func:`id_inputs` and :func:`text_inputs`.

    Raises
    ------
    ShapeError
        If there are not as many titles as vectors.
    """
    by_id = id_inputs(model, vectors, seed=seed)
    if len(by_id) != len(titles):
        raise ShapeError(
            f"ID and text vectors are added item by item; got {len(by_id)} vectors and {len(titles)} titles. Give one "
            "of each per item."
        )
    by_text = text_inputs(model, titles, batch_size=batch_size)
    return scale_to_rms((by_id.astype(np.float64) + by_text) / np.sqrt(2.0), model.token_rms())
