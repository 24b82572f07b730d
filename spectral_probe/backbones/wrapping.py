"""Any ``nn.Module`` as a layered model: its layers by name, checked with one small forward pass."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy.typing as npt
import torch
from torch import nn

from spectral_probe.backbones.decoder import weights_fingerprint
from spectral_probe.backbones.trial_pass import state_of, unchanged
from spectral_probe.backbones.wrapping_arguments import check_options, path_of, paths_of, vectors_of, whole_numbers
from spectral_probe.backbones.wrapping_trials import N_POSITIONS, N_SEQUENCES, Trial, different_rows
from spectral_probe.errors import ConfigError, DataError, ModelError, ShapeError
from spectral_probe.types import LayerState

#: How a module is called: module, inputs and lengths → anything.
Call = Callable[[nn.Module, torch.Tensor, torch.Tensor], Any]


def wrap(
    module: nn.Module,
    layers: str | nn.Module | Sequence[str | nn.Module],
    *,
    embed: str | nn.Module | npt.ArrayLike | torch.Tensor | None = None,
    final_norm: str | nn.Module | None = None,
    name: str | None = None,
    is_causal: bool | None = None,
    item_rows: npt.ArrayLike | None = None,
    call: Call | None = None,
) -> WrappedModel:
    """Return a module as a model that :func:`spectral_probe.analyze` takes; its weights stay as they are.

    Parameters
    ----------
    module : nn.Module
    layers : sequence of str or nn.Module
        The blocks, in the order of computation, by their names in ``module.named_modules()``; an ``nn.ModuleList``
        stands for its elements. The output of each is recorded; of a tuple, its first element.
    embed : str, nn.Module or (n_items, d) array, optional
        What turns items into vectors. A name: that module's output is the state ``embed``, and ``module`` reads item
        indices. An array, with a row for each item in the order of ``Dataset.item_ids``: ``module`` reads these
        vectors. Left out: ``module`` reads item indices, and the input of the first layer is the state ``embed``.
    final_norm : str or nn.Module, optional
        The norm after the last block.
    name : str, optional
        Name in tables and figures; default: the name of the class.
    is_causal : bool, optional
        Whether the state of a position depends on this and earlier items alone. Default: tried out. A model that is
        not causal is probed prefix by prefix.
    item_rows : (n_items,) int, optional
        Row of ``module``'s own table for each item, in the order of ``Dataset.item_ids``. Default: the same numbers.
        Give it for a module with numbers of its own, such as one that keeps row 0 for padding.
    call : callable, optional
        ``call(module, inputs, lengths)`` runs the module on right-padded inputs, (batch, position) or
        (batch, position, d). Default: ``module(inputs)``, with ``lengths``, ``attention_mask`` (1: an item) and
        ``src_key_padding_mask`` (True: padding) where ``forward`` has parameters of these names.

    Returns
    -------
    WrappedModel

    Raises
    ------
    ConfigError
        If an argument has another type, a name is none of the module's, comes twice or in another order than the
        modules run, ``embed`` holds a NaN, or fewer than two items differ.
    ShapeError
        If ``embed`` or ``item_rows`` has another shape, or a layer returns no (batch, position, feature) tensor.
    ModelError
        If the module cannot be run, a layer does not run exactly once, keeps states between calls or does not read the
        last item, the states of a sequence depend on the other sequences of a batch, or padding changes the states of
        a module that is not causal.
    """
    check_options(name, call, is_causal)
    model = WrappedModel(module, layers, embed, final_norm, name, item_rows, call)
    model.try_out(is_causal)
    return model


class WrappedModel(nn.Module):
    """A module with its layers, as a :class:`~spectral_probe.backbones.protocol.LayeredModel`; made by :func:`wrap`.

    Attributes
    ----------
    module : nn.Module
    is_causal : bool
    item_embeddings : (n_items, d) tensor or None
        The vectors of the items, where they are a table.
    """

    item_embeddings: torch.Tensor | None
    item_rows: torch.Tensor | None

    def __init__(
        self,
        module: nn.Module,
        layers: str | nn.Module | Sequence[str | nn.Module],
        embed: Any,
        final_norm: str | nn.Module | None,
        name: str | None,
        item_rows: npt.ArrayLike | None,
        call: Call | None,
    ) -> None:
        super().__init__()
        if not isinstance(module, nn.Module):
            raise ConfigError(f"wrap() takes an nn.Module; got a {type(module).__name__}. Give the model itself.")
        self.module, self.name, self.is_causal = module, name or type(module).__name__, True
        self._paths = paths_of(module, layers)
        self._norm = None if final_norm is None else path_of(module, final_norm, "final_norm")
        if self._norm in self._paths:
            raise ConfigError(
                f"final_norm={self._norm!r} is already among the layers. Name it once: leave it out of layers, or "
                "leave out final_norm."
            )
        is_table = embed is not None and not isinstance(embed, str | nn.Module)
        self._embed = None if embed is None or is_table else path_of(module, embed, "embed")
        self._embed_output = nn.Identity()
        self._call = call or _usual_call
        self._reads_vectors = is_table
        if is_table and item_rows is not None:
            raise ConfigError(
                "item_rows numbers the rows of the module's own table; with an array as embed= it has none. Leave out "
                "one of them."
            )
        rows = None if item_rows is None else torch.as_tensor(whole_numbers(item_rows))
        self.register_buffer("item_rows", rows, persistent=False)
        self.register_buffer("item_embeddings", self._table(embed, rows), persistent=False)

    def _table(self, embed: Any, rows: torch.Tensor | None) -> torch.Tensor | None:
        """Return the vectors of the items: the array, or the rows of an ``nn.Embedding``."""
        if self._reads_vectors:
            table = vectors_of(embed)
            dtypes = [p.dtype for p in self.module.parameters() if p.is_floating_point()]
            return table.to(dtypes[0] if dtypes else torch.float32)
        part = None if self._embed is None else self.module.get_submodule(self._embed)
        if not isinstance(part, nn.Embedding):
            return None
        if rows is not None and (rows.min() < 0 or rows.max() >= part.num_embeddings):
            raise ShapeError(
                f"item_rows must lie in 0…{part.num_embeddings - 1}, the rows of {self._embed!r}; got "
                f"{int(rows.min())}…{int(rows.max())}."
            )
        return (part.weight if rows is None else part.weight[rows]).detach().clone()

    @property
    def revision(self) -> str:
        """First 16 hex digits of the SHA-256 over the module's weights."""
        return weights_fingerprint(self.module)[:16]

    def input_modules(self) -> list[nn.Module]:
        """Return the module that makes the vectors of the items; the control ``random-weights`` leaves it unchanged."""
        return [] if self._embed is None else [self.module.get_submodule(self._embed)]

    def layers(self) -> list[tuple[str, LayerState, nn.Module]]:
        """Return ``embed``, ``block 1`` … ``block n`` and, where it was named, ``final_norm``."""
        blocks = [self.module.get_submodule(path) for path in self._paths]
        first = blocks[0] if self._embed is None else self._embed_output
        layers: list[tuple[str, LayerState, nn.Module]] = [("embed", "embed", first)]
        layers += [(f"block {i}", "block", block) for i, block in enumerate(blocks, start=1)]
        if self._norm is not None:
            layers.append(("final_norm", "final_norm", self.module.get_submodule(self._norm)))
        return layers

    def forward_sequences(self, inputs: torch.Tensor, lengths: torch.Tensor) -> Any:
        """Run the module on right-padded item indices, (batch, position); return what it returns.

        Raises
        ------
        DataError
            If an item has no vector or no row.
        """
        values = self._inputs(inputs)
        with self._embed_recorded(), _without_fast_path():
            return self._call(self.module, values, lengths)

    def _inputs(self, items: torch.Tensor) -> torch.Tensor:
        """Return what the module reads of item indices: vectors, or numbers of rows."""
        if items.is_floating_point():
            return items
        table = self.item_embeddings if self._reads_vectors else self.item_rows
        known = table if table is not None else self.item_embeddings
        if known is not None and int(items.max()) >= len(known):
            raise DataError(
                f"Item {int(items.max())} of the data set has no vector in {self.name!r}, which knows {len(known)} "
                "items. Give embed= or item_rows= one row for each item, in the order of Dataset.item_ids."
            )
        return items if table is None else table[items]

    @contextmanager
    def _embed_recorded(self) -> Iterator[None]:
        """Pass the output of the module that embeds to ``_embed_output``, whose input is the state ``embed``."""
        if self._embed is None:
            yield
            return

        def pass_on(_module: nn.Module, _args: Any, output: Any) -> None:
            self._embed_output(output[0] if isinstance(output, tuple | list) and output else output)

        handle = self.module.get_submodule(self._embed).register_forward_hook(pass_on)
        try:
            yield
        finally:
            handle.remove()

    @torch.no_grad()
    def try_out(self, is_causal: bool | None) -> None:
        """Run two short sequences; check every layer and find out whether the module is causal; see :func:`wrap`."""
        self.is_causal = Trial(self.name, self._known_items(), self._states).run(is_causal)

    def _known_items(self) -> torch.Tensor:
        """Return the items that the trial pass may use."""
        values = self.item_embeddings if self.item_embeddings is not None else self.item_rows
        if values is not None:
            return different_rows(values)
        # A table of a single row, such as one of types, does not read the items.
        tables = [part.num_embeddings for part in self.module.modules() if isinstance(part, nn.Embedding)]
        return torch.arange(min([N_SEQUENCES * N_POSITIONS, *(n for n in tables if n > 1)]))

    def _states(self, items: torch.Tensor, lengths: int | None = None) -> dict[str, torch.Tensor]:
        """Return the state of every layer in one pass; refuse one that did not run once, or has another shape."""
        states: dict[str, list[Any]] = {name: [] for name, _, _ in self.layers()}
        ran: list[str] = []
        device = next((parameter.device for parameter in self.module.parameters()), torch.device("cpu"))
        n_positions = items.shape[1]
        lengths_of = torch.full((len(items),), lengths or n_positions, device=device)
        items = torch.where(torch.arange(n_positions) < (lengths or n_positions), items, 0).to(device)
        with unchanged(self):
            for name, state, layer in self.layers():
                if state == "embed":
                    layer.register_forward_pre_hook(_before(states[name]), with_kwargs=True)
                else:
                    layer.register_forward_hook(_after(states[name], name, ran))
            try:
                self.forward_sequences(items, lengths_of)
            except (ModelError, DataError, ConfigError):
                raise
            except Exception as error:  # modules raise many types
                reason = (str(error).strip().splitlines() or ["without a message"])[0]
                raise ModelError(
                    f"{self.name!r} cannot be run on {'vectors' if self._reads_vectors else 'item indices'} of shape "
                    f"{tuple(self._inputs(items).shape)}: {type(error).__name__}: {reason}. Give call=, a function of "
                    "module, inputs and lengths that runs it, or embed= if it reads vectors. Sequences are on the "
                    "first axis (batch_first=True)."
                ) from error
        checked = {name: self._checked(name, values, items.shape) for name, values in states.items()}
        if ran != [name for name in states if name != "embed"]:
            raise ConfigError(
                f"layers and final_norm must be named in the order in which they run; {self.name!r} ran "
                f"{[self._path(name) for name in ran]}, the names are {[self._path(name) for name in states][1:]}. "
                "Name them in the first order."
            )
        return checked

    def _path(self, name: str) -> str:
        """Return the name, in the module, of a layer."""
        paths = ["embed", *self._paths, self._norm or ""]
        return dict(zip([layer for layer, _, _ in self.layers()], paths, strict=False))[name]

    def _checked(self, name: str, values: list[Any], shape: Sequence[int]) -> torch.Tensor:
        path = self._path(name)
        if len(values) != 1:
            raise ModelError(
                f"A layer must run exactly once in a forward pass; {path!r} of {self.name!r} ran {len(values)} times. "
                "Name modules that every pass runs once."
            )
        state = state_of(values[0])
        if state is None or tuple(state.shape[:2]) != tuple(shape):
            value = values[0][0] if isinstance(values[0], tuple | list) and values[0] else values[0]
            seen = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
            is_swapped = state is not None and tuple(state.shape[:2]) == tuple(shape)[::-1]
            hint = " Build it with batch_first=True." if is_swapped else " Name a module that returns the states."
            raise ShapeError(
                f"A layer must give a (batch, position, feature) tensor, here {(*shape, 'd')}; {path!r} of "
                f"{self.name!r} gave {seen}.{hint}"
            )
        return state.clone()


