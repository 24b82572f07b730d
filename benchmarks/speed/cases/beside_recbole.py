"""Training throughput of our GRU4Rec, SASRec and BERT4Rec beside RecBole's, at equal sizes, in turn."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.speed.cases.inputs import lastfm
from benchmarks.speed.timing import CPU_CLOCK, ratio_of

N_PAIRS, N_STEPS, N_WARM_UP = 3, 15, 4
BATCH_SIZE, MAX_LENGTH, WIDTH, N_BLOCKS, N_HEADS, N_INNER, DROPOUT = 128, 50, 64, 2, 2, 256, 0.2
MASK_SHARE, LAST_ONLY_SHARE = 0.2, 0.5
GOAL = "<= 1.0×"


class Sides(NamedTuple):
    """One model with the settings of either side: ours, ours of the training, and RecBole's."""

    recbole_name: str
    architecture: dict[str, Any]
    supervision: str
    recbole: dict[str, Any]


_ATTENTION = {"n_features": WIDTH, "n_blocks": N_BLOCKS, "n_heads": N_HEADS, "n_inner": N_INNER, "dropout": DROPOUT}
_RECBOLE_ATTENTION = {
    "hidden_size": WIDTH,
    "n_layers": N_BLOCKS,
    "n_heads": N_HEADS,
    "inner_size": N_INNER,
    "hidden_dropout_prob": DROPOUT,
    "attn_dropout_prob": DROPOUT,
}
MODELS = {
    "gru4rec": Sides(
        "GRU4Rec",
        # RecBole's has dropout at the embeddings alone.
        {"n_features": WIDTH, "n_blocks": N_BLOCKS, "dropout": 0.0, "embedding_dropout": DROPOUT, "loss": "softmax"},
        "all-prefixes",
        {"embedding_size": WIDTH, "hidden_size": WIDTH, "num_layers": N_BLOCKS, "dropout_prob": DROPOUT},
    ),
    "sasrec": Sides("SASRec", {**_ATTENTION, "loss": "softmax"}, "all-prefixes", _RECBOLE_ATTENTION),
    "bert4rec": Sides(
        "BERT4Rec",
        {
            **_ATTENTION,
            "mask_share": MASK_SHARE,
            "last_only_share": LAST_ONLY_SHARE,
            "max_masks": int(MASK_SHARE * MAX_LENGTH),
        },
        "auto",
        {**_RECBOLE_ATTENTION, "mask_ratio": MASK_SHARE, "ft_ratio": LAST_ONLY_SHARE},
    ),
}


class OurSide:
    """Our training loop with an untrained model, which takes some steps at a time."""

    def __init__(self, name: str, dataset: Any, threads: int) -> None:
        from frellm4rec.models.registry import model_class
        from frellm4rec.training.config import TrainingConfig
        from frellm4rec.training.loop import TrainingLoop

        kind, sides = model_class(name), MODELS[name]
        config = kind.config_class(n_items=dataset.n_items, max_length=MAX_LENGTH, **sides.architecture)
        training = TrainingConfig(batch_size=BATCH_SIZE, loss="full", supervision=sides.supervision)
        self.model = kind.from_dataset(config, dataset)
        self.loop = TrainingLoop(self.model, dataset, training, 0, None, None, None)
        self.loop.start(False, threads)
        self.model.train()
        self.batches = self._batches()
        self.n_samples = len(self.loop.samples)
        self.n_parameters = sum(p.numel() for p in self.model.parameters())
        self.widths: list[int] = []

    def _batches(self) -> Any:
        """Yield the samples of each step, epoch after epoch, each in a drawn order."""
        import torch

        samples = self.loop.samples
        while True:
            order = torch.randperm(len(samples), generator=self.loop.shuffle).numpy()
            for start in range(0, len(order), BATCH_SIZE):
                yield samples.select(order[start : start + BATCH_SIZE])

    def steps(self, n: int) -> tuple[float, int]:
        """Take n steps; return their processor seconds, and their samples."""
        n_samples, began = 0, CPU_CLOCK()
        for _ in range(n):
            samples = next(self.batches)
            self.loop._step(samples, 1, 1)
            self.loop.now.n_steps += 1
            n_samples += len(samples)
            self.widths.append(max(map(len, samples.windows)) - (self.loop.supervision != "own"))
        return CPU_CLOCK() - began, n_samples


class RecBoleSide:
    """RecBole in a process of its own, which takes some steps at a time; a context manager."""

    def __init__(self, python: str, name: str, folder: Path, threads: int) -> None:
        sides = MODELS[name]
        settings = {
            "data_path": str(folder),
            "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
            "train_neg_sample_args": None,
            "loss_type": "CE",
            "learner": "adam",
            "learning_rate": 1e-3,
            "train_batch_size": BATCH_SIZE,
            "MAX_ITEM_LIST_LENGTH": MAX_LENGTH,
            "eval_args": {
                "split": {"LS": "valid_and_test"},
                "order": "TO",
                "group_by": "user",
                "mode": "full",
            },
            "use_gpu": False,
            "show_progress": False,
            **sides.recbole,
        }
        spec = {"model": sides.recbole_name, "settings": settings, "threads": threads}
        path = folder / f"{name}.json"
        path.write_text(json.dumps(spec), encoding="utf-8")
        # -I: neither this repository nor its packages are seen there.
        command = [python, "-I", str(Path(__file__).with_name("recbole_side.py")), str(path)]
        self.process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        ready = self._answer()
        self.n_samples, self.n_parameters = ready["samples"], ready["parameters"]

    def _answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline()  # type: ignore[union-attr]
        if not line:
            raise SystemExit(f"RecBole's side ended with status {self.process.wait()}; its last words stand above.")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def steps(self, n: int, *, is_checked: bool = False) -> tuple[float, int]:
        """Take n steps, as RecBole comes with or without its search for NaN; return processor seconds, and samples."""
        self.process.stdin.write(json.dumps([n, is_checked]) + "\n")  # type: ignore[union-attr]
        answer = self._answer()
        return answer["seconds"], answer["samples"]

    def __enter__(self) -> RecBoleSide:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stdin.close()  # type: ignore[union-attr]
        self.process.wait()


