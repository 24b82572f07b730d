"""Evaluation: shared candidates, tie-aware metrics, results that carry their protocol, tests between models."""

from frellm4rec.evaluation.candidates import Candidates, sample_candidates, stored_candidates
from frellm4rec.evaluation.evaluator import Evaluation, evaluate
from frellm4rec.evaluation.metrics import RankMetrics, ndcg_at_k, rank_metrics, recall_at_k, tie_rate
from frellm4rec.evaluation.significance import PairedDifference, holm, paired_bootstrap

__all__ = [
    "Candidates",
    "Evaluation",
    "PairedDifference",
    "RankMetrics",
    "evaluate",
    "holm",
    "ndcg_at_k",
    "paired_bootstrap",
    "rank_metrics",
    "recall_at_k",
    "sample_candidates",
    "stored_candidates",
    "tie_rate",
]
