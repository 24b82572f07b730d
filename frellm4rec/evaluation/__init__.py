"""Evaluation: shared candidates, tie-aware metrics, results that carry their protocol."""

from frellm4rec.evaluation.candidates import Candidates, sample_candidates
from frellm4rec.evaluation.evaluator import Evaluation, evaluate
from frellm4rec.evaluation.metrics import ndcg_at_k, recall_at_k, tie_rate

__all__ = ["Candidates", "Evaluation", "evaluate", "ndcg_at_k", "recall_at_k", "sample_candidates", "tie_rate"]
