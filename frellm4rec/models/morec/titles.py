"""Vectors of titles from a text encoder whose last layers are trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from spectral_probe.backbones import HFDecoder
from spectral_probe.errors import ConfigError, DataError
from spectral_probe.interactions.sequences import batches_by_length

#: Titles that are encoded together.
_TITLES_AT_ONCE = 64


class TrainedTitles(nn.Module):
    r"""Titles as the masked mean of an encoder's last states, centred and scaled as they were before the training.

    .. math:: v(t) = \Big(\frac{1}{n_t} \sum_{i=1}^{n_t} h_i(t) - m\Big) / s

    with m the mean of all titles and s the root mean square of what is left, both of the encoder as it was loaded: a
    frozen table of the same encoder is scaled in the same way. The row after the last title, of items without one,
    is 0, the mean.

    Parameters
    ----------
    backbone : HFDecoder
        All but its last layers are frozen here.
    tokens : (n_titles, n_tokens) int
        Padded with 0.
    lengths : (n_titles,) int
    n_trained_layers : int

    Raises
    ------
    ConfigError
        If the encoder has fewer layers, or cannot be trained: it is spread over devices, or quantised.
    """

    def __init__(
        self, backbone: HFDecoder, tokens: torch.Tensor, lengths: torch.Tensor, *, n_trained_layers: int
    ) -> None:
        super().__init__()
        if n_trained_layers > backbone.n_blocks:
            raise ConfigError(
                f"n_trained_layers must be at most the {backbone.n_blocks} layers of {backbone.name!r}; got "
                f"{n_trained_layers}. Choose fewer."
            )
        if backbone.is_spread or backbone.quantization is not None:
            raise ConfigError(
                f"Only an unquantised encoder on one device is trained end to end; {backbone.name!r} is not. "
                "Use mode=frozen."
            )
        self.backbone = backbone.requires_grad_(False)
        layers = backbone.layers()
        # The final norm, where there is one, follows the last block and is trained with it.
        last = [m for _, state, m in layers if state == "block"][-n_trained_layers:]
        for module in [*last, *(m for _, state, m in layers if state == "final_norm")]:
            module.requires_grad_(True)
        self.register_buffer("tokens", tokens.to(torch.int32))
        self.register_buffer("lengths", lengths.to(torch.int32))
        self.register_buffer("centre", torch.zeros(backbone.width))
        self.register_buffer("scale", torch.ones(()))
        self.to(backbone.device)

    @classmethod
    def of(cls, titles: Sequence[str], backbone: HFDecoder, *, n_trained_layers: int, max_tokens: int) -> TrainedTitles:
        """Tokenise titles, and measure their centre and scale.

        Raises
        ------
        DataError
            If a title has no token, or the vectors of all titles are equal.
        """
        ids = [backbone.tokenizer(title, truncation=True, max_length=max_tokens)["input_ids"] for title in titles]
        lengths = torch.tensor([len(row) for row in ids])
        if not int(lengths.min()):
            title = titles[int(lengths.argmin())]
            raise DataError(f"The tokenizer of {backbone.name!r} finds no token in the title {title!r}. Change it.")
        tokens = torch.zeros(len(ids), int(lengths.max()), dtype=torch.int32)
        for row, values in enumerate(ids):
            tokens[row, : len(values)] = torch.tensor(values)
        made = cls(backbone, tokens, lengths, n_trained_layers=n_trained_layers).eval()
        with torch.no_grad():
            means = made._means(torch.arange(len(ids), device=backbone.device))
            made.centre.copy_(means.mean(0))
            made.scale.copy_((means - made.centre).square().mean().sqrt())
        if not float(made.scale) > 1e-5 * float(means.square().mean().sqrt()):
            raise DataError(f"All titles have the same vector from {backbone.name!r}. Check them, or use sasrec.")
        return made.train()

    @property
    def width(self) -> int:
        """Number of features."""
        return self.backbone.width

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters of the encoder that are trained, by their names in this module."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def forward(self, titles: torch.Tensor) -> torch.Tensor:
        """Return the vectors of titles (n,), each encoded once, (n, feature); 0 for the row after the last title."""
        n_titles = len(self.tokens)
        is_title = titles < n_titles
        vectors = self.centre.new_zeros(len(titles), self.width)
        if not bool(is_title.any()):
            return vectors
        return vectors.masked_scatter(is_title[:, None], (self._means(titles[is_title]) - self.centre) / self.scale)

    def _means(self, titles: torch.Tensor) -> torch.Tensor:
        """Return the masked means of the last states, (n, feature); titles of similar length share a batch."""
        lengths = self.lengths[titles].long()
        groups = [torch.as_tensor(rows) for rows in batches_by_length(_numpy(lengths), _TITLES_AT_ONCE)]
        means = []
        for rows in groups:
            rows = rows.to(titles.device)
            tokens = self.tokens[titles[rows], : int(lengths[rows].max())].long()
            mask = torch.arange(tokens.shape[1], device=tokens.device) < lengths[rows, None]
            states = self.backbone.read_tokens(tokens, mask.long()).float()
            means.append(torch.where(mask[..., None], states, 0.0).sum(1) / lengths[rows, None])
        return torch.cat(means)[torch.argsort(torch.cat(groups)).to(titles.device)]


def _numpy(lengths: torch.Tensor) -> np.ndarray[Any, np.dtype[np.int64]]:
    return lengths.cpu().numpy()
