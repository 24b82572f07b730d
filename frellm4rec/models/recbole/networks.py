"""SASRec and GRU4Rec as RecBole builds them, with the weights of a checkpoint."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from frellm4rec.models.config import RecommenderConfig
from frellm4rec.models.recbole.checkpoint import Checkpoint, read_checkpoint
from frellm4rec.models.recbole.items import item_rows
from frellm4rec.models.sequential import SequentialRecommender
from frellm4rec.models.traits import Traits
from frellm4rec.modules.transformer import ACTIVATIONS, PostNormBlock, causal_mask
from spectral_probe.errors import ConfigError, ModelError
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.types import LayerState

ITEMS, POSITIONS = "item_embedding.weight", "position_embedding.weight"
DEFAULT_LENGTH = 50


@dataclass(frozen=True)
class RecBoleConfig(RecommenderConfig):
    """Number of items and of positions that a checkpoint of RecBole reads."""


class RecBoleModel(SequentialRecommender):
    """A recommender with the weights of a checkpoint of RecBole, for probing and evaluating as it is.

    Items are those of a data set, in its order, without RecBole's padding. A subclass lists RecBole's names of tensors
    beside its own.
    """

    config_class = RecBoleConfig
    config: RecBoleConfig
    traits = Traits()
    #: RecBole's name of the model.
    recbole_name: ClassVar[str]
    #: Patterns of RecBole's names of tensors, and the names here.
    renamed: ClassVar[tuple[tuple[str, str], ...]]

    def __init__(self, config: RecBoleConfig, n_features: int) -> None:
        super().__init__()
        self.config = config
        self.items = nn.Embedding(config.n_items, n_features)

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, dataset: Dataset) -> RecBoleModel:
        """Return the model of a checkpoint for the items of a data set, in evaluation mode."""
        raise NotImplementedError

    def item_embeddings(self) -> torch.Tensor:
        """Return the item table, (n_items, feature)."""
        return self.items.weight

    def save_pretrained(self, folder: str | Path) -> Path:
        """Refuse: the checkpoint itself is the saved model."""
        raise ConfigError(f"{self.name} is saved in its checkpoint already, which can be named again. Keep that file.")

    def fill_from(self, checkpoint: Checkpoint, dataset: Dataset) -> RecBoleModel:
        """Load the weights of a checkpoint, and return the model in evaluation mode.

        Raises
        ------
        ModelError
            If its tensors are not those of this model.
        DataError
            If the rows of its items are not known.
        """
        weights = {_new_name(name, self.renamed): tensor for name, tensor in checkpoint.tensors.items()}
        expected = {name: tuple(tensor.shape) for name, tensor in self.state_dict().items()}
        expected["items.weight"] = tuple(checkpoint.tensors[ITEMS].shape)  # rows are chosen below
        shapes = {name: tuple(tensor.shape) for name, tensor in weights.items()}
        wrong = sorted(name for name in {*expected, *shapes} if expected.get(name) != shapes.get(name))
        if wrong:
            old_names = {_new_name(name, self.renamed): name for name in checkpoint.tensors}
            raise ModelError(
                f"The tensors of {checkpoint.path} are not those of RecBole's {self.recbole_name}: "
                f"{old_names.get(wrong[0], wrong[0])} has the shape {shapes.get(wrong[0], 'none: it is missing')}, and "
                f"{expected.get(wrong[0], 'there is no such tensor')} is expected. Give a checkpoint of an unchanged "
                f"{self.recbole_name}."
            )
        rows = item_rows(checkpoint, len(weights["items.weight"]), dataset)
        weights["items.weight"] = weights["items.weight"][torch.from_numpy(rows)]
        self.load_state_dict(weights)
        return self.eval()


class RecBoleSASRec(RecBoleModel):
    """Post-norm causal blocks over normed item and position embeddings; scores use the same item table."""

    name: ClassVar[str] = "recbole-sasrec"
    recbole_name = "SASRec"
    renamed = (
        (r"^item_embedding\.", "items."),
        (r"^position_embedding\.", "positions."),
        (r"^LayerNorm\.", "embedding_norm."),
        (r"^trm_encoder\.layer\.(\d+)\.", r"blocks.\1."),
        (r"\.multi_head_attention\.LayerNorm\.", ".attention_norm."),
        (r"\.multi_head_attention\.dense\.", ".attention.output."),
        (r"\.multi_head_attention\.", ".attention."),
        (r"\.feed_forward\.LayerNorm\.", ".inner_norm."),
        (r"\.feed_forward\.dense_1\.", ".inner.inner_in."),
        (r"\.feed_forward\.dense_2\.", ".inner.inner_out."),
    )

    def __init__(
        self,
        config: RecBoleConfig,
        n_features: int,
        *,
        n_blocks: int,
        n_heads: int,
        n_inner: int,
        activation: str,
        eps: float,
    ) -> None:
        super().__init__(config, n_features)
        self.positions = nn.Embedding(config.max_length, n_features)
        self.embedding_norm = nn.LayerNorm(n_features)
        self.blocks = nn.ModuleList(
            PostNormBlock(n_features, n_heads=n_heads, n_inner=n_inner, dropout=0.0, activation=activation)
            for _ in range(n_blocks)
        )
        for module in self.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = eps

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, dataset: Dataset) -> RecBoleModel:
        """Return the model of a checkpoint; the number of heads and the activation are of its configuration."""
        n_features = _width(checkpoint)
        length = len(_tensor(checkpoint, POSITIONS))
        n_inner = len(_tensor(checkpoint, "trm_encoder.layer.0.feed_forward.dense_1.weight"))
        n_heads = int(_number(checkpoint, "n_heads"))
        if n_heads < 1 or n_features % n_heads:
            raise ModelError(
                f"n_heads must divide the {n_features} features; the configuration in {checkpoint.path} has {n_heads}. "
                "Give a checkpoint as RecBole saved it."
            )
        activation = str(checkpoint.config.get("hidden_act"))
        if activation not in ACTIVATIONS:
            raise ModelError(
                f"hidden_act must be one of {', '.join(sorted(ACTIVATIONS))}; the configuration in "
                f"{checkpoint.path} has {activation!r}. Give a checkpoint as RecBole saved it."
            )
        model = cls(
            RecBoleConfig(n_items=dataset.n_items, max_length=length),
            n_features,
            n_blocks=_count(checkpoint, r"^trm_encoder\.layer\.(\d+)\."),
            n_heads=n_heads,
            n_inner=n_inner,
            activation=activation,
            eps=_number(checkpoint, "layer_norm_eps"),
        )
        return model.fill_from(checkpoint, dataset)

    def forward(self, inputs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return the states after the last block, (batch, position, feature); see the base class."""
        self.check_inputs(inputs, lengths)
        positions = torch.arange(inputs.shape[1], device=inputs.device)
        states = self.embedding_norm(self.items(inputs) + self.positions(positions))
        is_visible = causal_mask(inputs.shape[1], inputs.device)
        for block in self.blocks:
            states = block(states, is_visible)
        final: torch.Tensor = states
        return final


