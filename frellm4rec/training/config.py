"""The settings of a training run, and the record of what it did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, Self

from frellm4rec.models.config import LARGEST, LARGEST_FLOAT, identity_of, later
from spectral_probe.errors import ConfigError, check_choice, check_known
from spectral_probe.storage.reading import check_shape
from spectral_probe.types import MOST_SEED

#: Catalogues up to this size are trained with the full softmax, larger ones with sampled negatives.
FULL_SOFTMAX_UP_TO = 20_000
_CHOICES = {
    "optimizer": ("adam", "adamw"),
    "loss": ("auto", "full", "sampled"),
    "mixed_precision": ("no", "bf16", "fp16"),
    "supervision": ("auto", "every", "prefix", "all-prefixes"),
}


#: More threads than any machine has; PyTorch ends without a message where the system cannot start them.
MOST_THREADS = 1024


def check_threads(threads: object) -> None:
    """Refuse a number of threads that is not a whole number in 1…1,024; None leaves the choice to the width."""
    is_whole = isinstance(threads, int) and not isinstance(threads, bool)
    if threads is not None and not (is_whole and 1 <= threads <= MOST_THREADS):
        raise ConfigError(
            f"threads must be a whole number of at least 1, and at most {MOST_THREADS}; got {threads!r}. Leave it out "
            "to choose one."
        )


def check_seed(seed: object) -> None:
    """Refuse a seed that is not a whole number in 0…2³² − 1, the range of all generators."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MOST_SEED:
        raise ConfigError(f"seed must be a whole number of at least 0; got {seed!r}. Generators take 0 to {MOST_SEED}.")


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of a training run.

    Attributes
    ----------
    n_epochs : int
        Most passes over the samples: users, or with ``all-prefixes`` their prefixes.
    batch_size : int
        Samples per optimizer step.
    learning_rate : float
    validate_every : int
        Epochs between two validations.
    patience : int
        Validations without a better NDCG after which training stops.
    k : int
        Cut of the validation NDCG (full ranking).
    optimizer : {"adam", "adamw"}
    weight_decay : float
        Subtracted from the weights by ``adamw``; with ``adam``, the weight of an L2 penalty, added to the gradient.
    loss : {"auto", "full", "sampled"}
        Softmax over all items, or over the target and sampled ones; ``auto`` takes all up to 20,000 items. Only for
        models whose loss is a softmax.
    n_negatives : int
        Items sampled for each step of the sampled softmax; a catalogue that is trained with all items ignores it.
    accumulation : int
        Parts in which a batch is run: less memory, the same step up to rounding.
    max_grad_norm : float or None
        Clip the norm of the gradient.
    mixed_precision : {"no", "bf16", "fp16"}
    gradient_checkpointing : bool
        Recompute the backbone's blocks in the backward pass.
    save_every : int
        Optimizer steps between two checkpoints within an epoch; 0: at the end of each epoch only.
    supervision : {"auto", "every", "prefix", "all-prefixes"}
        Where the loss is taken: at every position (causal models); at the last position of one prefix of each user,
        drawn again for each step; of every prefix, each a sample of the epoch. ``auto``: what the model says. In
        expectation ``prefix`` weights users equally, ``all-prefixes`` positions.
    decay_every : int
        Epochs after which the learning rate is multiplied with ``decay_factor``, again and again; 0: never.
    decay_factor : float in (0, 1]
    """

    n_epochs: int = 400
    batch_size: int = 128
    learning_rate: float = 1e-3
    validate_every: int = 10
    patience: int = 8
    k: int = 10
    optimizer: Literal["adam", "adamw"] = "adam"
    weight_decay: float = 0.0
    loss: Literal["auto", "full", "sampled"] = "auto"
    n_negatives: int = 512
    accumulation: int = 1
    max_grad_norm: float | None = None
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    gradient_checkpointing: bool = False
    save_every: int = 0
    supervision: Literal["auto", "every", "prefix", "all-prefixes"] = later("auto")
    decay_every: int = later(0)
    decay_factor: float = later(0.1)

    def __post_init__(self) -> None:
        for name in ("n_epochs", "batch_size", "validate_every", "patience", "k", "n_negatives", "accumulation"):
            self._check_whole(name, 1)
        self._check_whole("save_every", 0)
        self._check_whole("decay_every", 0)
        for name in ("learning_rate", "weight_decay", "max_grad_norm"):
            if isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} must be a number; got {getattr(self, name)!r}. Correct it.")
        most = LARGEST_FLOAT
        if not isinstance(self.learning_rate, (int, float)) or not 0.0 < self.learning_rate <= most:
            raise ConfigError(
                f"learning_rate must be above 0, and at most {most:g}; got {self.learning_rate!r}. Try 1e-3."
            )
        if not isinstance(self.weight_decay, (int, float)) or not 0.0 <= self.weight_decay <= most:
            raise ConfigError(f"weight_decay must be at least 0, and at most {most:g}; got {self.weight_decay!r}.")
        is_number = isinstance(self.decay_factor, (int, float)) and not isinstance(self.decay_factor, bool)
        if not is_number or not 0.0 < self.decay_factor <= 1.0:
            raise ConfigError(f"decay_factor must lie in (0, 1]; got {self.decay_factor!r}. 0.1 is common.")
        if not isinstance(self.gradient_checkpointing, bool):
            raise ConfigError(f"gradient_checkpointing must be true or false; got {self.gradient_checkpointing!r}.")
        clip = self.max_grad_norm
        is_off = clip in (None, float("inf"))
        if not is_off and (not isinstance(clip, (int, float)) or not 0.0 < clip <= most):
            raise ConfigError(
                f"max_grad_norm must be above 0, and at most {most:g}, or null for no clipping; got {clip!r}."
            )
        for name, known in _CHOICES.items():
            check_choice(name, getattr(self, name), known)

    def _check_whole(self, name: str, low: int) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise ConfigError(f"{name} must be at least {low}, a whole number; got {value!r}.")
        if value > LARGEST:
            raise ConfigError(f"{name} must be at most {LARGEST}; got {value!r}.")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build the config from names and values; an unknown name is an error with a suggestion."""
        check_known(values, (entry.name for entry in fields(cls)), "A training")
        # YAML reads no as false.
        is_off = values.get("mixed_precision") is False
        return cls(**{**values, **({"mixed_precision": "no"} if is_off else {})})

    def to_dict(self) -> dict[str, Any]:
        """Return names and values."""
        return asdict(self)

    def identity(self) -> dict[str, Any]:
        """Return the settings that a hash of the run takes, see :meth:`RecommenderConfig.identity`."""
        return identity_of(self)

    def learning_rate_in(self, epoch: int) -> float:
        """Return the learning rate of an epoch, counted from 1."""
        n_decays = (epoch - 1) // self.decay_every if self.decay_every else 0
        return float(self.learning_rate * self.decay_factor**n_decays)

    def is_sampled(self, n_items: int) -> bool:
        """Tell whether a catalogue of this size is trained with sampled negatives."""
        return self.loss == "sampled" or (self.loss == "auto" and n_items > FULL_SOFTMAX_UP_TO)


