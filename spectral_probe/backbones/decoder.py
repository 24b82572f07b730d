"""Hugging Face decoders as layered models; their layers are found by structure and verified when they are loaded."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from spectral_probe.backbones.configs import n_positions, runs_causally
from spectral_probe.backbones.devices import execution_device, is_spread, stored_tensor
from spectral_probe.backbones.discovery import discover
from spectral_probe.backbones.hub_access import HubAccess
from spectral_probe.backbones.left_over import check_in_memory, inactive_adapters
from spectral_probe.backbones.weight_files import snapshot
from spectral_probe.errors import ConfigError, DataError, ModelError, ShapeError
from spectral_probe.storage.hashing import digest
from spectral_probe.types import LayerState

#: Rows of the token table processed at once: it can be 150,000 × 3,584 and must not be copied whole.
_TOKENS_AT_ONCE = 4096


def weights_fingerprint(module: nn.Module) -> str:
    """Return the SHA-256, in hex, over names, shapes, dtypes and bytes of a module's parameters and buffers."""

    def parts() -> Iterator[str | npt.NDArray[Any]]:
        for name, reference in sorted(module.state_dict().items()):
            tensor = stored_tensor(module, name, reference)
            yield f"{name}|{tuple(tensor.shape)}|{tensor.dtype}|"
            yield tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()

    return digest(parts())


