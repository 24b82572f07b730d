"""The parts that FreLLM4Rec adds to a language model: filters on the graph and along time, and the fusion."""

from frellm4rec.modules.butterworth import butterworth_gain, causal_operator, two_sided_operator
from frellm4rec.modules.fusion import FusionMLP, GatedFusion
from frellm4rec.modules.glpf import GraphLowPassFilter, IdealLowPassFilter
from frellm4rec.modules.tfm import TemporalFrequencyModulation

__all__ = [
    "FusionMLP",
    "GatedFusion",
    "GraphLowPassFilter",
    "IdealLowPassFilter",
    "TemporalFrequencyModulation",
    "butterworth_gain",
    "causal_operator",
    "two_sided_operator",
]