class RecBoleGRU4Rec(RecBoleModel):
    """Recurrent layers without biases over item embeddings, and a linear map back to their width."""

    name: ClassVar[str] = "recbole-gru4rec"
    recbole_name = "GRU4Rec"
    renamed = (
        (r"^item_embedding\.", "items."),
        (r"^gru_layers\.(weight_[ih]h)_l(\d+)$", r"blocks.\2.\1_l0"),
    )

    def __init__(self, config: RecBoleConfig, n_features: int, *, n_blocks: int, n_hidden: int) -> None:
        super().__init__(config, n_features)
        self.blocks = nn.ModuleList(
            nn.GRU(n_hidden if i else n_features, n_hidden, bias=False, batch_first=True) for i in range(n_blocks)
        )
        self.dense = nn.Linear(n_hidden, n_features)

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, dataset: Dataset) -> RecBoleModel:
        """Return the model of a checkpoint; it reads as many items as RecBole did."""
        length = int(_number(checkpoint, "MAX_ITEM_LIST_LENGTH", DEFAULT_LENGTH))
        model = cls(
            RecBoleConfig(n_items=dataset.n_items, max_length=length),
            _width(checkpoint),
            n_blocks=_count(checkpoint, r"^gru_layers\.weight_ih_l(\d+)$"),
            n_hidden=_tensor(checkpoint, "gru_layers.weight_hh_l0").shape[1],
        )
        return model.fill_from(checkpoint, dataset)

    def layers(self) -> list[tuple[str, LayerState, nn.Module]]:
        """Return embedding, recurrent layers, and the map whose outputs are compared with the items."""
        return [*super().layers(), ("dense", "block", self.dense)]

    def forward(self, inputs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return the states after the linear map, (batch, position, feature); see the base class."""
        self.check_inputs(inputs, lengths)
        states = self.items(inputs)
        for block in self.blocks:
            states, _ = block(states)
        outputs: torch.Tensor = self.dense(states)
        return outputs


NETWORKS: dict[str, type[RecBoleModel]] = {kind.recbole_name: kind for kind in (RecBoleSASRec, RecBoleGRU4Rec)}


def load_recbole(path: str | Path, dataset: Dataset, *, device: str = "cpu") -> RecBoleModel:
    """Return the SASRec or GRU4Rec in a checkpoint of RecBole, for the items of a data set.

    Raises
    ------
    ModelError
        If the file is no such checkpoint, is of another model, or its tensors do not fit.
    DataError
        If it is not known which row belongs to which item, or the data set has items that it lacks.
    """
    checkpoint = read_checkpoint(path)
    name = checkpoint.config.get("model")
    if name not in NETWORKS:
        raise ModelError(
            f"{path} holds a {name!r} of RecBole; {' and '.join(NETWORKS)} can be probed. Give a checkpoint of one of "
            "them, or write a plug-in, see docs/plugins.md."
        )
    return NETWORKS[name].from_checkpoint(checkpoint, dataset).to(device)


def _new_name(name: str, renamed: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in renamed:
        name = re.sub(pattern, replacement, name)
    return name


def _tensor(checkpoint: Checkpoint, name: str) -> torch.Tensor:
    """Return a matrix of a checkpoint."""
    tensor = checkpoint.tensors.get(name)
    if tensor is None or tensor.ndim != 2:
        shape = "missing" if tensor is None else f"of shape {tuple(tensor.shape)}"
        raise ModelError(
            f"{checkpoint.path} must hold a matrix {name!r}, as RecBole's {checkpoint.config.get('model')} does; it is "
            f"{shape}. Give a checkpoint of an unchanged model."
        )
    return tensor


def _width(checkpoint: Checkpoint) -> int:
    return int(_tensor(checkpoint, ITEMS).shape[1])


def _count(checkpoint: Checkpoint, pattern: str) -> int:
    """Return how many layers the names of the tensors number."""
    matches = [re.match(pattern, name) for name in checkpoint.tensors]
    return 1 + max((int(match[1]) for match in matches if match), default=0)


def _number(checkpoint: Checkpoint, name: str, default: float | None = None) -> float:
    """Return a number of the configuration."""
    value: Any = checkpoint.config.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ModelError(
            f"The configuration in {checkpoint.path} must give {name} as a number; got {value!r}. Give a checkpoint as "
            "RecBole saved it."
        )
    return value