class HFDecoder(nn.Module):
    r"""A Hugging Face decoder that reads one item per position, as a :class:`LayeredModel`.

    Parameters
    ----------
    model : PreTrainedModel
        Any decoder whose layers :func:`spectral_probe.backbones.discovery.discover` can verify. Of a model with a head
        (``…ForCausalLM``) the body is used.
    item_embeddings : (n_items, d_model) array, optional
        The vector fed for each item. Without it only float inputs can be run.
    name : str, optional
        Name of the model in outputs; default: the name in the configuration, else the family.
    source : str, optional
        Folder or repository of the weights; the tokenizer is read from there on first use.
    access : HubAccess, optional
        How the repository is read.
    quantization : {None, "8bit"}
        How the weights are stored.
    trust_remote_code : bool
        Whether a tokenizer may run code from its repository.

    Attributes
    ----------
    model : PreTrainedModel
        The body, without a head.
    family : str
        ``config.model_type``.
    is_causal : bool
        False if the configuration says so, or an earlier state changed with a later input when the layers were
        verified; such a model is probed prefix by prefix.
    hub_revision : str or None
        The commit on the hub, if it is known.
    adapter : str or None
        Folder or repository of the adapter that was applied to the weights.
    number_format : str or None
        How a GGUF file stored the weights and what that leaves of them; None if they were not rounded.
    left_over : tuple of str
        Weights and files of the checkpoint that are no part of the body and were not read (heads are not listed);
        of a model in memory, its inactive adapters.
    note : str
        What sets the states apart from those of a pre-norm decoder; empty for one.

    Raises
    ------
    ModelError
        If the layers could not be verified; the message says which check failed. If a model in memory lacks weights
        of the folder that it was read from, or its adapters are switched off.
    ShapeError
        If ``item_embeddings`` does not have the width of the model.
    """

    item_embeddings: torch.Tensor | None

    def __init__(
        self,
        model: nn.Module,
        item_embeddings: npt.ArrayLike | torch.Tensor | None = None,
        *,
        name: str | None = None,
        source: str | None = None,
        access: HubAccess | None = None,
        quantization: str | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        super().__init__()
        inactive = inactive_adapters(model)
        unwrap: Any = getattr(model, "get_base_model", None)
        if unwrap is not None:  # a peft wrapper; its adapters are inside the wrapped model
            model = unwrap()
        config: Any = getattr(model, "config", None)
        self.family: str = str(getattr(config, "model_type", type(model).__name__))
        self.model: Any = getattr(model, "base_model", model)
        self._layout = discover(self.model)
        self.n_blocks = self._layout.n_blocks
        self.name = name or str(getattr(config, "name_or_path", "")) or self.family
        declared = runs_causally(config)
        self.is_causal = self._layout.is_causal and declared
        notes = [
            "no final norm is recorded" if self._layout.final_norm is None else "",
            "earlier states change with later items, against the configuration" if declared > self.is_causal else "",
        ]
        self.note = "; ".join(note for note in notes if note)
        if self.family == "bert":
            mode = "run causally (is_decoder=True)" if self.is_causal else "two-sided"
            self.note = f"encoder {mode}; states are block outputs after their norm"
        self.source, self.quantization = source, quantization
        self._access = access or HubAccess()
        self.hub_revision = self._access.commit
        self.adapter: str | None = None
        self.number_format: str | None = None
        self.left_over = inactive
        if source is None and (folder := _origin(config)) is not None:
            check_in_memory(self.model, self._layout.blocks, folder)
        self._trust_remote_code = trust_remote_code
        self._tokenizer: Any = None
        self._revision: tuple[object, str] = (None, "")
        self.register_buffer("item_embeddings", None, persistent=False)
        if item_embeddings is not None:
            self.set_item_embeddings(item_embeddings)
        self.eval()

    @property
    def blocks_path(self) -> str:
        """Path of the list of blocks in :attr:`model`."""
        return self._layout.blocks

    @property
    def width(self) -> int:
        """Width d of the states."""
        return self._layout.width

    @property
    def device(self) -> torch.device:
        """Device of the first block, where inputs go; other blocks may be on other devices."""
        return execution_device(self.model.get_submodule(self._layout.blocks)[0])

    @property
    def is_spread(self) -> bool:
        """Whether the weights are on several devices or offloaded, so that the model cannot be moved or copied."""
        return is_spread(self.model)

    @property
    def dtype(self) -> torch.dtype:
        """dtype of the weights."""
        dtype: torch.dtype = next(self.model.parameters()).dtype
        return dtype

    @property
    def revision(self) -> str:
        """First 16 hex digits of the SHA-256 over the model's weights, item embeddings left out; hashed once."""
        weights = [*self.model.parameters(), *self.model.buffers()]
        # Any in-place change raises _version and any replacement changes the address: a stale hash is never returned.
        key = tuple((w.data_ptr(), w._version, w.dtype) for w in weights)
        if self._revision[0] != key:
            self._revision = (key, weights_fingerprint(self.model)[:16])
        return self._revision[1]

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the weights, read on first use.

        Raises
        ------
        ModelError
            If there is none, or it cannot be read.
        """
        if self._tokenizer is None:
            self._tokenizer = read_tokenizer(self.name, self.source, self._access, self._trust_remote_code)
        return self._tokenizer

    def set_item_embeddings(self, item_embeddings: npt.ArrayLike | torch.Tensor) -> None:
        """Set the vector fed for each item, (n_items, d_model); cast to the model's dtype and device."""
        table = torch.as_tensor(
            item_embeddings if isinstance(item_embeddings, torch.Tensor) else np.asarray(item_embeddings)
        )
        if table.ndim != 2 or table.shape[1] != self.width:
            raise ShapeError(
                f"item_embeddings must be (n_items, {self.width}) for {self.name!r}; got {tuple(table.shape)}. "
                "Use spectral_probe.inputs.item_vectors to bring item vectors to the width of a model."
            )
        self.item_embeddings = table.detach().to(device=self.device, dtype=self.dtype)

    def __deepcopy__(self, memo: dict[int, Any]) -> HFDecoder:
        """Copy the model with its weights; spread, offloaded or 8-bit weights cannot be copied."""
        if self.is_spread or self.quantization is not None:
            raise ConfigError(
                f"Only an unquantised model on one device can be copied; {self.name!r} is "
                f"{'quantised' if self.quantization else 'spread over devices'}. Leave out the random-weights control, "
                "or load the model without device_map and quantize."
            )
        twin = type(self).__new__(type(self))
        memo[id(self)] = twin
        twin.__dict__.update({name: copy.deepcopy(value, memo) for name, value in self.__dict__.items()})
        return twin

    def layers(self) -> list[tuple[str, LayerState, nn.Module]]:
        """Return ``embed``, ``block 1`` … ``block n`` and, where the model has one, ``final_norm``."""
        blocks = list(self.model.get_submodule(self._layout.blocks))
        layers: list[tuple[str, LayerState, nn.Module]] = [("embed", "embed", blocks[0])]
        layers += [(f"block {i}", "block", block) for i, block in enumerate(blocks, start=1)]
        if self._layout.final_norm is not None:
            layers.append(("final_norm", "final_norm", self.model.get_submodule(self._layout.final_norm)))
        return layers

    def forward_sequences(self, inputs: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return the last hidden states, (batch, position, feature), of right-padded sequences, without gradients.

        Parameters
        ----------
        inputs : (batch, position) int or (batch, position, d_model) float
            Item indices, looked up in ``item_embeddings``, or the vectors themselves.
        lengths : (batch,) int
            Positions from a row's length on are masked.

        Raises
        ------
        ConfigError
            If ``inputs`` are indices and the model has no ``item_embeddings``, or they exceed the model's positions.
        DataError
            If an index is outside ``item_embeddings``.
        """
        self.eval()
        with torch.no_grad():
            inputs = inputs.to(self.device)
            return self.run(inputs if inputs.is_floating_point() else self._look_up(inputs), lengths)

    def run(self, vectors: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Return the last hidden states, (batch, position, feature), of right-padded vectors; gradients pass through.

        Parameters
        ----------
        vectors : (batch, position, d_model) float
        lengths : (batch,) int
            Positions from a row's length on are masked.

        Raises
        ------
        ConfigError
            If the sequences exceed the model's positions.
        """
        vectors = vectors.to(self.device)
        context = n_positions(self.model.config)
        if context is not None and vectors.shape[1] > context:
            raise ConfigError(
                f"{self.name!r} has {context} positions; got sequences of {vectors.shape[1]}. "
                f"Use --max-length {context}."
            )
        positions = torch.arange(vectors.shape[1], device=self.device)
        mask = (positions < lengths.to(self.device)[:, None]).long()
        output = self.model(inputs_embeds=vectors.to(self.dtype), attention_mask=mask, use_cache=False)
        return _first_tensor(output)

    def _look_up(self, items: torch.Tensor) -> torch.Tensor:
        if self.item_embeddings is None:
            raise ConfigError(
                f"{self.name!r} got item indices but holds no item_embeddings. Call set_item_embeddings with an "
                f"(n_items, {self.width}) array, or pass (batch, position, {self.width}) vectors."
            )
        n_items, low, high = len(self.item_embeddings), int(items.min()), int(items.max())
        if low < 0 or high >= n_items:
            raise DataError(
                f"Item indices must lie in 0…{n_items - 1}, the rows of item_embeddings; seen {low}…{high}. "
                "Give one vector for each item of the catalogue."
            )
        return nn.functional.embedding(items, self.item_embeddings)

    @torch.no_grad()
    def token_rms(self) -> float:
        """Return the root mean square over all entries of the model's own token embeddings, as it feeds them in."""
        embed = self.model.get_input_embeddings()
        total, count = 0.0, 0
        for ids in torch.split(torch.arange(embed.num_embeddings, device=self.device), _TOKENS_AT_ONCE):
            # The module is called, because Gemma multiplies its token vectors by √d.
            vectors = embed(ids).float()
            total, count = total + float(vectors.square().sum(dtype=torch.float64)), count + vectors.numel()
        return float(np.sqrt(total / count))

    def encode_tokens(self, token_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return the last hidden states of token ids as :meth:`read_tokens` does, without dropout and gradients."""
        self.eval()
        with torch.no_grad():
            return self.read_tokens(token_ids, attention_mask)

    def read_tokens(self, token_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return the last hidden states, (batch, position, feature), of right-padded token ids; gradients pass through.

        An encoder that is probed causally still reads *text* in both directions, as in its training.
        """
        with _as_trained(self.model, self.family):
            output = self.model(
                input_ids=token_ids.to(self.device), attention_mask=attention_mask.to(self.device), use_cache=False
            )
        return _first_tensor(output)


def read_tokenizer(name: str, source: str | None, access: HubAccess, trust_remote_code: bool = False) -> Any:
    """Return the tokenizer in the folder or repository of a model.

    Raises
    ------
    ModelError
        If there is none, or it cannot be read.
    """
    from transformers import AutoTokenizer

    advice = "Use --inputs id, or a model folder that holds its tokenizer files."
    if source is None:
        raise ModelError(f"Model {name!r} comes without a tokenizer, so it cannot read titles. {advice}")
    try:
        with access.reading():
            return AutoTokenizer.from_pretrained(
                source,
                revision=access.revision,
                local_files_only=access.local_files_only,
                trust_remote_code=trust_remote_code,
            )
    except Exception as error:  # tokenizers raise many types, among them a bare Exception from Rust
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"No tokenizer could be read from {source!r}: {reason} {advice}") from error


def _origin(config: Any) -> Path | None:
    """Return the folder with the weights that a model in memory was read from; None if it is not known or gone."""
    return snapshot(str(getattr(config, "name_or_path", "") or ""), getattr(config, "_commit_hash", None))


def _first_tensor(output: Any) -> torch.Tensor:
    """Return the last hidden state from the output of a transformers model."""
    state: torch.Tensor = output if isinstance(output, torch.Tensor) else output[0]
    return state


@contextmanager
def _as_trained(model: nn.Module, family: str) -> Iterator[None]:
    """Make a BERT-type encoder bidirectional inside the block; leave every other family unchanged."""
    if family != "bert":
        yield
        return
    config: Any = model.config
    flagged = [module for module in model.modules() if isinstance(getattr(module, "is_causal", None), bool)]
    before = (config.is_decoder, [module.is_causal for module in flagged])
    try:
        # Both must change: the mask is made from the configuration; without a mask the kernel uses the module's flag.
        config.is_decoder = False
        for module in flagged:
            module.is_causal = False  # type: ignore[assignment]
        yield
    finally:
        config.is_decoder = before[0]
        for module, value in zip(flagged, before[1], strict=True):
            module.is_causal = value
