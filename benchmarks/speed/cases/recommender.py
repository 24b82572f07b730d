"""Cases of training and evaluation, against the plain PyTorch loops that one would write without this project."""

from __future__ import annotations

from contextlib import suppress
from statistics import median
from typing import Any

import numpy as np

from benchmarks.speed.cases.inputs import lastfm
from benchmarks.speed.timing import CPU_CLOCK, paired_ratio, ratio_of, seconds

MAX_LENGTH, BATCH_SIZE, EVALUATION_BATCH, K = 50, 128, 256, 10


class _EnoughEpochsError(Exception):
    """Stops the trainer before the epoch with a validation."""


def fresh_model(dataset: Any) -> Any:
    from frellm4rec.models import SASRec, SASRecConfig

    return SASRec(SASRecConfig(n_items=dataset.n_items, max_length=MAX_LENGTH), seed=0)


class PlainLoop:
    """A plain training loop: one score matrix per batch, ``cross_entropy``, Adam; dropout with its own random state."""

    def __init__(self, dataset: Any) -> None:
        import torch

        self.model = fresh_model(dataset).train()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        self.shuffle = torch.Generator().manual_seed(0)
        self.dropout_state = torch.Generator().manual_seed(0).get_state()
        windows = (s[-MAX_LENGTH - 1 :] for s in dataset.train.sequences() if len(s) >= 2)
        self.sequences = [torch.from_numpy(window.copy()) for window in windows]

    def epoch(self) -> float:
        """Train one epoch and return its mean loss."""
        import torch
        from torch.nn.functional import cross_entropy
        from torch.nn.utils.rnn import pad_sequence

        total, n_targets = 0.0, 0
        for rows in torch.randperm(len(self.sequences), generator=self.shuffle).split(BATCH_SIZE):
            batch = [self.sequences[row] for row in rows]
            lengths = torch.tensor([len(s) - 1 for s in batch])
            inputs = pad_sequence([s[:-1] for s in batch], batch_first=True)
            targets = pad_sequence([s[1:] for s in batch], batch_first=True)
            is_valid = torch.arange(inputs.shape[1]) < lengths[:, None]
            self.optimizer.zero_grad()
            scores = self.model(inputs, lengths)[is_valid] @ self.model.item_embeddings().T
            loss = cross_entropy(scores, targets[is_valid])
            loss.backward()
            self.optimizer.step()
            n = int(lengths.sum())
            total, n_targets = total + loss.item() * n, n_targets + n
        return total / n_targets

    def timed_epoch(self) -> tuple[float, float]:
        """Return seconds and loss of an epoch; the global random state does not change."""
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self.dropout_state)
            began = CPU_CLOCK()
            loss = self.epoch()
            took = CPU_CLOCK() - began
            self.dropout_state = torch.get_rng_state()
        return took, loss


def sasrec_epoch(folder: str) -> dict[str, Any]:
    """Time our trainer and a plain loop, one epoch each in turn; the first pair is a warm-up."""
    from frellm4rec.training.config import TrainingConfig
    from frellm4rec.training.trainer import train

    dataset, n_pairs = lastfm(folder), 5
    plain, times, losses = PlainLoop(dataset), [], []
    began = 0.0

    def after_our_epoch(entry: dict[str, Any]) -> None:
        nonlocal began
        ours_s = CPU_CLOCK() - began
        plain_s, plain_loss = plain.timed_epoch()
        times.append((ours_s, plain_s))
        losses.append((entry["loss"], plain_loss))
        if len(times) == n_pairs + 1:
            raise _EnoughEpochsError
        began = CPU_CLOCK()

    config = TrainingConfig(n_epochs=n_pairs + 2, batch_size=BATCH_SIZE, validate_every=n_pairs + 2)
    with suppress(_EnoughEpochsError):
        train(fresh_model(dataset), dataset, config, log=after_our_epoch, progress=False)
    # The same model, order and dropout: the same losses up to the rounding of sums.
    np.testing.assert_allclose(*zip(*losses, strict=True), rtol=1e-4)
    ratio, ours_s, plain_s = ratio_of(times[1:])
    n_sequences = len(plain.sequences)
    return {
        "measured": f"{ratio:.2f}×",
        "goal": "<= 1.1×",
        "detail": f"{n_sequences / ours_s:.0f} / {n_sequences / plain_s:.0f} sequences/s; {ours_s:.2f} s / "
        f"{plain_s:.2f} s, medians of {n_pairs} pairs",
    }


def plain_evaluation(model: Any, dataset: Any) -> Any:
    """Return NDCG of every user's last item by the full ranking, ignoring ties."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    sequences = [torch.from_numpy(s.copy()) for s in dataset.sequences if len(s) >= 3]
    values = []
    with torch.no_grad():
        table = model.item_embeddings().T
        for start in range(0, len(sequences), EVALUATION_BATCH):
            batch = sequences[start : start + EVALUATION_BATCH]
            histories = [s[:-1] for s in batch]
            lengths = torch.tensor([min(len(h), MAX_LENGTH) for h in histories])
            inputs = pad_sequence([h[-MAX_LENGTH:] for h in histories], batch_first=True)
            scores = model(inputs, lengths)[torch.arange(len(batch)), lengths - 1] @ table
            target_scores = scores.gather(1, torch.stack([s[-1] for s in batch])[:, None])
            for row, history in enumerate(histories):
                scores[row, history] = -torch.inf
            rank = 1 + (scores > target_scores).sum(1)
            values.append(torch.where(rank <= K, 1.0 / torch.log2(1.0 + rank), 0.0))
    return torch.cat(values)


def sasrec_evaluation(folder: str) -> dict[str, Any]:
    from frellm4rec.evaluation import evaluate

    dataset = lastfm(folder)
    model = fresh_model(dataset).eval()
    ours = evaluate(model, dataset, k=K, batch_size=EVALUATION_BATCH)
    assert not ours.is_tied.any()
    np.testing.assert_allclose(ours.ndcg, plain_evaluation(model, dataset), atol=1e-6)
    ratio, ours_s, plain_s = paired_ratio(
        lambda: evaluate(model, dataset, k=K, batch_size=EVALUATION_BATCH),
        lambda: plain_evaluation(model, dataset),
        7,
        clock=CPU_CLOCK,
    )
    return {
        "measured": f"{ratio:.2f}×",
        "goal": "<= 1.1×",
        "detail": f"{ours.n_users / ours_s:.0f} / {ours.n_users / plain_s:.0f} sequences/s; {ours_s:.3f} s / "
        f"{plain_s:.3f} s, medians of 7 pairs; ours also has Recall, ties and the data's hash",
    }


def ranking_200k(_folder: str) -> dict[str, Any]:
    """Time the metrics alone, on scores with ties."""
    from frellm4rec.evaluation.metrics import rank_metrics

    n_users, n_candidates = 200_000, 101
    scores = np.random.default_rng(0).standard_normal((n_users, n_candidates), dtype=np.float32).round(2)
    targets = np.zeros(n_users, dtype=np.int64)
    metrics = rank_metrics(scores, targets, K)
    n_better = (scores > scores[:, :1]).sum(1)
    alone = metrics.is_tied == 0
    np.testing.assert_array_equal(metrics.recall[alone], (n_better < K)[alone])
    times = [seconds(lambda: rank_metrics(scores, targets, K), CPU_CLOCK) for _ in range(5)]
    return {
        "measured": f"{median(times):.2f} s",
        "goal": "< 1 s",
        "detail": f"NDCG, Recall and tie rate ({metrics.is_tied.mean():.2f}) from float32 scores, median of 5",
    }
