"""MoRec: a text encoder of titles in place of an item table, under a SASRec with its norms after the residuals."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import nn
from torch.nn.functional import gelu

from frellm4rec.items.item_table import ItemTable
from frellm4rec.items.vectors import distinct_titles, title_vectors
from frellm4rec.models.batch import Batch
from frellm4rec.models.frellm4rec.config import with_backbone
from frellm4rec.models.losses import binary_loss, in_batch_loss, sampled_softmax_loss, softmax_loss, summed
from frellm4rec.models.morec.config import MoRecConfig
from frellm4rec.models.morec.titles import TrainedTitles
from frellm4rec.models.negatives import draw_unseen
from frellm4rec.models.sequential import SequentialRecommender
from frellm4rec.models.traits import Traits
from frellm4rec.modules.transformer import Dropout, PostNormBlock, causal_mask, draw_weights
from spectral_probe.backbones import HFDecoder, load_backbone
from spectral_probe.errors import ConfigError, ModelError
from spectral_probe.interactions.dataset import Dataset


class Perceptron(nn.Module):
    """One or two linear maps, each followed by a GELU, with dropout between them."""

    def __init__(self, d_in: int, d_out: int, *, n_layers: int, dropout: float) -> None:
        super().__init__()
        self.maps = nn.ModuleList(nn.Linear(d_out if number else d_in, d_out) for number in range(n_layers))
        self.dropout = Dropout(dropout)

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return the item vectors of title vectors, (n, d_out)."""
        for number, linear in enumerate(self.maps):
            vectors = gelu(linear(self.dropout(vectors) if number else vectors))
        return vectors


