from .decoder import (
    HFDecoder as HFDecoder,
)
from .decoder import (
    weights_fingerprint as weights_fingerprint,
)
from .loading import load_backbone as load_backbone
from .protocol import LayeredModel as LayeredModel
