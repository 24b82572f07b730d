"""Cases of the two filters: along time against the Fourier route, along the item graph against a bare product."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.speed.cases.inputs import large_log, lastfm, qwen2
from benchmarks.speed.timing import CPU_CLOCK, paired_ratio, seconds

BATCH, LENGTH, WIDTH, CUTOFF, ORDER = 32, 50, 896, 0.3, 2


def fourier_filter(T: int) -> Callable[[Any], Any]:
    """Return rfft → gain → irfft along positions, the gain computed beforehand."""
    import torch

    from frellm4rec.modules import butterworth_gain

    bins = torch.arange(T // 2 + 1) * (2.0 / T)
    gain = butterworth_gain(bins, CUTOFF, ORDER)[:, None]
    return lambda states: torch.fft.irfft(torch.fft.rfft(states, dim=1) * gain, n=T, dim=1)


def settle_memory() -> None:
    """Free a block as large as the activations of a layer; the C library then keeps freed memory, as with a model.

    Otherwise a new process returns the memory and requests it again at every call, which takes longer than the work.
    """
    import torch

    torch.empty(BATCH * LENGTH, 4864).fill_(0.0)


def tfm_operator(_folder: str) -> dict[str, Any]:
    import torch

    from frellm4rec.modules import TemporalFrequencyModulation

    settle_memory()
    tfm, fourier = TemporalFrequencyModulation(CUTOFF, ORDER), fourier_filter(LENGTH)
    states = torch.randn(BATCH, LENGTH, WIDTH, generator=torch.Generator().manual_seed(0))
    lengths = torch.full((BATCH,), LENGTH)

    def trained(work: Callable[[Any], Any]) -> None:
        inputs = states.clone().requires_grad_()
        work(inputs).backward(states)

    with torch.no_grad():
        torch.testing.assert_close(tfm(states, lengths), fourier(states), atol=1e-5, rtol=1e-4)
        ratio, ours_s, fourier_s = paired_ratio(
            lambda: tfm(states, lengths), lambda: fourier(states), 15, calls=(10, 10), clock=CPU_CLOCK
        )
    both = paired_ratio(
        lambda: trained(lambda x: tfm(x, lengths)), lambda: trained(fourier), 9, calls=(5, 5), clock=CPU_CLOCK
    )
    n_operations = 2 * BATCH * LENGTH**2 * WIDTH
    return {
        "measured": f"{ratio:.2f}×",
        "goal": "<= 0.33×",
        "detail": f"{1e3 * ours_s:.2f} ms / {1e3 * fourier_s:.2f} ms, medians of 15 pairs of 10 calls; forward and "
        f"backward {both.value:.2f}×; the product runs at {n_operations / ours_s / 1e9:.0f} GFLOP/s, "
        f"a 1024 × 1024 one at {_peak():.0f}",
    }


def _peak() -> float:
    """Return the GFLOP/s of a 1024 × 1024 matrix product, for comparison."""
    import torch

    square = torch.randn(1024, 1024)
    return 2 * 1024**3 / min(seconds(lambda: square @ square, CPU_CLOCK) for _ in range(5)) / 1e9


def tfm_ragged(_folder: str) -> dict[str, Any]:
    """Time a batch of many lengths; the Fourier route handles the rows of one length together."""
    import torch

    from frellm4rec.modules import TemporalFrequencyModulation

    settle_memory()
    tfm = TemporalFrequencyModulation(CUTOFF, ORDER)
    states = torch.randn(BATCH, LENGTH, WIDTH, generator=torch.Generator().manual_seed(0))
    lengths = torch.linspace(5, LENGTH, BATCH).long()
    groups = [(T, torch.nonzero(lengths == T)[:, 0], fourier_filter(T)) for T in lengths.unique().tolist()]

    def fourier() -> Any:
        filtered = states.clone()
        for T, rows, work in groups:
            filtered[rows, :T] = work(states[rows, :T])
        return filtered

    with torch.no_grad():
        torch.testing.assert_close(tfm(states, lengths), fourier(), atol=1e-5, rtol=1e-4)
        ratio, ours_s, fourier_s = paired_ratio(
            lambda: tfm(states, lengths), fourier, 15, calls=(5, 5), clock=CPU_CLOCK
        )
    return {
        "measured": f"{ratio:.2f}×",
        "goal": "—",
        "detail": f"{1e3 * ours_s:.2f} ms / {1e3 * fourier_s:.2f} ms, medians of 15 pairs of 5 calls; "
        f"{len(groups)} distinct lengths",
    }


def tfm_layer(_folder: str) -> dict[str, Any]:
    import torch

    from frellm4rec.modules import TemporalFrequencyModulation

    model, inputs, lengths = qwen2(n_blocks=1)
    tfm = TemporalFrequencyModulation(CUTOFF, ORDER)
    block = next(module for _, kind, module in model.layers() if kind == "block")
    calls: list[Any] = []
    handle = block.register_forward_hook(
        lambda module, args, kwargs, out: calls.append((args, kwargs, out)), with_kwargs=True
    )
    with torch.no_grad():
        model.forward_sequences(inputs, lengths)
        handle.remove()
        args, kwargs, out = calls[0]
        states = out[0] if isinstance(out, tuple) else out
        ratio, ours_s, layer_s = paired_ratio(
            lambda: tfm(states, lengths), lambda: block(*args, **kwargs), 5, calls=(10, 1), clock=CPU_CLOCK
        )
    return {
        "measured": f"{100 * ratio:.2f} %",
        "goal": "<= 3 %",
        "detail": f"{1e3 * ours_s:.2f} ms / {1e3 * layer_s:.0f} ms, medians of 5 pairs",
    }


def glpf_lastfm(folder: str) -> dict[str, Any]:
    return _glpf(lastfm(folder).train.user_items, calls=5)


def glpf_large(_folder: str) -> dict[str, Any]:
    return _glpf(large_log(), calls=1)


def _glpf(user_items: Any, calls: int) -> dict[str, Any]:
    """Time the filter against the product with the same matrix, in the same library and in SciPy."""
    import torch
    from scipy.sparse import csr_array

    from frellm4rec.modules import GraphLowPassFilter
    from spectral_probe.graph.item_graph import ItemGraph

    graph = ItemGraph.from_interactions(user_items)
    glpf = GraphLowPassFilter(graph)
    S = glpf.adjacency
    parts = [part.numpy() for part in (S.values(), S.col_indices(), S.crow_indices())]
    scipy_S = csr_array((parts[0], parts[1].astype(np.int32), parts[2].astype(np.int32)), shape=tuple(S.shape))
    E = torch.randn(graph.n_items, 50, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = (1.0 - glpf.alpha) * E.numpy() + glpf.alpha * (scipy_S @ E.numpy())
        np.testing.assert_allclose(glpf(E).numpy(), expected, atol=1e-5)
        ratio, ours_s, bare_s = paired_ratio(lambda: glpf(E), lambda: S @ E, 7, calls=(calls, calls), clock=CPU_CLOCK)
        other = paired_ratio(lambda: glpf(E), lambda: scipy_S @ E.numpy(), 3, calls=(calls, calls), clock=CPU_CLOCK)
    return {
        "measured": f"{ratio:.2f}×",
        "goal": "<= 1.5×",
        "detail": f"{1e3 * ours_s:.0f} ms / {1e3 * bare_s:.0f} ms, medians of 7 pairs; against SciPy's product "
        f"{other.value:.2f}× ({1e3 * other.second:.0f} ms); {graph.n_items:,} items, {S.values().numel() / 1e6:.1f} M "
        "entries, float32",
    }
