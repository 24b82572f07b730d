"""The settings of FreLLM4Rec, checked when they are made."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from frellm4rec.models.config import RecommenderConfig
from frellm4rec.models.traits import Traits
from frellm4rec.modules.butterworth import check_filter
from frellm4rec.modules.fusion import FUSIONS
from frellm4rec.modules.glpf import check_alpha
from frellm4rec.modules.tfm import MODES, Mode, TemporalFrequencyModulation
from spectral_probe.backbones import HFDecoder, weights_fingerprint
from spectral_probe.errors import ConfigError, ModelError

#: ``inputs`` of a config → the item tables that the fusion joins, in this order.
SOURCES: dict[str, tuple[str, ...]] = {"id": ("id",), "text": ("text",), "id+text": ("id", "text")}


@dataclass(frozen=True)
class FreLLM4RecConfig(RecommenderConfig):
    """Settings of :class:`FreLLM4Rec`.

    Attributes
    ----------
    n_items, max_length : int
        Size of the catalogue; number of most recent items that are read.
    backbone : str
        Alias, local folder or hub repository of the language model.
    backbone_revision : str or None
        Commit of a hub repository.
    backbone_weights : str or None
        Hash of the language model's weights (:attr:`HFDecoder.revision`); filled in at construction. A given value that
        differs is an error.
    backbone_dtype : str or None
        Dtype of these weights; filled in at construction. A saved model loads its backbone in this dtype.
    inputs : {"id+text", "id", "text"}
        Which vectors describe an item.
    id_source : str
        Plug-in of the group ``spectral_probe.inputs`` that gives the ID embeddings; ``id`` is SASRec's item table.
    fusion : {"mlp", "gate"}
        Eq. (2), or the gated sum of the published code.
    n_hidden : int or None
        Width inside the fusion; that of the language model when left out.
    dropout : float
        In the fusion, in training.
    alpha, glpf_order, self_loops, learnable_alpha
        Of the graph filter, see :class:`GraphLowPassFilter`; alpha 0 is off.
    glpf_keep : float or None
        Use the ideal low-pass that keeps this share of the spectrum instead of the polynomial.
    glpf_targets : tuple of {"id", "text"}
        Which tables are filtered.
    cutoff, tfm_order, mode, layers, learnable_cutoff
        Of the filter along time, see :class:`TemporalFrequencyModulation`; cutoff None is off. ``mode`` also decides
        how the model is trained: ``prefix`` on the last position of a prefix redrawn for each step, the others at
        every position.
    train_norms : bool
        Fit the weights of the language model's norms too; its other weights are never trained.
    """

    backbone: str = "minilm"
    backbone_revision: str | None = None
    backbone_weights: str | None = None
    backbone_dtype: str | None = None
    inputs: Literal["id+text", "id", "text"] = "id+text"
    id_source: str = "id"
    fusion: Literal["mlp", "gate"] = "mlp"
    n_hidden: int | None = None
    dropout: float = 0.0
    alpha: float = 0.3
    glpf_order: int = 1
    glpf_keep: float | None = None
    glpf_targets: tuple[str, ...] = ("id",)
    self_loops: bool = True
    learnable_alpha: bool = False
    cutoff: float | None = 0.3
    tfm_order: int = 2
    mode: Mode = "prefix"
    layers: tuple[int, ...] | None = None
    learnable_cutoff: bool = False
    train_norms: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("glpf_targets", "layers"):  # lists, when they come from YAML or JSON
            value = getattr(self, name)
            object.__setattr__(self, name, tuple(value) if isinstance(value, list) else value)
        for name, known in (("inputs", SOURCES), ("fusion", FUSIONS), ("mode", MODES)):
            self.check_one_of(name, known)
        if self.n_hidden is not None:
            self.check_at_least("n_hidden", 1)
            if self.fusion == "gate":
                raise ConfigError(f"The gated sum has no hidden layer; got n_hidden={self.n_hidden}. Leave it out.")
        for name in ("self_loops", "learnable_alpha", "learnable_cutoff", "train_norms"):
            self.check_switch(name)
        self.check_within("dropout", "[0, 1)", "The default is 0.")
        check_alpha(self.alpha, self.glpf_order)
        check_filter(self.cutoff, self.tfm_order)
        if self.glpf_keep is not None and not 0.0 < self.glpf_keep <= 1.0:
            raise ConfigError(f"glpf_keep is the part of the spectrum that is kept, in (0, 1]; got {self.glpf_keep}.")
        if not set(self.glpf_targets) <= {"id", "text"}:
            raise ConfigError(f"glpf_targets may name id and text; got {', '.join(map(str, self.glpf_targets))}.")
        if self.learnable_alpha and self.glpf_keep is not None:
            raise ConfigError("The ideal low-pass (glpf_keep) has no alpha to learn. Leave out one of the two.")
        if self.learnable_alpha and not 0.0 < self.alpha < 1.0:
            raise ConfigError(f"A learnable alpha starts inside (0, 1); got {self.alpha}. Start at 0.3.")
        # Check the settings of the filter along time here, before the item tables are made.
        TemporalFrequencyModulation(
            self.cutoff, self.tfm_order, self.mode, layers=self.layers, learnable=self.learnable_cutoff
        )


def traits_of(config: FreLLM4RecConfig, *, is_causal: bool) -> Traits:
    """Return what a model of this configuration says of itself."""
    is_leaky = config.mode == "two_sided_leaky"
    reason = "trained with later items in view (two_sided_leaky)"
    return Traits(
        is_causal=is_causal,
        reads=frozenset({"id": "ids", "text": "titles"}[source] for source in SOURCES[config.inputs]),
        exceptions={"blind loss": reason} if is_leaky else {},
    )


def with_backbone(config: FreLLM4RecConfig, backbone: HFDecoder) -> FreLLM4RecConfig:
    """Return the config with a full reference to the backbone; refuse a backbone with other weights."""
    weights = backbone.revision
    if config.backbone_weights not in (None, weights):
        raise ModelError(
            f"This model was trained on backbone {config.backbone!r} with weights {config.backbone_weights}; "
            f"{backbone.name!r} has {weights}, so its states would differ. Give the backbone that the model was "
            "trained on."
        )
    folder = Path(config.backbone).expanduser()
    return replace(
        config,
        backbone=str(folder.resolve()) if folder.is_dir() else config.backbone,
        backbone_weights=weights,
        backbone_dtype=str(backbone.dtype).removeprefix("torch."),
        backbone_revision=config.backbone_revision or backbone.hub_revision,
    )


def check_unchanged(config: FreLLM4RecConfig, backbone: HFDecoder) -> None:
    """Refuse a frozen backbone whose weights have changed since the model was made."""
    weights = weights_fingerprint(backbone.model)[:16]
    if weights != config.backbone_weights:
        raise ModelError(
            f"The frozen backbone changed during training, from {config.backbone_weights} to {weights}. "
            "This is a bug: please report it with the run's config.yaml."
        )