def _usual_call(module: nn.Module, inputs: torch.Tensor, lengths: torch.Tensor) -> Any:
    """Call a module with what its ``forward`` names."""
    parameters = inspect.signature(module.forward).parameters
    is_item = torch.arange(inputs.shape[1], device=inputs.device) < lengths.to(inputs.device)[:, None]
    known = {"lengths": lengths, "attention_mask": is_item.long(), "src_key_padding_mask": ~is_item}
    return module(inputs, **{name: value for name, value in known.items() if name in parameters})


@contextmanager
def _without_fast_path() -> Iterator[None]:
    """Switch off torch's fused encoder layers: they run on packed tensors, whose positions cannot be told apart."""
    backend: Any = torch.backends.mha
    before = backend.get_fastpath_enabled()
    backend.set_fastpath_enabled(False)
    try:
        yield
    finally:
        backend.set_fastpath_enabled(before)


def _before(states: list[Any]) -> Any:
    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        states.append(args[0] if args else kwargs.get("hidden_states", next(iter(kwargs.values()), None)))

    return hook


def _after(states: list[Any], name: str, ran: list[str]) -> Any:
    def hook(_module: nn.Module, _args: tuple[Any, ...], output: Any) -> None:
        states.append(output)
        ran.append(name)

    return hook