def cut_lastfm(folder: str) -> Any:
    """Return LastFM with the latest items of each user: two held out, and what our training reads and predicts.

    RecBole would else take prefixes of older items too, and have other samples than ours.
    """
    from spectral_probe.interactions.dataset import Dataset
    from spectral_probe.interactions.log import Interactions

    latest = [sequence[-(MAX_LENGTH + 3) :] for sequence in lastfm(folder).sequences]
    items, indices = np.unique(np.concatenate(latest), return_inverse=True)
    histories = np.split(indices, np.cumsum([len(sequence) for sequence in latest])[:-1])
    return Dataset.from_interactions(Interactions.from_sequences(histories, n_items=len(items)))


def write_inter(dataset: Any, folder: Path) -> None:
    """Write the whole log as RecBole's ``log/log.inter``; the place in a history stands for the time."""
    (folder / "log").mkdir()
    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    for user, sequence in enumerate(dataset.sequences):
        lines += [f"u{user}\ti{item}\t{number}" for number, item in enumerate(sequence)]
    (folder / "log" / "log.inter").write_text("\n".join(lines) + "\n", encoding="utf-8")


class Times(NamedTuple):
    """Processor seconds per sample: ours, RecBole without its search for NaN, and RecBole as it comes."""

    ours: float
    bare: float
    as_it_comes: float


def seconds_per_sample(ours: OurSide, theirs: RecBoleSide) -> list[Times]:
    """Return the times of some steps, in turn, after a warm-up of both sides."""
    ours.steps(N_WARM_UP), theirs.steps(N_WARM_UP)
    times = []
    for _ in range(N_PAIRS):
        taken = ours.steps(N_STEPS), theirs.steps(N_STEPS), theirs.steps(N_STEPS, is_checked=True)
        times.append(Times(*(seconds / n_samples for seconds, n_samples in taken)))
    return times


def training_recbole(folder: str) -> dict[str, Any]:
    """Time steps of our trainer and of RecBole's, in turn, on the same log with the same sizes."""
    import torch

    python = os.environ.get("RECBOLE_PYTHON")
    if not python:
        raise SystemExit("This case needs RECBOLE_PYTHON, the Python interpreter of an environment with RecBole.")
    dataset, threads, ratios, details = cut_lastfm(folder), torch.get_num_threads(), {}, []
    with tempfile.TemporaryDirectory() as temporary:
        write_inter(dataset, Path(temporary))
        for name in MODELS:
            ours = OurSide(name, dataset, threads)
            with RecBoleSide(python, name, Path(temporary), threads) as theirs:
                times = seconds_per_sample(ours, theirs)
            ratios[name], our_time, their_time = ratio_of([(taken.ours, taken.bare) for taken in times])
            with_check = ratio_of([(taken.ours, taken.as_it_comes) for taken in times])
            details.append(
                f"{name} {ratios[name]:.2f}× ({1 / our_time:.0f} / {1 / their_time:.0f} samples/s; RecBole as it comes "
                f"{with_check.value:.2f}×, {1 / with_check.second:.0f} samples/s; samples of an epoch "
                f"{ours.n_samples:,} / {theirs.n_samples:,}, parameters {ours.n_parameters:,} / "
                f"{theirs.n_parameters:,}, positions computed {np.mean(ours.widths):.1f} / {MAX_LENGTH})"
            )
    return {
        "measured": f"{max(ratios.values()):.2f}×",
        "goal": GOAL,
        "detail": f"time of a sample, ours / RecBole 1.2.1, medians of {N_PAIRS} pairs of {N_STEPS} steps of "
        f"{BATCH_SIZE} samples, the largest ratio counts; {'; '.join(details)}; {fairness()}",
    }


def fairness() -> str:
    """Say what is equal on the two sides, and what is not."""
    return (
        "RecBole is timed without autograd's search for NaN, which it turns on (as it comes); "
        f"equal: log ({MAX_LENGTH + 3} latest items of each user), width {WIDTH}, {N_BLOCKS} layers, {N_HEADS} heads, "
        f"inner width {N_INNER}, length {MAX_LENGTH}, dropout {DROPOUT}, Adam, full softmax at the end of every "
        f"prefix; batches are drawn within the time; not equal: RecBole pads every batch to {MAX_LENGTH}, ours to its "
        "longest history, which saves next to nothing here (positions computed); our GRU4Rec has biases of items, "
        "RecBole's a dense layer after the last; neither has dropout after its layers, which our recipe has; our "
        "SASRec is pre-norm; BERT4Rec has the cloze of "
        f"either side, {MASK_SHARE:.0%} hidden, half the time the last item alone: ours of whole histories, RecBole's "
        f"of every prefix, with {int(MASK_SHARE * MAX_LENGTH)} places scored in each, hidden or not"
    )
