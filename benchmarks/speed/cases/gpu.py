"""Cases of a CUDA device: the capture of a model as large as the paper's, and the training of every model."""

from __future__ import annotations

import time
from typing import Any

from benchmarks.speed.cases.inputs import lastfm, lastfm_probe
from benchmarks.speed.cases.models import epoch_pairs, names
from benchmarks.speed.timing import paired_ratio, ratio_of

#: Sizes of Qwen2.5-7B.
QWEN_7B = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
}
N_PAIRS = 3
#: A short epoch is timed more often: on a device it takes less than a tenth of a second.
LEAST_SECONDS = 6.0


def card() -> str:
    """Return the name of the CUDA device."""
    import torch

    if not torch.cuda.is_available():
        raise SystemExit("This case needs a CUDA device.")
    return torch.cuda.get_device_name()


def cuda_clock() -> float:
    """Return seconds of the clock, after the device has done all its work."""
    import torch

    torch.cuda.synchronize()
    return time.perf_counter()


def gpu_capture(folder: str) -> dict[str, Any]:
    """Capture all of LastFM with random weights of the shape of Qwen2.5-7B, beside bare forward passes and the plan."""
    import torch
    from transformers import AutoConfig, AutoModel

    from spectral_probe.analysis.cost import plan
    from spectral_probe.backbones import HFDecoder
    from spectral_probe.interactions.sequences import batches_by_length
    from spectral_probe.recording.capture import capture

    name, (dataset, graph, probe) = card(), lastfm_probe(folder, 50)
    config = AutoConfig.for_model("qwen2", **QWEN_7B)
    torch.manual_seed(0)
    with torch.device("cuda"):
        body = AutoModel.from_config(config, dtype=torch.bfloat16)
    model = HFDecoder(body, name="qwen2.5-7b").eval()
    model.set_item_embeddings(torch.randn(dataset.n_items, QWEN_7B["hidden_size"]) * 0.02)
    inputs, lengths = torch.from_numpy(probe.inputs).cuda(), torch.from_numpy(probe.lengths)
    batches = list(batches_by_length(probe.lengths, 32))

    def bare() -> None:
        with torch.no_grad():
            for rows in batches:
                model.forward_sequences(inputs[rows, : int(probe.lengths[rows].max())], lengths[rows])

    def plain() -> None:
        capture(model, probe.inputs, probe.lengths, device="cuda")

    def treated() -> Any:
        known = {"targets": probe.targets, "users": probe.users, "item_counts": graph.item_counts}
        return capture(model, probe.inputs, probe.lengths, device="cuda", **known)

    ratio, plain_s, bare_s = paired_ratio(plain, bare, N_PAIRS, clock=cuda_clock)
    start = cuda_clock()
    assert treated().pilot is not None
    whole = cuda_clock() - start
    torch.cuda.reset_peak_memory_stats()
    plain()
    peak = torch.cuda.max_memory_allocated()
    expected = plan(config, len(probe), dtype="bfloat16", device="cuda", n_items=dataset.n_items)
    return {
        "measured": f"{ratio:.2f}×",
        "goal": "<= 1.05×",
        "detail": f"{plain_s:.2f} s / {bare_s:.2f} s, medians of {N_PAIRS} pairs, {len(probe)} users, "
        f"{int(probe.lengths.sum())} positions; with pilot and treated Grams {whole:.1f} s; peak of the device "
        f"{peak / 2**30:.2f} GiB, planned {expected.peak_device_bytes / 2**30:.2f} GiB; {name}, {versions()}",
    }


def gpu_training(folder: str) -> dict[str, Any]:
    """Time an epoch of every model on the device with our trainer and with a bare loop, in turn."""
    name, dataset, ratios, details = card(), lastfm(folder), {}, []
    for model in names():
        times, n_samples = epoch_pairs(
            model, dataset, N_PAIRS, least_seconds=LEAST_SECONDS, device="cuda", clock=cuda_clock
        )
        ratios[model], ours, bare = ratio_of(times)
        speeds = f"{n_samples / ours:.0f} / {n_samples / bare:.0f} samples/s, {len(times)} pairs"
        details.append(f"{model} {ratios[model]:.2f}× ({speeds})")
    return {
        "measured": f"{max(ratios.values()):.2f}×",
        "goal": "<= 1.1×",
        "detail": f"settings of the recipes, medians of pairs of epochs, the largest ratio counts; "
        f"{'; '.join(details)}; {name}, {versions()}",
    }


def versions() -> str:
    """Return the versions that a time on a device depends on."""
    import torch

    return f"CUDA {torch.version.cuda}"
