"""Cases that decide how FreLLM4Rec is trained and evaluated: threads, batches by length, attention."""

from __future__ import annotations

import os
import time
from typing import Any
from unittest.mock import patch

import numpy as np

from benchmarks.speed.cases.inputs import lastfm
from benchmarks.speed.timing import CPU_CLOCK, paired_ratio

BATCH_SIZE, MAX_LENGTH, N_FEATURES = 32, 50, 50
#: Widths on both sides of the limit of narrow models.
WIDTHS = (64, 128, 256, 384)
#: Running programs, by the average of a minute, up to which two threads are timed on two CPUs.
MOST_LOAD = 1.0


def recommender(backbone: Any, n_items: int, **settings: Any) -> Any:
    """Return FreLLM4Rec in training, over random ID embeddings."""
    import torch

    from frellm4rec.items.item_table import ItemTable
    from frellm4rec.models.frellm4rec.config import FreLLM4RecConfig
    from frellm4rec.models.frellm4rec.model import FreLLM4Rec

    vectors = torch.randn(n_items, N_FEATURES, generator=torch.Generator().manual_seed(0))
    config = FreLLM4RecConfig(n_items=n_items, max_length=MAX_LENGTH, inputs="id", backbone=backbone.name, **settings)
    return FreLLM4Rec(config, {"id": ItemTable.filtered(vectors, None)}, backbone=backbone).train()


def llama(width: int, n_blocks: int, dtype: str = "float32") -> Any:
    """Return a random Llama with heads of 32 or 64 features and the usual feed-forward part of 8/3 of the width."""
    import torch
    from transformers import AutoConfig, AutoModel

    from spectral_probe.backbones import HFDecoder

    torch.manual_seed(0)
    n_heads = max(1, width // 64)
    config = AutoConfig.for_model(
        "llama",
        hidden_size=width,
        intermediate_size=width * 8 // 3 // 8 * 8,
        num_hidden_layers=n_blocks,
        num_attention_heads=n_heads,
        num_key_value_heads=n_heads,
        vocab_size=1000,
    )
    model: Any = AutoModel.from_config(config)
    return HFDecoder(model.to(getattr(torch, dtype)), name=f"llama-{n_blocks}x{width}")


def random_batch(n_items: int, supervision: str) -> Any:
    """Return a batch of histories of 2 to 51 items."""
    import torch

    from frellm4rec.training.batches import make_batch

    generator = np.random.default_rng(0)
    windows = [generator.integers(0, n_items, n) for n in generator.integers(2, MAX_LENGTH + 2, BATCH_SIZE)]
    return make_batch(windows, supervision, torch.device("cpu"))  # type: ignore[arg-type]


def step(model: Any, batch: Any) -> float:
    """Run a batch forward and backward, as the trainer does, and return its loss."""
    from frellm4rec.models.losses import softmax_loss

    model.zero_grad(set_to_none=True)
    states = model(batch.inputs, batch.lengths)[batch.counts]
    loss = softmax_loss(states, model.item_embeddings(), batch.targets[batch.counts])
    loss.backward()
    return float(loss.detach())


def training_threads(_folder: str) -> dict[str, Any]:
    """Time a step with two threads and with one at each width, in turn; the least time of each side counts.

    Two threads wait for each other after every operation. Where another program holds one of the processors, the
    waiting thread burns processor time, so a busy machine is refused, unless this process goes before all others.
    """
    import torch

    from frellm4rec.models.config import NARROW_BELOW

    load = os.getloadavg()[0]
    if load > MOST_LOAD and os.sched_getscheduler(0) == os.SCHED_OTHER:
        raise SystemExit(
            f"Two threads are timed on free CPUs, at a load up to {MOST_LOAD}; it is {load:.1f}. Try again later, or "
            "with the priority of a real-time process (chrt -f 1)."
        )
    n_items, n_pairs, ratios, details = 1000, 9, {}, []
    batch = random_batch(n_items, "every")
    for width in WIDTHS:
        model = recommender(llama(width, 2), n_items, mode="causal")
        times: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
        for _ in range(n_pairs):
            for threads, measured in times.items():
                torch.set_num_threads(threads)
                step(model, batch)
                wall, cpu = time.perf_counter(), CPU_CLOCK()
                step(model, batch)
                measured.append((time.perf_counter() - wall, CPU_CLOCK() - cpu))
        alone, both = (np.array(times[threads]).min(axis=0) for threads in (1, 2))
        ratios[width] = both[0] / alone[0]
        details.append(f"{width}: {ratios[width]:.2f}× time, {both[1] / alone[1]:.2f}× processor time")
    return {
        "measured": f"{max(ratio for width, ratio in ratios.items() if width >= NARROW_BELOW):.2f}×",
        "goal": "<= 0.75×",
        "detail": f"widths {NARROW_BELOW} and up, which take PyTorch's threads; least of {n_pairs} pairs, by "
        f"width: {'; '.join(details)}",
    }


def training_lengths(folder: str) -> dict[str, Any]:
    """Time steps on LastFM in groups of similar length and in whole batches; the losses are the same."""
    import torch

    from frellm4rec.models.frellm4rec import model as module
    from frellm4rec.models.padding import rows_by_length
    from frellm4rec.training.batches import batches, make_batch, training_windows
    from spectral_probe.backbones import load_backbone

    dataset, n_pairs = lastfm(folder), 3
    model = recommender(load_backbone("minilm", device="cpu"), dataset.n_items, mode="causal")
    windows = training_windows(dataset, MAX_LENGTH)
    order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(0)).numpy()
    drawn = [make_batch(part, "every", torch.device("cpu")) for part in batches(windows, order, BATCH_SIZE)]
    n_real = sum(int(batch.lengths.sum()) for batch in drawn)
    n_whole = sum(batch.inputs.numel() for batch in drawn)
    n_grouped = sum(
        len(rows) * int(batch.lengths[rows].max())
        for batch in drawn
        for rows in rows_by_length(batch.lengths, module.GROUP_ROWS)
    )
    timed = drawn[:3]

    def grouped() -> list[float]:
        return [step(model, batch) for batch in timed]

    def whole() -> list[float]:
        with patch.object(module, "GROUP_ROWS", BATCH_SIZE):
            return grouped()

    np.testing.assert_allclose(grouped(), whole(), rtol=1e-5)
    ratio, grouped_s, whole_s = paired_ratio(grouped, whole, n_pairs, clock=CPU_CLOCK)
    return {
        "measured": f"{ratio:.2f}×",
        "goal": "<= 0.8×",
        "detail": f"{grouped_s / len(timed):.2f} s / {whole_s / len(timed):.2f} s a step, medians of {n_pairs} pairs "
        f"of {len(timed)}; positions of an epoch: {n_real:,} items, {n_grouped:,} in groups of {module.GROUP_ROWS}, "
        f"{n_whole:,} in whole batches; losses equal to 1e-5",
    }


