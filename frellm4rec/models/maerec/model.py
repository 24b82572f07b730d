"""MAERec: a SASRec over item vectors from a graph of transitions, with a masked autoencoder of the graph."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import nn
from torch.nn.functional import embedding

from frellm4rec.models.batch import Batch
from frellm4rec.models.losses import binary_loss, sampled_softmax_loss, scores_of, softmax_loss, summed
from frellm4rec.models.maerec.config import MAERecConfig
from frellm4rec.models.maerec.graph import TransitionGraph, transition_edges
from frellm4rec.models.maerec.masking import PathMasking
from frellm4rec.models.maerec.reconstruction import EdgeDecoder
from frellm4rec.models.negatives import draw_unseen
from frellm4rec.models.sequential import SequentialRecommender
from frellm4rec.models.traits import Traits
from frellm4rec.modules.transformer import Dropout, PostNormBlock, causal_mask, draw_weights
from spectral_probe.errors import ConfigError, ModelError
from spectral_probe.interactions.dataset import Dataset


class MAERec(SequentialRecommender):
    r"""Item embeddings, propagated on a graph of transitions, are inputs and table of a post-norm SASRec.

    .. math:: H = \sum_{l=0}^{L} \hat A^l E, \qquad h = x + \sum_k B_k(\dots B_1(x)),
              \qquad s_{ui} = \langle h_u, H_i \rangle

    with :math:`x` the normed sum of vectors and positions, and :math:`B_k` the blocks: a state is the sum of those of
    all layers. In training a part of the graph is masked, and its edges are reconstructed.

    Parameters
    ----------
    config : MAERecConfig
    edges : (2, n_edges) int
        Of the graph, see :func:`~frellm4rec.models.maerec.graph.transition_edges`.
    seed : int
        Draws the initial weights: normal with standard deviation 0.02, biases 0, norms at the identity.

    Raises
    ------
    ConfigError
        If there are no more items than seeds of a mask.

    Notes
    -----
    Source: Ye, Xia and Huang 2023, SIGIR, and its published code. Its settings: 32 features and 4 heads (here 50 and
    2), 2 propagations, 2 blocks, dropout 0.3, length 50, batches of 256, 1e-3, L2 penalty 1e-6. Loss:
    recommendation + ``mae_weight`` · (reconstruction + mask loss), with weight 1 as published.

    Deviations from the published code, whose reconstruction does not do what the paper says: its loss has the
    logarithm that is missing there, is a mean, not a sum, and its scores pass no sigmoid before the softmax; they are
    of the layers 1…L, not 0…L − 1, so that the last one takes part. The next seeds of a mask are the items that edges
    lead to, not sums of item numbers. Wrong edges are uniform over the items that are no neighbours. Further:

    - each reached item is masked with the probability of its round, where the code takes an exact share;
    - self loops stay under a mask;
    - the mask is drawn anew every ``mask_every`` steps across epochs, not again at the start of each;
    - its reward looks at finished steps, and its loss at the likeness without the noise of the draw;
    - the neighbourhood of an item leaves out walks that go back at once, where the code subtracts more than there are;
    - the feed-forward part has a residual;
    - weights start as those of all models here, not by Xavier;
    - the best epoch is chosen on validation items, not on test.
    """

    name: ClassVar[str] = "maerec"
    traits = Traits()
    config_class = MAERecConfig
    config: MAERecConfig

    def __init__(self, config: MAERecConfig, edges: torch.Tensor, *, seed: int = 0) -> None:
        super().__init__()
        if config.mae_weight and config.n_seeds >= config.n_items:
            raise ConfigError(
                f"A mask must leave items: n_seeds must be below the {config.n_items} items; got {config.n_seeds}. "
                "Choose fewer, or mae_weight=0."
            )
        self.config = config
        self.graph = TransitionGraph(edges, config.n_items)
        d = config.n_features
        with torch.random.fork_rng(devices=[]):  # layers draw from the global generator; restore its state
            self.items = nn.Embedding(config.n_items, d)
            self.positions = nn.Embedding(config.max_length, d)
            self.input_norm = nn.LayerNorm(d)
            self.dropout = Dropout(config.dropout)
            self.blocks = nn.ModuleList(
                PostNormBlock(d, n_heads=config.n_heads, n_inner=config.inner_width, dropout=config.dropout)
                for _ in range(config.n_blocks)
            )
            self.masking = PathMasking(config) if config.mae_weight else None
            self.decoder = EdgeDecoder(config) if config.mae_weight else None
        draw_weights(self, seed)
        self._cached: tuple[object, torch.Tensor] | None = None

    @classmethod
    def from_dataset(
        cls, config: MAERecConfig, dataset: Dataset, *, seed: int = 0, device: str = "cpu", dtype: str = "auto"
    ) -> Self:
        """Return an untrained model whose graph is of the training part; see the base class."""
        return cls(config, transition_edges(dataset.train, config.reach), seed=seed).to(device)

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, device: str | torch.device = "cpu") -> Self:
        """Load what :meth:`save_pretrained` wrote, in evaluation mode; see the base class."""
        config, weights = cls.read_saved(folder)
        edges = weights.get("graph.edges")
        if edges is None or edges.ndim != 2 or len(edges) != 2:
            raise ModelError(f"The weights in {folder} lack the edges of the graph. Train the model again.")
        if edges.numel() and not 0 <= int(edges.min()) <= int(edges.max()) < config.n_items:
            raise ModelError(
                f"The graph in {folder} names items beyond the {config.n_items} of its config. Train again."
            )
        return cls.fill(cls(config, edges), weights, folder).to(device)

    @property
    def width(self) -> int:
        """Number of features of the states."""
        return self.config.n_features

    def forward(self, inputs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return the sums of the states of all layers, (batch, position, feature), on the full graph."""
        self.check_inputs(inputs, lengths)
        return self._states(inputs, self.item_embeddings())

    def _states(self, inputs: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """Return the states of histories whose items have the vectors of a table, (batch, position, feature)."""
        positions = torch.arange(inputs.shape[1], device=inputs.device)
        states = self.dropout(self.input_norm(embedding(inputs, table) + self.positions(positions)))
        is_visible, total = causal_mask(inputs.shape[1], inputs.device), states
        for block in self.blocks:
            states = block(states, is_visible)
            total = total + states
        return total

    def item_embeddings(self) -> torch.Tensor:
        """Return the item vectors propagated on the full graph, (n_items, feature).

        In evaluation without gradients they are computed once for the same weights.
        """
        if torch.is_grad_enabled() or self.training:
            return self._propagated(self.graph.normalised())[0]
        parts = (self.items.weight, self.graph.edges)
        key = tuple((part.data_ptr(), part._version, part.dtype) for part in parts)
        if self._cached is None or self._cached[0] != key:
            self._cached = (key, self._propagated(self.graph.normalised())[0])
        return self._cached[1]

    def _propagated(self, values: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the item table on a graph with these values, and its terms by layer."""
        layers = self.graph.propagate(self.items.weight, values, self.config.n_propagations)
        return torch.stack(layers).sum(0), layers

    def training_loss(self, batch: Batch, draws: torch.Generator) -> tuple[torch.Tensor, int]:
        """Return the sum of the losses of a batch, and the number of targets; see the base class.

        The vectors are propagated on the masked graph. Reconstruction and mask loss count as often as targets do, so
        that parts of a step add up to their weighted mean.
        """
        self.check_inputs(batch.inputs, batch.lengths)
        # A stream of draws for each purpose: whether a part draws the mask changes no other number.
        of_negatives, of_mask, of_edges = (_stream(draws) for _ in range(3))
        if self.masking is None or self.decoder is None:
            table, _ = self._propagated(self.graph.normalised())
            return summed(self._main_loss(batch, table, of_negatives), batch.n_targets)
        is_new, masks = self.masking.begin(self.items.weight)
        likeness = self.masking.likeness(self.graph, self.items.weight, of_mask) if masks else None
        if is_new and likeness is not None:
            self.masking.draw(self.graph, likeness, of_mask)
        table, layers = self._propagated(self.graph.normalised(self.masking.is_masked))
        main = self._main_loss(batch, table, of_negatives)
        self.masking.record(main * batch.n_targets, batch.n_targets)
        extra = self.decoder.loss(self.graph, layers, self.masking.is_masked, of_edges)
        if likeness is not None:
            extra = extra + self.masking.loss(likeness)
        return summed(main + self.config.mae_weight * extra, batch.n_targets)

    def _main_loss(self, batch: Batch, table: torch.Tensor, draws: torch.Generator) -> torch.Tensor:
        """Return the mean loss of the recommendation."""
        states, targets = self._states(batch.inputs, table)[batch.counts], batch.targets[batch.counts]
        if self.config.loss == "bce":
            return binary_loss(*scores_of(states, table, targets, draw_unseen(batch, 1, draws)))
        if batch.negatives is None:
            return softmax_loss(states, table, targets)
        wanted, others = embedding(targets, table), embedding(batch.negatives, table)
        return sampled_softmax_loss(states, wanted, targets, others, batch.negatives, self.config.n_items)

    def load_saved_state(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Load what :meth:`saved_state` returned: weights, graph, and the state of the masking."""
        super().load_saved_state(weights)
        self.graph.index()


def _stream(draws: torch.Generator) -> torch.Generator:
    """Return a generator that is seeded by a draw."""
    seed = torch.randint(2**62, (), generator=draws)
    return torch.Generator().manual_seed(int(seed))
