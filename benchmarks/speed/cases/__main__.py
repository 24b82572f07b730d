"""Run one case, print its result as a JSON line: ``python -m benchmarks.speed.cases NAME [LASTFM-DIR [THREADS]]``."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.speed.cases import beside_recbole, filters, gpu, instrument, models, recommender, training

CASES: dict[str, Callable[[str], dict[str, Any]]] = {
    "bases-networkx": instrument.bases_networkx,
    "bases-pygsp": instrument.bases_pygsp,
    "capture-time": instrument.capture_time,
    "capture-memory": instrument.capture_memory,
    "memory-bare": lambda _: instrument.memory_of("bare"),
    "memory-captured": lambda _: instrument.memory_of("captured"),
    "pipeline": instrument.pipeline,
    "smollm2": instrument.smollm2,
    "cooccurrence": instrument.cooccurrence,
    "tfm-operator": filters.tfm_operator,
    "tfm-ragged": filters.tfm_ragged,
    "tfm-layer": filters.tfm_layer,
    "glpf-lastfm": filters.glpf_lastfm,
    "glpf-large": filters.glpf_large,
    "sasrec-epoch": recommender.sasrec_epoch,
    "sasrec-evaluation": recommender.sasrec_evaluation,
    "ranking-200k": recommender.ranking_200k,
    "training-models": models.training_models,
    "training-recbole": beside_recbole.training_recbole,
    "training-items": models.training_items,
    "training-threads": training.training_threads,
    "training-lengths": training.training_lengths,
    "evaluation-lengths": training.evaluation_lengths,
    "training-attention": training.training_attention,
    "gpu-capture": gpu.gpu_capture,
    "gpu-training": gpu.gpu_training,
}

if __name__ == "__main__":
    if len(sys.argv) > 3:
        import torch
        from threadpoolctl import threadpool_limits

        torch.set_num_threads(int(sys.argv[3]))
        threadpool_limits(int(sys.argv[3]))
    print(json.dumps(CASES[sys.argv[1]](sys.argv[2] if len(sys.argv) > 2 else "")))
