"""Layered models: the protocol every probed model meets, and Hugging Face decoders as one case of it."""

from spectral_probe.backbones.decoder import FAMILIES, Family, HFDecoder, weights_fingerprint
from spectral_probe.backbones.loading import load_backbone
from spectral_probe.backbones.protocol import LayeredModel, LayerState

__all__ = [
    "FAMILIES",
    "Family",
    "HFDecoder",
    "LayerState",
    "LayeredModel",
    "load_backbone",
    "weights_fingerprint",
]
