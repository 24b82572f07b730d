"""Treated states against a dense least-squares fit row by row, in one pass, by prefix and in half precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spectral_probe.errors import ShapeError
from spectral_probe.recording.capture import capture
from spectral_probe.recording.layer_grams import LayerGrams
from spectral_probe.recording.pilot import popularity_bins
from spectral_probe.recording.residuals import treated_grams
from tests.spectral_probe.tiny_models import N_ITEMS, MixingModel, Toy

T = 8


def probe(n: int = 60, n_items: int = 50, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return targets, inputs, lengths and counts; padding holds valid items, to be ignored."""
    rng = np.random.default_rng(seed)
    items = rng.integers(0, n_items, size=(n, T + 1))
    counts = rng.permutation(n_items) + 1
    return items[:, 1:], items[:, :-1], rng.integers(1, T + 1, size=n), counts


def slow_treated(states: np.ndarray, lengths, targets, inputs, bins: np.ndarray, least: float = 1e-3) -> np.ndarray:
    """Return the treated Gram of one layer, fitted on all users, from the design matrix of indicators."""
    n_bins = int(bins.max()) + 1
    design, rows, where = [], [], []
    for u, length in enumerate(lengths):
        for t in range(1, length):
            indicator = np.zeros(2 * n_bins)
            indicator[bins[targets[u, t]]] = 1.0
            indicator[n_bins + bins[inputs[u, t]]] = 1.0
            design.append(indicator)
            norm = np.linalg.norm(states[u, t])
            rows.append(states[u, t] / norm if norm > 0 else states[u, t])
            where.append((u, t))
    X, Y = np.array(design), np.array(rows)
    residuals = Y - X @ np.linalg.lstsq(X, Y, rcond=None)[0]
    treated = np.zeros_like(states, dtype=np.float64)
    for (u, t), residual in zip(where, residuals, strict=True):
        norm = np.linalg.norm(residual)
        treated[u, t] = residual / norm if norm >= least else 0.0
    return treated @ treated.transpose(0, 2, 1)


@pytest.mark.parametrize("has_inputs", [True, False])
def test_treated_grams_equal_a_dense_least_squares_fit(has_inputs):
    targets, inputs, lengths, counts = probe()
    rng = np.random.default_rng(1)
    popular = counts[inputs][..., None]
    states = [rng.normal(size=(60, T, d)) * rng.uniform(0.1, 9, (60, T, 1)) + popular / 20 for d in (5, 9)]
    states[0][3, 2] = 0.0  # a state without a direction
    given = inputs if has_inputs else None
    read = inputs if has_inputs else np.concatenate([targets[:, :1], targets[:, :-1]], axis=1)
    fast, pilot = treated_grams(states, lengths, targets, given, counts)
    valid = np.arange(T) < lengths[:, None]
    items = np.concatenate([targets[valid], read[valid]])
    bins = popularity_bins(counts, items, n_pilot_positions=int((lengths - 1).sum()))
    assert pilot.n_bins == bins.max() + 1 == 4
    for layer, state in enumerate(states):
        np.testing.assert_allclose(fast[:, layer], slow_treated(state, lengths, targets, read, bins), atol=2e-5)
    diagonal = np.diagonal(fast, axis1=2, axis2=3)
    assert not diagonal[:, :, 0].any()
    np.testing.assert_allclose(diagonal[:, :, 1:][np.repeat(valid[:, None, 1:], 2, axis=1)], 1.0, atol=1e-5)
    assert not diagonal[~np.repeat(valid[:, None], 2, axis=1)].any()


def test_what_popularity_explains_entirely_stays_zero():
    targets, inputs, lengths, counts = probe()
    known = np.ones((60, T), dtype=bool)
    bins = popularity_bins(
        counts, np.concatenate([targets[known], inputs[known]]), n_pilot_positions=int((lengths - 1).sum())
    )
    axes = np.random.default_rng(2).normal(size=(int(bins.max()) + 1, 6))
    of_bin = axes[bins[inputs]] * np.random.default_rng(3).uniform(1, 5, (60, T, 1))
    grams, _ = treated_grams([of_bin], lengths, targets, inputs, counts)
    assert not grams.any()
    noisy = of_bin + 0.1 * np.random.default_rng(4).normal(size=of_bin.shape)
    assert np.diagonal(treated_grams([noisy], lengths, targets, inputs, counts)[0], axis1=2, axis2=3).any()


@pytest.fixture
def sequences() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    targets, inputs, lengths, _ = probe(40, N_ITEMS, seed=3)
    return targets, inputs, lengths, np.random.default_rng(3).permutation(N_ITEMS) + 1


