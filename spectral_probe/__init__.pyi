from .analysis.pipeline import analyze as analyze
from .backbones.loading import load_backbone as load_backbone
from .backbones.protocol import LayeredModel as LayeredModel
from .backbones.wrapping import wrap as wrap
from .comparison.comparison import compare as compare
from .graph.bases import GraphBases as GraphBases
from .graph.item_graph import ItemGraph as ItemGraph
from .interactions.dataset import Dataset as Dataset
from .interactions.dataset import leave_one_out as leave_one_out
from .interactions.log import Interactions as Interactions
from .profiles.profile import DecayProfile as DecayProfile
from .recording.capture import capture as capture
from .recording.layer_grams import LayerGrams as LayerGrams
from .spectrum.energy import SpectralEnergy as SpectralEnergy
from .spectrum.energy import spectral_energy as spectral_energy

__version__: str
