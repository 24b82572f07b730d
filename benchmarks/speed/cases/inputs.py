"""Logs and models that the cases share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


def lastfm(folder: str) -> Any:
    """Return the data set LastFM."""
    from frellm4rec.data.datasets import lastfm as load

    if not folder:
        raise SystemExit("This case needs --lastfm DIR.")
    return load(None, from_dir=Path(folder))


def lastfm_probe(folder: str, max_length: int) -> tuple[Any, Any, Any]:
    """Return LastFM, its item graph, and the sequences that the instrument reads."""
    from spectral_probe.graph.item_graph import ItemGraph
    from spectral_probe.interactions.sequences import probe_sequences

    dataset = lastfm(folder)
    graph = ItemGraph.from_interactions(dataset.train.user_items)
    return dataset, graph, probe_sequences(dataset, max_length=max_length)


def large_log() -> Any:
    """Return user × item counts of a log as large as the paper's largest, with a popularity skew."""
    from scipy.sparse import csr_array

    n_users, n_items, n_events = 309_555, 86_678, 1_700_000
    generator = np.random.default_rng(0)
    popularity = 1.0 / np.arange(1, n_items + 1) ** 0.7
    items = generator.choice(n_items, size=n_events, p=popularity / popularity.sum()).astype(np.int32)
    users = np.sort(generator.integers(0, n_users, size=n_events)).astype(np.int32)
    R = csr_array((np.ones(n_events, dtype=np.int32), (users, items)), shape=(n_users, n_items))
    R.sum_duplicates()
    R.data[:] = 1
    return R


def qwen2(width: int = 896, n_blocks: int = 6) -> tuple[Any, Any, Any]:
    """Return a random Qwen2 with some blocks, inputs of 32 × 50 vectors, and their lengths.

    Heads are 64 wide and the inner width grows with ``width`` as in Qwen2.5-0.5B.
    """
    import torch
    from transformers import AutoConfig, AutoModel

    from spectral_probe.backbones import HFDecoder

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "qwen2",
        hidden_size=width,
        intermediate_size=4864 * width // 896,
        num_hidden_layers=n_blocks,
        num_attention_heads=width // 64,
        num_key_value_heads=1 if width // 64 % 2 else 2,
        vocab_size=1000,
    )
    model = HFDecoder(AutoModel.from_config(config), name=f"qwen2-{n_blocks}x{width}")
    inputs = torch.randn(32, 50, width) * 0.02
    return model.eval(), inputs, torch.full((32,), 50)
