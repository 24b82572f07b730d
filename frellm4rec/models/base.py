"""The contract of every recommender: its configuration, what it says of itself, scores, a loss, and its files."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar

import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from frellm4rec.models.batch import Batch, Supervision
from frellm4rec.models.config import CONFIG_FILE, WEIGHTS_FILE, RecommenderConfig
from frellm4rec.models.traits import Traits
from spectral_probe.errors import ConfigError, DataError, ModelError, ShapeError, what_failed
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.storage.atomic import whole_file, write_text
from spectral_probe.storage.hashing import digest
from spectral_probe.storage.reading import read_json, refuse_special
from spectral_probe.types import LayerState

Model = TypeVar("Model", bound="Recommender")
#: Value of ``plugin`` in ``config.json``: who reads the folder for the instrument.
PLUGIN = "frellm4rec"


class Recommender(nn.Module, ABC):
    """A model that reads item histories and rates items as the next one.

    Histories are right-padded item indices 0…n_items − 1 with their lengths. Padded positions hold 0, as item 0 does;
    only ``lengths`` tells them apart. A user's scores depend neither on the other rows of the batch nor on the amount
    of padding. Trainer, evaluator and commands ask the model and its traits, never its class.

    Attributes
    ----------
    name : str
        Of the class: its file, its recipe and its entry point in the group ``frellm4rec.models`` have the same name. An
        instance may add the name of its run.
    config_class : type
    config : RecommenderConfig
    traits : Traits
        Of the class, or of the instance where they follow from its configuration.
    """

    name: ClassVar[str]
    config_class: ClassVar[type[RecommenderConfig]]
    config: RecommenderConfig
    traits: Traits

    @classmethod
    def from_dataset(
        cls, config: Any, dataset: Dataset, *, seed: int = 0, device: str = "cpu", dtype: str = "auto"
    ) -> Self:
        """Return an untrained model for a data set; here, one that needs no more of it than the config says.

        Parameters
        ----------
        config : config_class
        dataset : Dataset
            Only its training part and its titles may be read.
        seed : int
            Of the initial weights.
        device : str
        dtype : str
            Of a language model that is part of this one.
        """
        return cls(config, seed=seed).to(device)

    @abstractmethod
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
            Scored in evaluation mode; the mode is restored afterwards.
        """

    def score_and_tolerance(
        self, inputs: torch.Tensor, lengths: torch.Tensor, items: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the scores, and for each row the largest rounding difference between the scores of equal items.

        Returns
        -------
        scores : (batch, n_candidates) or (batch, n_items) float
        tolerance : (batch,) float
            Items whose scores differ by no more than this are tied. 0 here: nothing is known of the rounding.
        """
        scores = self.score(inputs, lengths, items)
        return scores, torch.zeros(len(scores), device=scores.device)

    def training_loss(self, batch: Batch, draws: torch.Generator) -> tuple[torch.Tensor, int]:
        """Return the sum of the losses of a batch, with a gradient, and the number of its targets.

        Parameters
        ----------
        batch : Batch
        draws : torch.Generator
            Of the trainer, on the CPU: the only source of negatives, masks and noise. Seeded by the run, the step and
            the part of the batch.

        Returns
        -------
        loss : () float
            Sum over the targets. In float64 where the device has it, so that dividing by their number rounds nothing.
        n_targets : int
        """
        raise ConfigError(f"{self.name} is not trained: it has no loss. Evaluate it as it is.")

    @property
    def has_softmax_loss(self) -> bool:
        """Whether the loss is a softmax over the catalogue, for which the trainer may draw negatives."""
        return False

    @property
    def supervision(self) -> Supervision:
        """Where the loss is taken if the recipe does not say; ``prefix`` for a model whose states see later items."""
        return "every" if self.traits.is_causal else "prefix"

    @property
    def is_causal(self) -> bool:
        """Whether the state at t depends only on items up to t; else the model is probed prefix by prefix."""
        return self.traits.is_causal

    @property
    def why_no_layers(self) -> str:
        """Why the instrument cannot probe this model; an empty string if it can."""
        return self.traits.why_no_layers

    def layers(self) -> list[tuple[str, LayerState, nn.Module]]:
        """Return the layers in the order of computation, as the instrument reads them; empty if there are none."""
        return []

    @property
    def note(self) -> str:
        """Cautions for a reader: why clauses of the contract are not met; an empty string if all are."""
        return "; ".join(dict.fromkeys(self.traits.exceptions.values()))

    @property
    def width(self) -> int:
        """Number of features of the states, which decides the threads of a training; 0 for a model without states."""
        return 0

    @property
    def device(self) -> torch.device:
        """Device on which histories are read."""
        tensor = next(self.parameters(), None)
        tensor = next(self.buffers(), None) if tensor is None else tensor
        return torch.device("cpu") if tensor is None else tensor.device

    def check_frozen_parts(self) -> None:
        """Raise ModelError if a part that must not be trained has changed; a model without such a part has none."""

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
        content = {"model": type(self).name, "plugin": PLUGIN, **self.config.to_dict()}
        write_text(folder / CONFIG_FILE, json.dumps(content, indent=2))
        return folder

    @classmethod
    def from_pretrained(cls, folder: str | Path, *, device: str | torch.device = "cpu") -> Self:
        """Load what :meth:`save_pretrained` wrote, in evaluation mode.

        Raises
        ------
        ModelError
            If a file is missing or unreadable, of another model, has an unknown or forbidden setting, or its weights
            do not fit the config.
        """
        config, weights = cls.read_saved(folder)
        return cls.fill(cls(config), weights, folder).to(device)

    @classmethod
    def read_saved(cls, folder: str | Path) -> tuple[Any, dict[str, torch.Tensor]]:
        """Return the config and the tensors of a saved model of this class; errors as in :meth:`from_pretrained`."""
        folder = Path(folder)
        try:
            values = read_json(folder / CONFIG_FILE)
            refuse_special(folder / WEIGHTS_FILE)
            weights = load_file(str(folder / WEIGHTS_FILE))
        except (OSError, ValueError, SafetensorError) as error:
            raise ModelError(
                f"A saved {cls.name} is a folder with readable {CONFIG_FILE} and {WEIGHTS_FILE}; reading {folder} "
                f"failed with: {error}. Give such a folder, or train the model again."
            ) from error
        if values.pop("model", None) != cls.name:
            raise ModelError(f"{folder / CONFIG_FILE} does not describe a {cls.name} model. Give another folder.")
        values.pop("plugin", None)  # folders of older versions have none
        try:
            return cls.config_class.from_dict(values), weights
        except ConfigError as error:
            raise ModelError(
                f"{folder / CONFIG_FILE} cannot be used: {what_failed(error)} Restore it, or train again."
            ) from error

    @staticmethod
    def fill(model: Model, weights: Mapping[str, torch.Tensor], folder: str | Path) -> Model:
        """Load saved tensors into a model of the same config, and return it in evaluation mode."""
        try:
            model.load_saved_state(weights)
        except RuntimeError as error:
            raise ModelError(f"The weights in {folder} do not fit their config: {error}. Train again.") from error
        return model.eval()