@dataclass(frozen=True)
class Effort:
    """What a training run cost.

    Attributes
    ----------
    n_steps : int
        Optimizer steps.
    n_samples, n_tokens : int or None
        Histories, and positions in them, that were read in these steps; None if the run began before they were counted.
    seconds : float
        Time spent training and validating, interruptions excluded.
    peak_memory : int
        Bytes: most that the process held at a time, or on a GPU most that PyTorch did; of a resumed run, the process
        that finished it.
    cpu_seconds : float or None
        Time that the process computed, all threads together; other programs on the machine do not lengthen it. None if
        the run began before it was counted.
    """

    n_steps: int
    n_samples: int | None
    n_tokens: int | None
    seconds: float
    peak_memory: int
    cpu_seconds: float | None = None


_RECORD = {
    "seed": int,
    "best_epoch?": int,
    "epochs?": [int],
    "losses?": [(float, None)],
    "validation_ndcg?": [float],
    "threads?": (int, None),
    "attention?": (str, None),
    "supervision?": str,
    "effort?": (
        {
            "n_steps": int,
            "n_samples": (int, None),
            "n_tokens": (int, None),
            "seconds": float,
            "peak_memory": int,
            "cpu_seconds?": (float, None),
        },
        None,
    ),
}


@dataclass(frozen=True)
class TrainingRecord:
    """What a training run did.

    Attributes
    ----------
    epochs, losses, validation_ndcg : lists of equal length
        At each validation: the epoch (from 1), its mean training loss, and NDCG@k on the validation items. A model that
        is not trained has one entry: epoch 0 and the loss None.
    best_epoch : int
        Epoch whose weights the model holds.
    seed : int
    threads : int or None
        Threads of PyTorch on the CPU; rounding depends on them. None: not trained on the CPU. Records without the
        number are of trainings with one thread.
    attention : str or None
        Attention of the backbone in the steps, such as ``eager``; None: no such choice, or a record without it.
    supervision : str
        Where the loss was taken; empty for a model that is not trained, and in older records.
    effort : Effort or None
        None in older records.
    """

    seed: int
    best_epoch: int = 0
    epochs: list[int] = field(default_factory=list)
    losses: list[float | None] = field(default_factory=list)
    validation_ndcg: list[float] = field(default_factory=list)
    threads: int | None = 1
    attention: str | None = None
    supervision: str = ""
    effort: Effort | None = field(default=None, compare=False)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Read what :meth:`to_dict` gave, of this version or an older one; ValueError if it is damaged."""
        check_shape(values, _RECORD, "record")
        n_validations = {len(values.get(name, ())) for name in ("epochs", "losses", "validation_ndcg")}
        if len(n_validations) > 1:
            raise ValueError(f"epochs, losses and validation_ndcg have lengths {sorted(n_validations)}")
        effort = values.get("effort")
        try:
            return cls(**{**values, "effort": None if effort is None else Effort(**effort)})
        except TypeError as error:  # a name that this version does not know
            raise ValueError(str(error)) from error

    @property
    def best_ndcg(self) -> float:
        """The validation NDCG of the best epoch; −1 before the first validation."""
        return max(self.validation_ndcg, default=-1.0)

    def after(self, epoch: int, loss: float | None, ndcg: float) -> TrainingRecord:
        """Return the record with one more validation."""
        best = epoch if ndcg > self.best_ndcg else self.best_epoch
        return replace(
            self,
            best_epoch=best,
            epochs=[*self.epochs, epoch],
            losses=[*self.losses, loss],
            validation_ndcg=[*self.validation_ndcg, ndcg],
        )

    def to_dict(self) -> dict[str, Any]:
        """Return names and values."""
        return asdict(self)
