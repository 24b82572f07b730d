"""Evaluations stored in the run folder of their model, so that none is computed twice."""

from __future__ import annotations

import logging
import re
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from frellm4rec.evaluation.candidates import Candidates, EvaluationPart, check_part, stored_candidates
from frellm4rec.evaluation.evaluator import Evaluation, evaluate
from frellm4rec.runs.trained import TrainedModel, weights_digest
from spectral_probe.errors import ConfigError, DataError
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.storage.atomic import disk_errors, remove_partials, write_csv
from spectral_probe.storage.lock import only_process
from spectral_probe.storage.reading import refuse_special

logger = logging.getLogger(__name__)
EVALUATION_FOLDER = "evaluation"


def parse_ranking(ranking: str) -> int | None:
    """Return the number of negatives that a ranking rule names: 99 for ``99+1``, None for ``full``.

    Raises
    ------
    ConfigError
        If it is neither ``full`` nor ``N+1``.
    """
    if ranking == "full":
        return None
    if (match := re.fullmatch(r"([1-9]\d{0,8})\+1", ranking)) is None:
        raise ConfigError(f"A ranking is full or N+1, such as 99+1; got {ranking!r}. Try 99+1.")
    return int(match[1])


def evaluation_path(
    folder: Path, *, part: str, ranking: str, k: int = 10, seed: int = 0, lists: str | None = None
) -> Path:
    """Return the path of a stored evaluation: ``<part>-<ranking>.npz``; non-default settings end the name.

    Parameters
    ----------
    folder : Path
        Folder of evaluations.
    part, ranking : str
    k : int
        In the name if it is not 10.
    seed : int
        Of the candidates; in the name if it is not 0. The full ranking has no candidates.
    lists : str, optional
        Digest of candidates that the caller supplied.
    """
    name = f"{part}-{ranking}"
    if lists is not None:
        name += f"-lists-{lists}"
    elif seed and ranking != "full":
        name += f"-seed{seed}"
    return folder / (f"{name}.npz" if k == 10 else f"{name}-k{k}.npz")


def find_evaluation(path: Path, *, weights: str, fingerprint: str, lists: str | None = None) -> Evaluation | None:
    """Return the evaluation stored in a file; None if it is absent, damaged, or of other weights, data or lists."""
    if not path.exists():
        return None
    try:
        refuse_special(path)
    except ValueError as error:
        raise DataError(f"The evaluation {path} cannot be read or replaced: {error}. Delete it.") from error
    try:
        evaluation = Evaluation.load(path)
    except DataError as error:
        logger.warning("%s It is computed again.", error)
        return None
    is_same = evaluation.weights == weights and evaluation.fingerprint == fingerprint
    return evaluation if is_same and lists in (None, evaluation.candidates) else None


def evaluate_trained(
    trained: TrainedModel,
    *,
    ranking: str = "99+1",
    part: EvaluationPart = "test",
    k: int = 10,
    seed: int = 0,
    candidates: Candidates | None = None,
    out: Path | None = None,
    batch_size: int = 256,
) -> Evaluation:
    """Return the evaluation of a trained model; it is stored in the run and not computed twice.

    Parameters
    ----------
    trained : TrainedModel
    ranking : str
        ``full`` or ``N+1``; not used with ``candidates``.
    part, k, batch_size
        As in :func:`evaluate`.
    seed : int
        Of the stored candidates, see :func:`stored_candidates`.
    candidates : Candidates, optional
        Candidate lists of the caller, instead of the stored ones.
    out : Path, optional
        Folder for evaluations; default: ``evaluation/`` of the run. Without a run, nothing is stored.

    Raises
    ------
    ConfigError, DataError, ModelError, ResourceError
        As in :func:`evaluate` and :func:`stored_candidates`, or if the evaluation cannot be written.
    """
    check_part(part)
    dataset, fingerprint = trained.dataset, trained.dataset.fingerprint(titles=False)
    custom_lists = None if candidates is None else candidates.digest
    if candidates is not None:
        ranking = f"{candidates.n_negatives}+1"
    n_negatives = parse_ranking(ranking)
    if candidates is None and n_negatives is not None:
        candidates = stored_candidates(dataset, part=part, n_negatives=n_negatives, seed=seed)
    folder = out if out is not None else trained.run.path / EVALUATION_FOLDER if trained.run is not None else None
    lists = None if candidates is None else candidates.digest
    path = None
    if folder is not None:
        path = evaluation_path(folder, part=part, ranking=ranking, k=k, seed=seed, lists=custom_lists)
        stored = find_evaluation(path, weights=trained.weights, fingerprint=fingerprint, lists=lists)
        if stored is not None:
            return stored
    with nullcontext() if folder is None else only_process(folder, "An evaluation"):
        evaluation = evaluate(trained.model, dataset, part=part, candidates=candidates, k=k, batch_size=batch_size)
        evaluation = replace(evaluation, weights=trained.weights)
        if path is not None:
            save_evaluation(evaluation, dataset, path)
    return evaluation


def save_evaluation(evaluation: Evaluation, dataset: Dataset, path: Path) -> None:
    """Write an evaluation, and beside it a ``.csv.gz`` with one line per user and the user ids of the data set.

    What a killed process left half-written in the folder is deleted.

    Raises
    ------
    ResourceError
        If they cannot be written.
    """
    table = evaluation.to_frame()
    table.insert(0, "user_id", dataset.user_ids[evaluation.users])
    with disk_errors(path.parent):
        remove_partials(path.parent)
        write_csv(path.with_name(f"{path.stem}.csv.gz"), table.drop(columns="user"))
        evaluation.save(path)


def stored_evaluation(
    run: Path, *, fingerprint: str, ranking: str, part: str = "test", k: int = 10, seed: int = 0
) -> Evaluation | None:
    """Return the evaluation stored in a training run, without reading model or data; None if there is none."""
    path = evaluation_path(run / EVALUATION_FOLDER, part=part, ranking=ranking, k=k, seed=seed)
    return find_evaluation(path, weights=weights_digest(run), fingerprint=fingerprint)
