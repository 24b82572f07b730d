"""Leave-one-out evaluation of a recommender, labelled with its protocol."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from frellm4rec.evaluation.candidates import TARGET_POSITION, Candidates, EvaluationPart, check_part, evaluated_users
from frellm4rec.evaluation.metrics import rank_metrics
from spectral_probe.errors import ConfigError, DataError
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.sequences import batches_by_length
from spectral_probe.storage.atomic import write_npz
from spectral_probe.storage.reading import parse_json, read_npz
from spectral_probe.types import FloatArray

if TYPE_CHECKING:
    from frellm4rec.models.base import Recommender

_ARRAYS = {"ndcg": ("f", 1), "recall": ("f", 1), "is_tied": ("fb", 1), "users": ("iu", 1), "labels": ("U", 0)}
_LABELS = {
    **dict.fromkeys(("model", "revision", "dataset", "fingerprint", "part"), str),
    "k": int,
    **dict.fromkeys(("n_negatives", "candidate_seed"), (int, None)),
    **dict.fromkeys(("candidates?", "weights?"), (str, None)),
    "note?": str,
    "is_trained?": bool,
}


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How well a model ranks each user's held-out item.

    Attributes
    ----------
    ndcg, recall : (n_users,) float in [0, 1]
        NDCG@k and Recall@k, ties at their expected value.
    is_tied : (n_users,) float
        1 where the target shares its score with another candidate.
    users : (n_users,) int
        Row of each user in the data set's training log.
    k : int
        Cut of the list.
    model, revision, dataset, fingerprint : str
        Names and hashes of the model and the data.
    part : str
        ``valid`` or ``test``.
    n_negatives : int or None
        Negatives beside the target; None for the full ranking.
    candidate_seed : int or None
        Seed of the negatives; None for the full ranking.
    candidates : str or None
        Digest of the candidate lists; None for the full ranking.
    weights : str or None
        Digest of the saved model's files, where it was evaluated from a folder.
    note : str
        A caution of the model for a reader: random weights, trained with later items in view.
    is_trained : bool
        Whether another training could give other values; false for a model that the data determine.
    """

    ndcg: FloatArray
    recall: FloatArray
    is_tied: FloatArray
    users: npt.NDArray[np.int64]
    k: int
    model: str
    revision: str
    dataset: str
    fingerprint: str
    part: str
    n_negatives: int | None
    candidate_seed: int | None
    candidates: str | None = None
    weights: str | None = None
    note: str = ""
    is_trained: bool = True

    @property
    def n_users(self) -> int:
        """Number of evaluated users."""
        return len(self.users)

    @property
    def ranking(self) -> str:
        """Short name of the candidate rule, such as ``99+1`` or ``full``."""
        return "full" if self.n_negatives is None else f"{self.n_negatives}+1"

    @property
    def rule(self) -> str:
        """The part of the protocol line that all models share."""
        pool = (
            "full ranking, other items of the history left out"
            if self.n_negatives is None
            else f"{self.n_negatives}+1 candidates (uniform over untouched items, seed {self.candidate_seed}"
            + (f", lists {self.candidates[:8]})" if self.candidates else ")")
        )
        return (
            f"{self.dataset} {self.fingerprint[:8]}, leave-one-out {self.part}, {self.n_users} users, {pool}, "
            f"k={self.k}, ties at expected value"
        )

    @property
    def protocol(self) -> str:
        """The line that every number is printed with."""
        return f"{self.rule} (rate {self.is_tied.mean():.4f}){f'; {self.note}' if self.note else ''}"

    def summary(self) -> dict[str, Any]:
        """Return the means over users and all their labels."""
        labels = {entry.name: getattr(self, entry.name) for entry in fields(self)[4:]}
        return {
            **labels,
            "ranking": self.ranking,
            "n_users": self.n_users,
            "ndcg": float(self.ndcg.mean()),
            "recall": float(self.recall.mean()),
            "tie_rate": float(self.is_tied.mean()),
            "protocol": self.protocol,
        }

    def to_frame(self) -> pd.DataFrame:
        """Return one row per user."""
        return pd.DataFrame(
            {"user": self.users, "ndcg": self.ndcg, "recall": self.recall, "is_tied": self.is_tied.astype(bool)}
        ).assign(model=self.model, dataset=self.dataset, part=self.part, ranking=self.ranking, k=self.k)

    def save(self, path: str | Path) -> Path:
        """Write values and labels to one ``.npz`` file, atomically."""
        path = Path(path)
        values = asdict(self)
        arrays = {name: values.pop(name) for name in ("ndcg", "recall", "is_tied", "users")}
        write_npz(path, {"labels": np.array(json.dumps(values)), **arrays}, is_compressed=True)
        return path

    @classmethod
    def load(cls, path: str | Path) -> Evaluation:
        """Read what :meth:`save` wrote; anything else is a DataError."""
        try:
            arrays = read_npz(path, _ARRAYS)
            labels = parse_json(str(arrays.pop("labels")), _LABELS)
            if len({len(array) for array in arrays.values()}) != 1 or not len(arrays["users"]):
                raise ValueError("its arrays must have a value for each user")
            return cls(**arrays, **labels)
        except (OSError, ValueError, TypeError) as error:
            raise DataError(
                f"An evaluation is read from the .npz that Evaluation.save writes; reading {path} failed with: {error}."
            ) from error


