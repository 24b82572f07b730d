"""Sequential recommenders under one contract."""

from frellm4rec.models.base import RecommenderConfig, SequentialRecommender
from frellm4rec.models.frellm4rec import FreLLM4Rec
from frellm4rec.models.frellm4rec_config import FreLLM4RecConfig
from frellm4rec.models.sasrec import SASRec, SASRecConfig

__all__ = [
    "FreLLM4Rec",
    "FreLLM4RecConfig",
    "RecommenderConfig",
    "SASRec",
    "SASRecConfig",
    "SequentialRecommender",
]
