"""Sequential recommenders under one contract."""

from frellm4rec.models.base import RecommenderConfig, SequentialRecommender
from frellm4rec.models.sasrec import SASRec, SASRecConfig

__all__ = ["RecommenderConfig", "SASRec", "SASRecConfig", "SequentialRecommender"]
