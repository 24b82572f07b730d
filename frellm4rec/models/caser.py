"""Caser: convolutions over the window of the last items, with a table of its own for the scores."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import nn
from torch.nn.functional import logsigmoid, max_pool1d, pad, relu

from frellm4rec.models.batch import Batch
from frellm4rec.models.config import RecommenderConfig
from frellm4rec.models.losses import scores_of, summed
from frellm4rec.models.negatives import draw_unseen
from frellm4rec.models.sequential import SequentialRecommender, with_bias, with_ones
from frellm4rec.models.traits import Traits
from frellm4rec.modules.transformer import Dropout
from spectral_probe.errors import ConfigError

LOSSES = ("bce", "softmax")


@dataclass(frozen=True)
class CaserConfig(RecommenderConfig):
    """Settings of :class:`Caser`.

    Attributes
    ----------
    n_items : int
        Size of the catalogue.
    max_length : int
        Most recent items that are read; a state depends on the last ``window`` of them.
    n_features : int
        Size of item embeddings and states.
    window : int
        Items L that a state is computed from.
    n_targets : int
        Next items T that a state predicts under ``bce``. The softmax predicts the next item alone.
    n_horizontal, n_vertical : int
        Horizontal filters of each height, and vertical filters.
    dropout : float
        Rate at the outputs of the convolutions.
    loss : {"bce", "softmax"}
        Binary cross-entropy against unseen items, as published, or the softmax over the catalogue.
    n_negatives : int
        Unseen items of each position under ``bce``.
    """

    n_features: int = 50
    window: int = 5
    n_targets: int = 3
    n_horizontal: int = 16
    n_vertical: int = 4
    dropout: float = 0.5
    loss: Literal["bce", "softmax"] = "bce"
    n_negatives: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("n_features", "window", "n_targets", "n_horizontal", "n_vertical", "n_negatives"):
            self.check_at_least(name, 1)
        if self.window > self.max_length:
            raise ConfigError(
                f"window must be at most max_length, the number of items that are read; got window={self.window}, "
                f"max_length={self.max_length}. The paper's window is 5."
            )
        self.check_within("dropout", "[0, 1)", "The paper's setting is 0.5.")
        self.check_one_of("loss", LOSSES)


class Caser(SequentialRecommender):
    r"""A state is a function of the last L items; the score of item j is :math:`\langle z_t, w_j \rangle + b_j`.

    .. math:: z_t = \mathrm{ReLU}(W z'_t + b), \qquad
              z'_t = [\max_s \mathrm{ReLU}(F^i * E_t)_s \text{ for } i = 1 \dots L;\; V E_t]

    with :math:`E_t` the embeddings of items t − L + 1…t, (L, feature), :math:`F^i` horizontal filters over i items, and
    V vertical filters, weighted sums of the rows.

    Parameters
    ----------
    config : CaserConfig
    seed : int
        Draws the initial weights: both item tables normal with standard deviation 1/n_features and the item bias 0, as
        published; all else uniform within ±1/√(number of inputs).

    Notes
    -----
    Source: Tang and Wang 2018 (WSDM). Published defaults: window 5, 3 targets, 16 horizontal and 4 vertical filters, 50
    features, dropout .5, Adam with 1e-3, L2 penalty 1e-6, batches of 512 windows, 3 negatives of a window, 50 epochs.

    Deviations. There is no user embedding: a score is asked for a history, not for a user. A history gives its windows
    in one pass, so a batch is of histories. Positions before the first full window are trained on, and near the end of
    a history a position has fewer than T targets; its loss is the mean over those. Missing items of a window are zero
    vectors, which are not trained; the published code has an embedding for them.
    """

    name: ClassVar[str] = "caser"
    traits = Traits(why_no_layers="it turns a window of items into one vector, without a state of each item")
    config_class = CaserConfig
    config: CaserConfig

    def __init__(self, config: CaserConfig, *, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        width, window = config.n_features, config.window
        # torch draws default weights from the global generator while layers are built; restore its state.
        with torch.random.fork_rng(devices=[]):
            self.items = nn.Embedding(config.n_items, width)
            self.horizontal = nn.ModuleList(
                nn.Conv1d(width, config.n_horizontal, height) for height in range(1, window + 1)
            )
            self.vertical = nn.Linear(window, config.n_vertical)
            self.to_state = nn.Linear(config.n_horizontal * window + config.n_vertical * width, width)
            self.outputs = nn.Embedding(config.n_items, width)
        self.bias = nn.Parameter(torch.zeros(config.n_items))
        self.dropout = Dropout(config.dropout)
        self._draw_weights(seed)

    def forward(self, inputs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return the states with a 1 for the item bias, (batch, position, feature + 1); see the base class.

        Row t is of the items t − L + 1…t. The maximum over the windows of a height is a running maximum of one
        convolution over the history.

        Notes
        -----
        Source: Tang and Wang 2018, Eqs. (2) to (10), without the user.
        """
        self.check_inputs(inputs, lengths)
        window = self.config.window
        vectors = pad(self.items(inputs), (0, 0, window - 1, 0))  # zeros before the first item
        weighted = self.vertical(vectors.unfold(1, window, 1))  # (batch, position, feature, n_vertical)
        channels = vectors.transpose(1, 2)
        highest = [
            max_pool1d(relu(filters(channels)), window - height + 1, stride=1)
            for height, filters in enumerate(self.horizontal, start=1)
        ]
        features = [torch.cat(highest, dim=1).transpose(1, 2), weighted.transpose(2, 3).flatten(2)]
        return with_ones(relu(self.to_state(self.dropout(torch.cat(features, dim=-1)))))

    def item_embeddings(self) -> torch.Tensor:
        """Return the output table with its bias, (n_items, feature + 1); the embeddings that are read are others."""
        return with_bias(self.outputs.weight, self.bias)

    def training_loss(self, batch: Batch, draws: torch.Generator) -> tuple[torch.Tensor, int]:
        r"""Return the sum of the losses of a batch, and the number of positions with a target; see the base class.

        .. math:: \ell_t = -\frac{1}{|D_t|} \sum_{j \in D_t} \log \sigma(r_j)
                  - \frac{1}{k} \sum_{j \in N_t} \log(1 - \sigma(r_j))

        with :math:`D_t` the next items, at most T, and :math:`N_t` k items that the user has not touched in training.

        Notes
        -----
        Source: Tang and Wang 2018, Eq. (12), with the means of the authors' code.
        """
        if self.has_softmax_loss:
            return super().training_loss(batch, draws)
        n_targets = self.config.n_targets
        states = self(batch.inputs, batch.lengths)[batch.counts]
        following = pad(batch.targets, (0, n_targets - 1)).unfold(1, n_targets, 1)[batch.counts]
        is_target = pad(batch.counts, (0, n_targets - 1)).unfold(1, n_targets, 1)[batch.counts]
        items = torch.cat([following, draw_unseen(batch, self.config.n_negatives, draws)], dim=1)
        first, others = scores_of(states, self.item_embeddings(), items[:, 0], items[:, 1:])
        scores = torch.cat([first[:, None], others], dim=1)
        positive, negative = scores[:, :n_targets], scores[:, n_targets:]
        of_targets = (logsigmoid(positive) * is_target).sum(1) / is_target.sum(1)
        loss = -(of_targets + logsigmoid(-negative).mean(1)).mean()
        return summed(loss, len(states))

    def _draw_weights(self, seed: int) -> None:
        """Draw all weights from a generator of their own."""
        generator = torch.Generator().manual_seed(seed)
        for table in (self.items, self.outputs):
            nn.init.normal_(table.weight, std=1.0 / self.config.n_features, generator=generator)
        for layer in (*self.horizontal, self.vertical, self.to_state):
            bound = 1.0 / math.sqrt(layer.weight[0].numel())
            for parameter in layer.parameters():
                nn.init.uniform_(parameter, -bound, bound, generator=generator)
