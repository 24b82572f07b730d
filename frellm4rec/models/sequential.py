"""The contract of a recommender: states per position × item table, scores, and files without pickle."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, TypeVar

import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from frellm4rec.models.base import CONFIG_FILE, WEIGHTS_FILE, RecommenderConfig
from spectral_probe.errors import DataError, ModelError, ShapeError
from spectral_probe.storage.atomic import whole_file, write_text
from spectral_probe.storage.hashing import digest

#: Rows of the item table that are scored together.
_ROWS_AT_ONCE = 1 << 14
Model = TypeVar("Model", bound="SequentialRecommender")
#: Where the training loss is taken: at every position, or at the last one of a prefix that is redrawn for each step.
Supervision = Literal["every", "prefix"]


class SequentialRecommender(nn.Module, ABC):
    """A model that reads item histories and scores the catalogue.

    Histories are right-padded item indices 0…n_items − 1 with their lengths. Padded positions hold 0, as item 0 does;
    only ``lengths`` tells them apart. A user's states and scores depend neither on the other rows of the batch nor on
    the amount of padding.
    """

    name: ClassVar[str]
    config_class: ClassVar[type[RecommenderConfig]]
    config: RecommenderConfig
    is_causal: bool

    @property
    def supervision(self) -> Supervision:
        """Where the loss may be taken; ``prefix`` for a model whose states contain later items."""
        return "every" if self.is_causal else "prefix"

    @abstractmethod
    def forward(self, inputs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return the states from which scores are taken.

        Parameters
        ----------
        inputs : (batch, position) int
        lengths : (batch,) int

        Returns
        -------
        (batch, position, feature) float
            Row t is computed from items 0…t and predicts item t + 1; rows from the length on have no meaning.
        """

    @abstractmethod
    def item_embeddings(self) -> torch.Tensor:
        """Return the table that scores are inner products with, (n_items, feature)."""

    @property
    def width(self) -> int:
        """Number of features of the states."""
        with torch.no_grad():
            return int(self.item_embeddings().shape[1])

    def check_inputs(self, inputs: torch.Tensor, lengths: torch.Tensor) -> None:
        """Refuse a batch that does not meet the contract."""
        if inputs.ndim != 2 or lengths.shape != inputs.shape[:1]:
            raise ShapeError(
                f"A batch is (batch, position) item indices with (batch,) lengths; got inputs {tuple(inputs.shape)} "
                f"and lengths {tuple(lengths.shape)}. Right-pad the histories with 0."
            )
        if inputs.shape[1] > self.config.max_length:
            raise ShapeError(
                f"{self.name} reads at most {self.config.max_length} items; got {inputs.shape[1]}. "
                f"Keep the most recent ones; for a probe, use --max-length {self.config.max_length}."
            )
        if inputs.numel() == 0 or int(lengths.min()) < 1 or int(lengths.max()) > inputs.shape[1]:
            raise ShapeError(
                f"Lengths must lie in 1…{inputs.shape[1]}; got {lengths.tolist()[:8]}. Leave out empty histories."
            )
        low, high = int(inputs.min()), int(inputs.max())
        if low < 0 or high >= self.config.n_items:
            raise DataError(
                f"Item indices must lie in 0…{self.config.n_items - 1}; seen {low}…{high}. "
                "Use the data set that the model was trained on."
            )

    @torch.no_grad()
    def score(self, inputs: torch.Tensor, lengths: torch.Tensor, items: torch.Tensor | None = None) -> torch.Tensor:
        """Return the scores of items as the next one; higher is better.

        Parameters
        ----------
        inputs, lengths : (batch, position) and (batch,) int
        items : (batch, n_candidates) int, optional
            Which items to score; all of them when left out.

        Returns
        -------
        (batch, n_candidates) or (batch, n_items) float
            Inner products of the last valid state with the item embeddings, in the dtype of the embeddings.

        Notes
        -----
        Source: FreLLM4Rec Eq. (3). Scored in evaluation mode; the mode is restored afterwards.
        """
        scores, _, dtype = self._inner_products(inputs, lengths, items)
        return scores.to(dtype)

    @torch.no_grad()
    def score_and_tolerance(
        self, inputs: torch.Tensor, lengths: torch.Tensor, items: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        r"""Return the scores and, for each row, the largest rounding difference between the scores of equal items.

        A matrix product rounds its last columns in another order than the others, so the scores of two items with equal
        vectors may differ in their last digits; for which items depends on the processor. With d features, two such
        inner products differ by at most :math:`d\,\epsilon\,\lVert h \rVert \lVert w \rVert`. The product is taken in
        float64, where this is far below any difference that training makes.

        Parameters
        ----------
        inputs, lengths, items
            As in :meth:`score`.

        Returns
        -------
        scores : (batch, n_candidates) or (batch, n_items) float64
            Float32 on a device without float64; of a model that overrides :meth:`score`, what it returns.
        tolerance : (batch,) float
            Items whose scores differ by no more than this are tied. It does not depend on ``items``. 0 for a model that
            overrides :meth:`score`.
        """
        if type(self).score is not SequentialRecommender.score:
            # A model with scores of its own: nothing is known of their rounding.
            scores = self.score(inputs, lengths, items)
            return scores, torch.zeros(len(scores), device=scores.device)
        scores, tolerance, _ = self._inner_products(inputs, lengths, items)
        return scores, tolerance

    def _inner_products(
        self, inputs: torch.Tensor, lengths: torch.Tensor, items: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.dtype]:
        """Return scores, tolerance and the dtype of the item table."""
        was_training = self.training
        self.eval()
        try:
            states = self(inputs, lengths)
            last = states[torch.arange(len(inputs), device=inputs.device), lengths - 1]
            table = self.item_embeddings()
        finally:
            self.train(was_training)
        # The metal backend has no float64. Autocast leaves float64 alone.
        precise = torch.float32 if last.device.type == "mps" else torch.float64
        last = last.to(precise)
        longest = torch.linalg.vector_norm(table, dim=1, dtype=torch.float32).max().to(precise)
        # Twice the bound: the norms are rounded too.
        epsilon = 2 * last.shape[1] * torch.finfo(precise).eps
        tolerance = epsilon * torch.linalg.vector_norm(last, dim=1) * longest
        if items is not None:
            return torch.einsum("bd,bcd->bc", last, table[items].to(precise)), tolerance, table.dtype
        # Some rows at a time: a copy of a large table in float64 would not fit in memory.
        blocks = [last @ rows.to(precise).T for rows in table.split(_ROWS_AT_ONCE)]
        return torch.cat(blocks, dim=1), tolerance, table.dtype

    def item_vectors(self, items: torch.Tensor) -> torch.Tensor:
        """Return the rows of the item table for items of any shape, (…, feature); a gradient passes through."""
        return self.item_embeddings()[items]

    def saved_state(self) -> dict[str, torch.Tensor]:
        """Return the tensors that define the model; these are saved, hashed and written to checkpoints."""
        return dict(self.state_dict())

    def load_saved_state(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Load what :meth:`saved_state` returned; RuntimeError if it does not fit."""
        self.load_state_dict(dict(weights))

    @property
    def revision(self) -> str:
        """Short SHA-256 of the weights; equal weights have equal revisions."""
        parts: list[str | npt.NDArray[Any]] = []
        for name, tensor in sorted(self.saved_state().items()):
            parts += [f"{name}{tuple(tensor.shape)}{tensor.dtype}", tensor.detach().cpu().contiguous().numpy()]
        return digest(parts)[:12]

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write ``config.json`` and ``model.safetensors``, each atomically."""
        folder = Path(folder)
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self.saved_state().items()}
        with whole_file(folder / WEIGHTS_FILE) as partial:
            save_file(weights, str(partial), metadata={"model": type(self).name})
        write_text(folder / CONFIG_FILE, json.dumps({"model": type(self).name, **self.config.to_dict()}, indent=2))
        return folder

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, device: str | torch.device = "cpu") -> Self:
        """Load what :meth:`save_pretrained` wrote, in evaluation mode.

        Raises
        ------
        ModelError
            If a file is missing or unreadable, of another model, or its weights do not fit the config.
        ConfigError
            If the config has an unknown or forbidden setting.
        """
        config, weights = cls.read_saved(folder)
        return cls.fill(cls(config), weights, folder).to(device)

    @classmethod
    def read_saved(cls, folder: str | Path) -> tuple[Any, dict[str, torch.Tensor]]:
        """Return the config and the tensors of a saved model of this class; errors as in :meth:`from_pretrained`."""
        folder = Path(folder)
        try:
            values = json.loads((folder / CONFIG_FILE).read_text())
            weights = load_file(str(folder / WEIGHTS_FILE))
        except (OSError, ValueError, SafetensorError) as error:
            raise ModelError(
                f"A saved {cls.name} is a folder with readable {CONFIG_FILE} and {WEIGHTS_FILE}; reading {folder} "
                f"failed with: {error}. Give such a folder, or train the model again."
            ) from error
        if not isinstance(values, dict) or values.pop("model", None) != cls.name:
            raise ModelError(f"{folder / CONFIG_FILE} does not describe a {cls.name} model. Give another folder.")
        return cls.config_class.from_dict(values), weights

    @staticmethod
    def fill(model: Model, weights: Mapping[str, torch.Tensor], folder: str | Path) -> Model:
        """Load saved tensors into a model of the same config, and return it in evaluation mode."""
        try:
            model.load_saved_state(weights)
        except RuntimeError as error:
            raise ModelError(f"The weights in {folder} do not fit their config: {error}. Train again.") from error
        return model.eval()