def evaluate(
    model: Recommender,
    dataset: Dataset,
    *,
    part: EvaluationPart = "test",
    candidates: Candidates | None = None,
    k: int = 10,
    batch_size: int = 256,
) -> Evaluation:
    """Return how well the model ranks every user's held-out item, given all items before it.

    Parameters
    ----------
    model : Recommender
        Reads the most recent ``model.config.max_length`` items.
    dataset : Dataset
    part : {"test", "valid"}
        ``test``: the last item from all before it; ``valid``: the second-last from all before it.
    candidates : Candidates, optional
        Lists to rank, from :func:`sample_candidates`. None: rank the whole catalogue without the other items of the
        user's history.
    k : int
        Cut of the list.
    batch_size : int
        Users at a time; histories of similar length share a batch. Results do not depend on it.

    Raises
    ------
    ConfigError
        If ``part``, ``k`` or ``batch_size`` is out of range, or the candidates are of another part.
    DataError
        If the candidates or the model belong to another data set, or a score is NaN.

    Notes
    -----
    Source: FreLLM4Rec section 4.1 (leave-one-out, NDCG@10, Recall@10).
    """
    check_part(part)
    if batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1; got {batch_size}.")
    if model.config.n_items != dataset.n_items:
        raise DataError(
            f"The model knows {model.config.n_items} items, data set {dataset.name!r} has {dataset.n_items}. "
            "Evaluate on the data set that the model was trained on."
        )
    if candidates is None and not model.traits.can_rank_all:
        raise ConfigError(
            f"{model.name} rates given candidates only, so it has no full ranking. Evaluate it with candidates, for "
            "example --ranking 99+1."
        )
    fingerprint = dataset.fingerprint(titles=False)
    if candidates is not None:
        candidates.check(dataset, part)
    users = evaluated_users(dataset) if candidates is None else candidates.users
    n_before = [len(dataset.sequences[user][: TARGET_POSITION[part]]) for user in users]
    lengths = np.minimum(np.array(n_before, dtype=np.int64), model.config.max_length)
    values = np.empty((3, len(users)))
    for rows in batches_by_length(lengths, batch_size):
        items = None if candidates is None else candidates.items[rows]
        values[:, rows] = _evaluate_batch(model, [dataset.sequences[u] for u in users[rows]], items, part, k)
    return Evaluation(
        *values,
        users=users,
        k=k,
        model=model.name,
        revision=model.revision,
        dataset=dataset.name,
        fingerprint=fingerprint,
        part=part,
        n_negatives=None if candidates is None else candidates.n_negatives,
        candidate_seed=None if candidates is None else candidates.seed,
        candidates=None if candidates is None else candidates.digest,
        note=model.note,
        is_trained=model.traits.is_trained,
    )


def _evaluate_batch(
    model: Recommender,
    sequences: list[npt.NDArray[np.int64]],
    items: npt.NDArray[np.int64] | None,
    part: EvaluationPart,
    k: int,
) -> FloatArray:
    """Return (3, batch): NDCG, recall and ties of a few users."""
    import torch

    from frellm4rec.models.padding import pad_right

    position = TARGET_POSITION[part]
    device = model.device
    inputs, lengths = pad_right([s[:position][-model.config.max_length :] for s in sequences], device)
    candidates = None if items is None else torch.from_numpy(items).to(device)
    scores, tolerance = (x.cpu().numpy() for x in model.score_and_tolerance(inputs, lengths, candidates))
    if items is not None:
        targets, excluded = np.zeros(len(scores), dtype=np.int64), None
    else:
        targets = np.array([s[position] for s in sequences])
        excluded = np.zeros(scores.shape, dtype=bool)
        for row, sequence in enumerate(sequences):
            excluded[row, sequence[:position]] = True
    return np.stack(rank_metrics(scores, targets, k, excluded=excluded, tolerance=tolerance))
