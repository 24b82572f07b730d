"""FreLLM4Rec: item vectors in a frozen language model, low-passed on the graph before it and along time inside it."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from scipy.sparse import csr_array
from torch import nn

from frellm4rec.items.item_table import ItemTable, first_equal_items
from frellm4rec.models.batch import Supervision
from frellm4rec.models.config import NARROW_BELOW
from frellm4rec.models.frellm4rec.config import SOURCES, FreLLM4RecConfig, check_unchanged, traits_of, with_backbone
from frellm4rec.models.frellm4rec.regraph import graph_filter, refiltered
from frellm4rec.models.padding import run_in_groups
from frellm4rec.models.sequential import SequentialRecommender
from frellm4rec.models.traits import Traits
from frellm4rec.modules.fusion import FUSIONS
from frellm4rec.modules.tfm import TemporalFrequencyModulation
from spectral_probe.backbones import HFDecoder, load_backbone
from spectral_probe.errors import ConfigError, ModelError
from spectral_probe.graph.item_graph import ItemGraph
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.types import LayerState

#: The model that filters a backbone. A second one would filter it twice, and encode titles with the filter attached.
_OWNERS: weakref.WeakKeyDictionary[HFDecoder, weakref.ref[Any]] = weakref.WeakKeyDictionary()
#: Rows of a group of similar length in training: of 4, 8, 16 and 32, 8 or 16 took the least time from width 256 on.
GROUP_ROWS = 8


class FreLLM4Rec(SequentialRecommender):
    r"""A frozen language model that reads one fused vector per item; scores use the same vectors.

    .. math:: x_i = \mathrm{MLP}([h(L)\,e_{id}(i);\ e_{text}(i)]), \qquad s_{ui} = \langle h_u, x_i \rangle

    with :math:`h_u` the final state at the last item of the history, and the output of every block of the model
    low-passed along time. Only the fusion is trained.

    Parameters
    ----------
    config : FreLLM4RecConfig
    tables : {"id" | "text": ItemTable}
        The frozen item vectors; see :meth:`from_dataset`.
    backbone : HFDecoder, optional
        The language model; loaded by its name when left out. It is frozen, and filtered for as long as this model
        exists.
    seed : int
        Draws the initial weights of the fusion.

    Raises
    ------
    ModelError
        If the backbone is unavailable, or not the one that the config points to.
    ConfigError
        If the mode needs a causal backbone and this one is not, or the backbone belongs to another model already.

    Notes
    -----
    Source: FreLLM4Rec section 4, Eqs. (2), (3), (5) to (9). The fused vectors start with the same RMS norm as the
    backbone's token embeddings. Saved are the trained parameters, the item tables and the reference to the backbone,
    never the backbone.
    """

    name: ClassVar[str] = "frellm4rec"
    #: Of the default configuration; those of an instance follow from its own, its backbone and its filter.
    traits = Traits(is_causal=False, reads=frozenset({"ids", "titles"}))
    config_class = FreLLM4RecConfig
    config: FreLLM4RecConfig

    def __init__(
        self,
        config: FreLLM4RecConfig,
        tables: Mapping[str, ItemTable],
        *,
        backbone: HFDecoder | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        backbone = backbone or load_backbone(config.backbone, revision=config.backbone_revision)
        _check_is_free(backbone)
        self.config = with_backbone(config, backbone)
        expected = SOURCES[config.inputs]
        if tuple(tables) != expected or any(table.n_items != config.n_items for table in tables.values()):
            sizes = {name: table.n_items for name, table in tables.items()}
            raise ConfigError(
                f"inputs {config.inputs!r} needs tables {expected} of {config.n_items} items; got {sizes}."
            )
        if config.mode == "causal" and not backbone.is_causal:
            raise ConfigError(f"{backbone.name!r} reads in both directions, so mode 'causal' would leak. Use 'prefix'.")
        self.backbone = backbone.requires_grad_(False).eval()
        self.tables = nn.ModuleDict(tables)
        with torch.random.fork_rng(devices=[]):  # layers draw from the global generator; restore its state
            torch.manual_seed(seed)
            widths = [table.width for table in tables.values()]
            self.fusion = FUSIONS[config.fusion](widths, backbone.width, config.n_hidden, config.dropout)
            self.fusion.to(backbone.device)
            self.tables.to(backbone.device)
        self._match_rms_norm()
        self.tfm = TemporalFrequencyModulation(
            config.cutoff,
            config.tfm_order,
            config.mode,
            layers=config.layers,
            learnable=config.learnable_cutoff,
            n_layers=backbone.n_blocks,
        ).to(backbone.device)
        if config.train_norms:
            for parameter in self._norms().values():
                parameter.requires_grad_(True)
        self.traits = traits_of(config, is_causal=backbone.is_causal and self.tfm.is_causal)
        self._attach()
        self._cached: tuple[object, torch.Tensor] | None = None
        self._equal_items: tuple[object, torch.Tensor | None] | None = None

    @classmethod
    def from_dataset(
        cls,
        config: FreLLM4RecConfig,
        dataset: Dataset,
        *,
        seed: int = 0,
        device: str = "cpu",
        dtype: str = "auto",
        backbone: HFDecoder | None = None,
    ) -> Self:
        """Build a model for a data set: ID embeddings and graph from training interactions alone, text from titles.

        Parameters
        ----------
        config : FreLLM4RecConfig
        dataset : Dataset
        seed : int
            Of the ID embeddings and of the fusion's initial weights.
        device, dtype : str
            Of the backbone.
        backbone : HFDecoder, optional
            Loaded by its name when left out.

        Raises
        ------
        DataError
            If text is wanted and the data set has no titles.
        """
        from frellm4rec.items.vectors import id_item_table, text_item_table

        backbone = backbone or load_backbone(
            config.backbone, revision=config.backbone_revision, device=device, dtype=dtype
        )
        _check_is_free(backbone)
        graph = ItemGraph.from_interactions(dataset.train.user_items, self_loops=config.self_loops)
        tables = {}
        for source in SOURCES[config.inputs]:
            if source == "id":
                vectors = id_item_table(dataset, config.id_source, seed=seed, device=device)
            else:
                vectors = text_item_table(dataset, backbone)
            of_source = graph_filter(config, graph) if source in config.glpf_targets else None
            tables[source] = ItemTable.filtered(torch.from_numpy(vectors), of_source)
        return cls(config, tables, backbone=backbone, seed=seed)

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, *, device: str | torch.device = "cpu", backbone: HFDecoder | str | None = None
    ) -> Self:
        """Load what :meth:`save_pretrained` wrote, in evaluation mode.

        Parameters
        ----------
        folder : path
        device : str or torch.device
        backbone : HFDecoder or str, optional
            The language model, or its new path or name, if the config's is out of date; its weights must be the same.

        Raises
        ------
        ModelError
            If a file is unreadable, or the backbone is absent or not the one the model was trained on.
        """
        config, weights = cls.read_saved(folder)
        if isinstance(backbone, str):
            backbone = load_backbone(backbone, device=str(device))
        backbone = backbone or load_backbone(
            config.backbone,
            revision=config.backbone_revision,
            device=str(device),
            dtype=config.backbone_dtype or "auto",
        )
        try:
            tables = {source: ItemTable.from_saved(weights, f"tables.{source}.") for source in SOURCES[config.inputs]}
        except KeyError as error:
            raise ModelError(f"The weights in {folder} lack {error}. Train the model again.") from error
        return cls.fill(cls(config, tables, backbone=backbone), weights, folder).to(device)

    @property
    def width(self) -> int:
        """Number of features of the states: that of the backbone."""
        return self.backbone.width

    @property
    def supervision(self) -> Supervision:
        """Where the loss is taken; set by the mode, also if the filter is off, so that variants stay comparable."""
        return "prefix" if self.config.mode == "prefix" else "every"

    @property
    def note(self) -> str:
        """Cautions about the states for a reader, or an empty string."""
        return "; ".join(part for part in (self.backbone.note, super().note) if part)

    @property
    def device(self) -> torch.device:
        """Device on which histories are read; the blocks of the backbone may lie on several."""
        return next(self.fusion.parameters()).device

    @property
    def number_format(self) -> str | None:
        """How a GGUF file stored the backbone's weights; None if they were not rounded."""
        return self.backbone.number_format

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the fusion; the backbone stays in evaluation mode."""
        super().train(mode)
        checkpointed = self._recomputed_parts()
        self.backbone.eval()
        for part in checkpointed:  # only the flag of the layer itself: dropout inside it stays off
            part.training = mode
        return self

    def enable_gradient_checkpointing(self) -> None:
        """Recompute the backbone's blocks in the backward pass: less memory, one more forward pass."""
        self.backbone.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        self.train(self.training)

    def forward(self, inputs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return the final states, (batch, position, feature) float32; see the base class.

        In the two-sided modes the last valid row is the state of the whole history; rows before it contain later items.
        """
        self.check_inputs(inputs, lengths)
        vectors = self.item_vectors(inputs)
        if not self._runs_in_groups(len(inputs)):
            return self.backbone.run(vectors, lengths).float()
        return run_in_groups(self.backbone.run, vectors, lengths, GROUP_ROWS).float()

    def _runs_in_groups(self, n_rows: int) -> bool:
        """Tell whether a batch is run in groups of similar length: the same states up to rounding, less padding.

        In training, where the batch is drawn at random; on the CPU, where padding costs as much as items. Not under
        recomputation, which needs the lengths of the whole batch, and not for a narrow backbone.
        """
        is_worth_it = n_rows > GROUP_ROWS and self.width >= NARROW_BELOW and self.backbone.device.type == "cpu"
        return self.training and is_worth_it and not self._recomputed_parts()

    def _recomputed_parts(self) -> list[Any]:
        """Return the parts of the backbone whose blocks are recomputed in the backward pass."""
        return [part for part in self.backbone.modules() if getattr(part, "gradient_checkpointing", False)]

    def item_vectors(self, items: torch.Tensor) -> torch.Tensor:
        """Return the fused vectors of items of any shape, (…, d_model)."""
        return self.fusion(*(table(items) for table in self.tables.values()))

    def item_embeddings(self) -> torch.Tensor:
        """Return the fused vectors of all items, (n_items, d_model); cached between calls that need no gradient.

        Without a gradient, items with equal tables get equal vectors to the bit: a matrix product rounds rows
        differently by their position, and such items would then be ranked by it.
        """
        if torch.is_grad_enabled() or self.training:
            return self._fuse_all()
        parameters = [*self.fusion.parameters(), *self.tables.parameters()]
        key = tuple((p.data_ptr(), p._version, p.dtype) for p in parameters)
        if self._cached is None or self._cached[0] != key:
            vectors, first = self._fuse_all(), self._first_equal_items()
            self._cached = (key, vectors if first is None else vectors[first])
        return self._cached[1]

    def _first_equal_items(self) -> torch.Tensor | None:
        """Return :func:`first_equal_items` of the tables; computed again only if a table was loaded or moved."""
        tables = list(self.tables.values())
        key = tuple((table.basis.data_ptr(), table.basis._version, str(table.basis.device)) for table in tables)
        if self._equal_items is None or self._equal_items[0] != key:
            self._equal_items = (key, first_equal_items(tables))
        return self._equal_items[1]

    def layers(self) -> list[tuple[str, LayerState, nn.Module]]:
        """Return the backbone's layers; a block's state is its output after the filter along time."""
        return self.backbone.layers()

    @property
    def has_graph(self) -> bool:
        """Whether item vectors are filtered on a graph of the training interactions."""
        is_on = self.config.alpha > 0 or self.config.glpf_keep is not None
        return is_on and bool(set(self.config.glpf_targets) & set(self.tables))

    def on_graph(self, other: csr_array, training: csr_array) -> Self:
        """Return a copy whose graph filter uses the interactions ``other`` in place of ``training``, its own.

        The item vectors keep what they were trained on.

        Raises
        ------
        ConfigError
            If the filter cannot be undone.
        """
        twin = copy.deepcopy(self)
        graphs = ItemGraph.from_interactions(training), ItemGraph.from_interactions(other)
        for source in set(self.config.glpf_targets) & set(self.tables):
            twin.tables[source] = refiltered(self.tables[source], self.config, *graphs)
        return twin

    def check_frozen_parts(self) -> None:
        """Refuse a frozen backbone whose weights have changed."""
        if not self.config.train_norms:
            check_unchanged(self.config, self.backbone)

    def input_modules(self) -> list[nn.Module]:
        """Return the modules that make the inputs of the first block; a control that redraws weights keeps these."""
        return [self.tables, self.fusion]

    def saved_state(self) -> dict[str, torch.Tensor]:
        """Return the trained parameters and the item tables; of the backbone only norms, and only if trained."""
        tensors = {name: tensor for name, tensor in self.state_dict().items() if not name.startswith("backbone.")}
        return tensors | (self._norms() if self.config.train_norms else {})

    def load_saved_state(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Load what :meth:`saved_state` returned; the backbone's frozen weights do not change."""
        expected = set(self.saved_state())
        if expected != set(weights):
            raise RuntimeError(f"names differ in {sorted(expected ^ set(weights))[:4]}")
        self.load_state_dict(dict(weights), strict=False)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Copy model and backbone; the copy has its own hooks."""
        self._attachment.remove()
        try:
            tables = {name: copy.deepcopy(table, memo) for name, table in self.tables.items()}
            # Trained norms are part of the copied backbone, so its hash differs from backbone_weights.
            config = replace(self.config, backbone_weights=None)
            twin = type(self)(config, tables, backbone=copy.deepcopy(self.backbone, memo))
            twin.config = self.config
            twin.load_saved_state(self.saved_state())
        finally:
            self._attach()
        return twin.to(self.backbone.device).train(self.training)

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Move or cast everything except a backbone that is spread over several devices."""
        if not self.backbone.is_spread:
            return super()._apply(fn, recurse)
        for part in (self.tables, self.fusion, self.tfm):
            part._apply(fn, recurse)
        return self

    def _attach(self) -> None:
        """Filter the backbone for as long as this model exists."""
        self._attachment = self.tfm.attach(self.backbone)
        weakref.finalize(self, self._attachment.remove)
        _OWNERS[self.backbone] = weakref.ref(self)

    def _fuse_all(self) -> torch.Tensor:
        return self.fusion(*(table() for table in self.tables.values()))

    def _norms(self) -> dict[str, nn.Parameter]:
        """Return the parameters of the backbone's norms by their names in this model."""
        return {
            f"backbone.{path}.{name}": parameter
            for path, part in self.backbone.named_modules()
            if "norm" in type(part).__name__.lower()
            for name, parameter in part.named_parameters(recurse=False)
        }

    @torch.no_grad()
    def _match_rms_norm(self) -> None:
        """Scale the fusion's last layers so that item vectors start with the same RMS norm as the token embeddings."""
        self.fusion.eval()  # dropout would draw from the global generator and make the scale random
        rms = float(self._fuse_all().square().mean().sqrt())
        self.fusion.train()
        factor = self.backbone.token_rms() / rms
        last = [self.fusion.out] if self.config.fusion == "mlp" else list(self.fusion.projections)
        for layer in last:
            layer.weight.mul_(factor)
            layer.bias.mul_(factor)


def _check_is_free(backbone: HFDecoder) -> None:
    """Refuse a backbone that another model filters."""
    owner = _OWNERS.get(backbone)
    if owner is not None and owner() is not None:
        raise ConfigError(
            f"Backbone {backbone.name!r} belongs to another FreLLM4Rec, which already filters it along time. Load it "
            "once for each model, or delete the other model first."
        )