class MoRec(SequentialRecommender):
    r"""Items are their titles, read by a language model; a post-norm SASRec runs over them, and scores use the same.

    .. math:: x_i = \mathrm{GELU}(W v(t_i) + b), \qquad s_{ui} = \langle h_u, x_i \rangle

    with :math:`v(t_i)` the masked mean of the encoder's last states over the tokens of the title.

    Parameters
    ----------
    config : MoRecConfig
    titles : ItemTable or TrainedTitles
        Vectors of the distinct titles: a frozen table, or an encoder; see :meth:`from_dataset`.
    title_of : (n_items,) int
        Title of each item. Items with equal titles have equal vectors to the bit, so they tie.
    seed : int
        Draws the initial weights: normal with standard deviation 0.02, biases 0, norms at the identity.

    Notes
    -----
    Source: Yuan et al. 2023, SIGIR, and its published code. Its settings: 512 features (here 50), 2 blocks, 2 heads,
    dropout 0.1, sequences of 20 (here 50), titles of 30 words; AdamW with 1e-4, the encoder with 5e-5, weight decay
    0.01, 32 users in a batch; one uniform negative. Deviations: the masked mean of all tokens takes the place of the
    first token, which a decoder has not seen the title at; the vectors of titles are centred and scaled once, so that
    the perceptron starts from well-scaled inputs; its weights start at a standard deviation of 0.02, not by Xavier, so
    that the first scores are near 0; in ``frozen``, the default, the encoder is not trained; in
    ``end_to_end`` one learning rate serves encoder and rest. An item without a title gets the mean vector. Titles of
    held-out items are read: they are content, not interactions.

    Saved are, in ``frozen``, the vectors of the titles; in ``end_to_end`` the trained layers of the encoder and the
    tokens of the titles, never the table, and the encoder by its name and hash.
    """

    name: ClassVar[str] = "morec"
    traits = Traits(reads=frozenset({"titles"}))
    config_class = MoRecConfig
    config: MoRecConfig

    def __init__(
        self, config: MoRecConfig, titles: ItemTable | TrainedTitles, title_of: torch.Tensor, *, seed: int = 0
    ) -> None:
        super().__init__()
        is_trained = isinstance(titles, TrainedTitles)
        if is_trained != (config.mode == "end_to_end") or len(title_of) != config.n_items:
            raise ConfigError(
                f"mode {config.mode!r} with {config.n_items} items needs the titles of that mode and as many items; "
                f"got {type(titles).__name__} and {len(title_of)}. Build the model with from_dataset."
            )
        self.config = config
        self.titles = titles
        self.register_buffer("title_of", title_of.long())
        with torch.random.fork_rng(devices=[]):  # layers draw from the global generator; restore its state
            d = config.n_features
            self.perceptron = Perceptron(titles.width, d, n_layers=config.n_perceptron_layers, dropout=config.dropout)
            self.positions = nn.Embedding(config.max_length, d)
            self.input_norm = nn.LayerNorm(d)
            self.dropout = Dropout(config.dropout)
            self.blocks = nn.ModuleList(
                PostNormBlock(
                    d,
                    n_heads=config.n_heads,
                    n_inner=config.inner_width,
                    dropout=config.dropout,
                    activation="relu",
                )
                for _ in range(config.n_blocks)
            )
        draw_weights(nn.ModuleList([self.perceptron, self.positions, self.blocks]), seed)
        self._cached: tuple[object, torch.Tensor] | None = None

    @classmethod
    def from_dataset(
        cls,
        config: MoRecConfig,
        dataset: Dataset,
        *,
        seed: int = 0,
        device: str = "cpu",
        dtype: str = "auto",
        backbone: HFDecoder | None = None,
    ) -> Self:
        """Build a model from the titles of a data set; no interaction is read.

        Parameters
        ----------
        config : MoRecConfig
        dataset : Dataset
        seed : int
            Of the initial weights.
        device, dtype : str
            Of the encoder, and the device of the model.
        backbone : HFDecoder, optional
            The encoder; loaded by its name when left out. In ``end_to_end`` it becomes part of the model.

        Raises
        ------
        DataError
            If the data set has no titles.
        """
        titles, title_of = distinct_titles(dataset)
        backbone = backbone or load_backbone(
            config.backbone, revision=config.backbone_revision, device=device, dtype=dtype
        )
        config = with_backbone(config, backbone)
        if config.mode == "end_to_end":
            read: ItemTable | TrainedTitles = TrainedTitles.of(
                titles, backbone, n_trained_layers=config.n_trained_layers, max_tokens=config.max_tokens
            )
        else:
            vectors = title_vectors(titles, backbone)
            if title_of.max() == len(titles):  # the mean, for items without a title
                vectors = np.concatenate([vectors, vectors.mean(0, keepdims=True)])
            read = ItemTable.filtered(torch.from_numpy(vectors), None)
        return cls(config, read, torch.from_numpy(title_of), seed=seed).to(device)

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, *, device: str | torch.device = "cpu", backbone: HFDecoder | None = None
    ) -> Self:
        """Load what :meth:`save_pretrained` wrote, in evaluation mode.

        Parameters
        ----------
        folder : path
        device : str or torch.device
        backbone : HFDecoder, optional
            In ``end_to_end``: the encoder as it was before the training; loaded by its name when left out.

        Raises
        ------
        ModelError
            If a file is unreadable, or the encoder is absent or not the one the model was trained on.
        """
        config, weights = cls.read_saved(folder)
        try:
            if config.mode == "end_to_end":
                backbone = backbone or load_backbone(
                    config.backbone,
                    revision=config.backbone_revision,
                    device=str(device),
                    dtype=config.backbone_dtype or "auto",
                )
                config = with_backbone(config, backbone)
                parts = weights["titles.tokens"], weights["titles.lengths"]
                titles: ItemTable | TrainedTitles = TrainedTitles(
                    backbone, *parts, n_trained_layers=config.n_trained_layers
                )
            else:
                titles = ItemTable.from_saved(weights, "titles.")
            model = cls(config, titles, weights["title_of"])
        except KeyError as error:
            raise ModelError(f"The weights in {folder} lack {error}. Train the model again.") from error
        except ConfigError as error:
            raise ModelError(f"The weights in {folder} do not fit their config: {error}") from error
        return cls.fill(model, weights, folder).to(device)

    @property
    def backbone(self) -> HFDecoder | None:
        """The encoder that is trained; None where the vectors of titles are frozen."""
        return self.titles.backbone if isinstance(self.titles, TrainedTitles) else None

    @property
    def width(self) -> int:
        """Number of features of the states."""
        return self.config.n_features

    def forward(self, inputs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return the states after the last block, (batch, position, feature); see the base class."""
        self.check_inputs(inputs, lengths)
        return self._states(self.item_vectors(inputs))

    def _states(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return the states of item vectors (batch, position, feature)."""
        positions = torch.arange(vectors.shape[1], device=vectors.device)
        states = self.dropout(self.input_norm(vectors + self.positions(positions)))
        is_visible = causal_mask(vectors.shape[1], vectors.device)
        for block in self.blocks:
            states = block(states, is_visible)
        return states

    def item_vectors(self, items: torch.Tensor) -> torch.Tensor:
        """Return the vectors of items of any shape, (…, feature); of distinct titles each is computed once."""
        if torch.is_grad_enabled() or self.training:
            return self._encode(items)
        return self.item_embeddings()[items]

    def item_embeddings(self) -> torch.Tensor:
        """Return the vectors of all items, (n_items, feature).

        In evaluation without gradients they are computed once for the same weights.
        """
        if torch.is_grad_enabled() or self.training:
            return self._encode()
        parts = [*self.perceptron.parameters(), *self.titles.parameters(), *self.titles.buffers(), self.title_of]
        key = tuple((part.data_ptr(), part._version, part.dtype) for part in parts)
        if self._cached is None or self._cached[0] != key:
            self._cached = (key, self._encode())
        return self._cached[1]

    def _encode(self, items: torch.Tensor | None = None) -> torch.Tensor:
        """Return the vectors of items of any shape, or of all: one pass over their distinct titles."""
        titles = self.title_of if items is None else self.title_of[items]
        distinct, rows = torch.unique(titles, return_inverse=True)
        return nn.functional.embedding(rows, self.perceptron(self.titles(distinct)))

    def training_loss(self, batch: Batch, draws: torch.Generator) -> tuple[torch.Tensor, int]:
        """Return the sum of the losses of a batch, and the number of targets; see the base class.

        The distinct titles of all items that take part, inputs, targets and negatives, are encoded together once.
        """
        self.check_inputs(batch.inputs, batch.lengths)
        targets = batch.targets[batch.counts]
        n = len(targets)
        if self.config.loss == "in-batch":
            return summed(self._in_batch(batch, targets, draws), n)
        if self.config.loss == "bce":
            negatives = draw_unseen(batch, self.config.drawn_negatives, draws)
            inputs, wanted, others = self._encode_together(batch.inputs, targets, negatives)
            states = self._states(inputs)[batch.counts]
            return summed(binary_loss((states * wanted).sum(-1), torch.einsum("nd,nkd->nk", states, others)), n)
        if batch.negatives is not None:
            inputs, wanted, others = self._encode_together(batch.inputs, targets, batch.negatives)
            states = self._states(inputs)[batch.counts]
            n_items = self.config.n_items
            return summed(sampled_softmax_loss(states, wanted, targets, others, batch.negatives, n_items), n)
        table = self._encode()
        states = self._states(nn.functional.embedding(batch.inputs, table))[batch.counts]
        return summed(softmax_loss(states, table, targets), n)

    def _encode_together(self, *items: torch.Tensor) -> list[torch.Tensor]:
        """Return the vectors of several arrays of items, each (…, feature), from one pass over their titles."""
        vectors = self._encode(torch.cat([part.reshape(-1) for part in items]))
        split = vectors.split([part.numel() for part in items])
        return [part.view(*array.shape, -1) for part, array in zip(split, items, strict=True)]

    def _in_batch(self, batch: Batch, targets: torch.Tensor, draws: torch.Generator) -> torch.Tensor:
        r"""Return the mean loss against the items of the batch, and the drawn ones.

        A candidate is one of the n items that the batch holds, with probability its share p of the training
        interactions, or one of m that are drawn uniformly: :math:`q_j = (n\,p_j + m/N) / (n + m)`. What the user has
        touched in training is no negative.
        """
        device, n_items, n_drawn = batch.inputs.device, self.config.n_items, self.config.drawn_negatives
        positions = torch.arange(batch.inputs.shape[1], device=device)
        read = batch.inputs[positions < batch.lengths[:, None]]
        # Of a window of items all but the last are read, and at every position all but the first are predicted.
        last = batch.targets[torch.arange(len(batch.inputs), device=device), batch.lengths - 1]
        drawn = torch.randperm(n_items, generator=draws)[:n_drawn].to(device)
        candidates, counts = torch.unique(torch.cat([read, last, drawn]), return_counts=True)
        popularity = np.bincount(batch.user_items.indices, minlength=n_items) / batch.user_items.nnz
        n_in_batch = len(read) + len(last)
        shares = n_in_batch * popularity[candidates.cpu().numpy()] + len(drawn) / n_items
        probabilities = torch.from_numpy(shares / (n_in_batch + len(drawn))).to(device)
        rows = batch.user_items[batch.users.cpu().numpy()]
        is_seen = torch.from_numpy(rows[:, candidates.cpu().numpy()].toarray() > 0).to(device)
        inputs, vectors = self._encode_together(batch.inputs, candidates)
        states = self._states(inputs)[batch.counts]
        columns = torch.searchsorted(candidates, targets)
        is_hidden = is_seen[batch.counts.nonzero()[:, 0]]
        return in_batch_loss(states, vectors, columns, counts, probabilities, is_hidden)

    def saved_state(self) -> dict[str, torch.Tensor]:
        """Return the weights; of an encoder only the layers that are trained."""
        tensors = dict(self.state_dict())
        if not isinstance(self.titles, TrainedTitles):
            return tensors
        trained = {f"titles.{name}" for name in self.titles.trained}
        return {n: t for n, t in tensors.items() if n in trained or not n.startswith("titles.backbone.")}

    def load_saved_state(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Load what :meth:`saved_state` returned; the frozen layers of an encoder do not change."""
        expected = set(self.saved_state())
        if expected != set(weights):
            raise RuntimeError(f"names differ in {sorted(expected ^ set(weights))[:4]}")
        self.load_state_dict(dict(weights), strict=False)

    def input_modules(self) -> list[Any]:
        """Return the modules that make the inputs of the first block; a control that redraws weights keeps these."""
        return [self.titles, self.perceptron]