@pytest.mark.parametrize("batch_size", [40, 7])
def test_a_capture_treats_the_states_that_it_sees(sequences, batch_size):
    targets, inputs, lengths, counts = sequences
    model = MixingModel(N_ITEMS)
    made = capture(model, inputs, lengths, targets=targets, item_counts=counts, seed=5, batch_size=batch_size)
    with torch.no_grad():
        embed = model.table(torch.from_numpy(inputs))
        first = model.blocks[0](embed)
        second = model.blocks[1](first)
        states = [x.numpy() for x in (embed, first, second, model.norm(second))]
    expected = LayerGrams.from_states(
        states, lengths, made.layer_names, targets=targets, inputs=inputs, item_counts=counts, seed=5
    )
    assert made.treated is not None
    assert expected.treated is not None
    np.testing.assert_allclose(made.treated, expected.treated, atol=2e-5)
    assert made.pilot is not None
    assert expected.pilot is not None
    np.testing.assert_array_equal(made.pilot.bins, expected.pilot.bins)
    np.testing.assert_array_equal(made.pilot.rows, expected.pilot.rows)
    plain = capture(MixingModel(N_ITEMS), inputs, lengths, targets=targets, batch_size=batch_size)
    np.testing.assert_array_equal(made.grams, plain.grams)
    assert plain.treated is None


def test_prefix_by_prefix_gives_the_treated_grams_of_one_pass(sequences):
    targets, inputs, lengths, counts = sequences
    options = {"targets": targets, "item_counts": counts, "batch_size": 6}
    one_pass, by_prefix = (capture(Toy(), inputs, lengths, prefixes=flag, **options) for flag in (False, True))
    assert by_prefix.settings["prefixes"]
    assert one_pass.treated.any()
    np.testing.assert_allclose(by_prefix.treated, one_pass.treated, atol=2e-4)
    np.testing.assert_allclose(by_prefix.pilot.input_means[2], one_pass.pilot.input_means[2], atol=1e-5)


def test_rows_that_have_seen_their_answers_are_not_treated(sequences):
    targets, inputs, lengths, counts = sequences
    toy = Toy(is_leaky=True, is_causal=False)
    leaky = capture(toy, inputs, lengths, targets=targets, item_counts=counts, prefixes=False)
    assert (leaky.treated, leaky.pilot) == (None, None)
    honest = capture(toy, inputs, lengths, targets=targets, item_counts=counts)
    assert honest.treated is not None


def test_half_precision_drops_the_residuals_that_are_its_rounding(sequences):
    """Item vectors differ from one another by a hundredth: signal in float32, rounding in bfloat16."""
    targets, inputs, lengths, counts = sequences
    rng = np.random.default_rng(0)

    def model_of(spread: float) -> MixingModel:
        model = MixingModel(N_ITEMS)
        common = rng.normal(size=12)
        table = common + spread * np.linalg.norm(common) / np.sqrt(12) * rng.normal(size=(N_ITEMS, 12))
        with torch.no_grad():
            model.table.weight.copy_(torch.from_numpy(table))
        return model

    def n_kept(spread: float, dtype: torch.dtype) -> float:
        made = capture(model_of(spread), inputs, lengths, targets=targets, item_counts=counts, dtype=dtype)
        diagonal = np.diagonal(made.treated[:, 0], axis1=1, axis2=2)
        is_treated = (np.arange(T) >= 1) & (np.arange(T) < lengths[:, None])
        return float((diagonal[is_treated] > 0).mean())

    assert n_kept(0.01, torch.float32) == 1.0
    assert n_kept(0.01, torch.bfloat16) == 0.0
    assert n_kept(0.5, torch.bfloat16) == 1.0


def test_counts_that_do_not_fit_are_refused(sequences):
    targets, inputs, lengths, counts = sequences
    with pytest.raises(ShapeError, match="give targets="):
        capture(Toy(), inputs, lengths, item_counts=counts)
    with pytest.raises(ShapeError, match=r"a count for item 29; got \(20,\)"):
        capture(Toy(), inputs, lengths, targets=targets, item_counts=counts[:20])
    with pytest.raises(ShapeError, match="give targets="):
        LayerGrams.from_states(np.ones((40, 1, T, 3)), lengths, ["embed"], item_counts=counts)


def test_treated_grams_and_the_pilot_come_back_from_disk(sequences, tmp_path):
    targets, inputs, lengths, counts = sequences
    made = capture(MixingModel(N_ITEMS), inputs, lengths, targets=targets, item_counts=counts)
    back = LayerGrams.load(made.save(tmp_path / "grams"))
    np.testing.assert_array_equal(back.treated, made.treated)
    np.testing.assert_array_equal(back.inputs, inputs)
    assert back.pilot is not None
    assert made.pilot is not None
    assert back.pilot.hash == made.pilot.hash
