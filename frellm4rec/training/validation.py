"""What a training is judged by: NDCG on the validation items, and its cost."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from frellm4rec.evaluation.candidates import sample_candidates
from frellm4rec.evaluation.evaluator import evaluate
from frellm4rec.models.base import Recommender
from frellm4rec.training.config import Effort, TrainingRecord
from spectral_probe.errors import ConfigError
from spectral_probe.interactions.dataset import Dataset


def check_k(k: int, dataset: Dataset) -> None:
    """Refuse a cut of the validation list that is longer than the catalogue without the target."""
    if k >= dataset.n_items:
        raise ConfigError(
            f"training.k must be below the number of items of {dataset.name!r}, {dataset.n_items}; got {k}. Choose a "
            "smaller one, such as training.k=1."
        )


def validation_ndcg(model: Recommender, dataset: Dataset, k: int) -> float:
    """Return NDCG@k on the validation items: full ranking, or 99+1 candidates for a model that cannot rank all."""
    lists = None if model.traits.can_rank_all else sample_candidates(dataset, part="valid")
    return float(evaluate(model, dataset, part="valid", candidates=lists, k=k).ndcg.mean())


def peak_memory(device: torch.device) -> int:
    """Return the most memory used so far, in bytes: of PyTorch on a GPU, else of this process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def untrained_record(
    model: Recommender, dataset: Dataset, *, k: int, seed: int = 0, log: Callable[[dict[str, Any]], None] | None = None
) -> TrainingRecord:
    """Return the record of a model that the data determine: its validation NDCG@k, and no training."""
    began = time.perf_counter()
    ndcg = validation_ndcg(model.eval(), dataset, k)
    seconds = round(time.perf_counter() - began, 3)
    if log is not None:
        log({"epoch": 0, "step": 0, "loss": None, "ndcg": ndcg, "best_epoch": 0, "seconds": seconds})
    effort = Effort(0, 0, 0, seconds, peak_memory(model.device))
    return TrainingRecord(seed, epochs=[0], losses=[None], validation_ndcg=[ndcg], threads=None, effort=effort)