def evaluation_lengths(folder: str) -> dict[str, Any]:
    """Time an evaluation on LastFM with users by length and in the order of the log; the metrics are the same."""
    from frellm4rec.evaluation import evaluator
    from spectral_probe.backbones import load_backbone

    dataset, size, n_pairs = lastfm(folder), 256, 2
    model = recommender(load_backbone("minilm", device="cpu"), dataset.n_items, mode="causal").eval()
    n_run: dict[str, int] = {}

    def in_order(lengths: Any, size: int) -> Any:
        return iter(np.split(np.arange(len(lengths)), range(size, len(lengths), size)))

    def by_length() -> Any:
        return evaluator.evaluate(model, dataset, batch_size=size)

    def in_the_order_of_the_log() -> Any:
        with patch.object(evaluator, "batches_by_length", in_order):
            return by_length()

    def counted(side: str, work: Any) -> Any:
        n_run[side] = 0
        run = model.backbone.run

        def counting(vectors: Any, lengths: Any) -> Any:
            n_run[side] += vectors.shape[0] * vectors.shape[1]
            return run(vectors, lengths)

        with patch.object(model.backbone, "run", counting):
            return work()

    np.testing.assert_allclose(
        counted("length", by_length).ndcg, counted("log", in_the_order_of_the_log).ndcg, atol=1e-12
    )
    ratio, sorted_s, plain_s = paired_ratio(by_length, in_the_order_of_the_log, n_pairs, clock=CPU_CLOCK)
    n_real = sum(min(len(s) - 1, MAX_LENGTH) for s in dataset.sequences if len(s) >= 3)
    return {
        "measured": f"{ratio:.2f}×",
        "goal": "<= 0.8×",
        "detail": f"{sorted_s:.2f} s / {plain_s:.2f} s, medians of {n_pairs} pairs; positions: {n_real:,} items, "
        f"{n_run['length']:,} by length, {n_run['log']:,} in the order of the log; NDCG equal for every user",
    }


def training_attention(_folder: str) -> dict[str, Any]:
    """Time steps with eager and with fused attention in bfloat16; also in float32, and without a backward pass."""
    import torch

    from frellm4rec.training.attention import EAGER, attention_of, step_attention

    n_items, n_pairs, ratios = 1000, 7, {}
    batch = random_batch(n_items, "every")
    for dtype in ("bfloat16", "float32"):
        model = recommender(llama(576, 3, dtype), n_items, mode="causal")
        assert step_attention(model, "no") == (EAGER if dtype == "bfloat16" else "sdpa")

        def forward(model: Any = model) -> None:
            with torch.no_grad():
                model(batch.inputs, batch.lengths)

        def backward(model: Any = model) -> float:
            return step(model, batch)

        def eager(work: Any, model: Any = model) -> Any:
            with attention_of(model, EAGER):
                return work()

        np.testing.assert_allclose(eager(backward), backward(), rtol=1e-2)
        for name, work in (("step", backward), ("forward", forward)):
            ratios[dtype, name] = paired_ratio(lambda work=work: eager(work), work, n_pairs, clock=CPU_CLOCK)  # type: ignore[misc]
    chosen = ratios["bfloat16", "step"]
    others = "; ".join(f"{dtype} {name} {r.value:.2f}×" for (dtype, name), r in ratios.items() if r is not chosen)
    return {
        "measured": f"{chosen.value:.2f}×",
        "goal": "<= 0.9×",
        "detail": f"{chosen.first:.2f} s / {chosen.second:.2f} s, medians of {n_pairs} pairs; not chosen: {others}",
    }
