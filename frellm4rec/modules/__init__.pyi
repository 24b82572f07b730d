from .butterworth import (
    butterworth_gain as butterworth_gain,
)
from .butterworth import (
    causal_operator as causal_operator,
)
from .butterworth import (
    two_sided_operator as two_sided_operator,
)
from .fusion import FusionMLP as FusionMLP
from .fusion import GatedFusion as GatedFusion
from .glpf import GraphLowPassFilter as GraphLowPassFilter
from .glpf import IdealLowPassFilter as IdealLowPassFilter
from .tfm import TemporalFrequencyModulation as TemporalFrequencyModulation
