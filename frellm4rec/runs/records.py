"""What a finished training wrote about itself: its record, its log, and the names of its files."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from frellm4rec.training.config import TrainingRecord
from spectral_probe.errors import DataError
from spectral_probe.storage.reading import parse_json, read_json, read_text

CHECKPOINT_FOLDER, METRICS_FILE, SUMMARY_FILE = "checkpoints", "metrics.jsonl", "summary.json"
_SUMMARY = {"record": {}, "n_trained_parameters?": (int, None), "revision?": str}
_ENTRY = {"epoch": int, "step": (int, None), "seconds": float, "loss?": (float, None), "ndcg?": (float, None)}


@dataclass(frozen=True)
class TrainingSummary:
    """The record of a finished training.

    Attributes
    ----------
    record : TrainingRecord
    n_trained_parameters : int or None
        None in runs of before it was written.
    revision : str
        Of the best weights.
    log : list of dict
        One entry per epoch: epoch, step, loss, seconds, and ndcg where it was validated.
    """

    record: TrainingRecord
    n_trained_parameters: int | None
    revision: str
    log: list[dict[str, Any]]

    @classmethod
    def read(cls, run: Path) -> Self:
        """Read it from the folder of a run.

        Raises
        ------
        DataError
            If the training is not finished, or a file is damaged.
        """
        try:
            values = read_json(run / SUMMARY_FILE, _SUMMARY)
            record = TrainingRecord.from_dict(values["record"])
            log = _entries(run / METRICS_FILE)
            return cls(record, values.get("n_trained_parameters"), str(values.get("revision", "")), log)
        except (OSError, ValueError) as error:
            raise DataError(
                f"{run} is not a finished training run, or its record cannot be read: {error}. Finish it with "
                "--resume if it was interrupted; else restore the file, or train again."
            ) from error

    @property
    def effort(self) -> dict[str, Any]:
        """What the training cost, by name; empty for runs of before it was counted."""
        return {} if self.record.effort is None else asdict(self.record.effort)


def _entries(path: Path) -> list[dict[str, Any]]:
    """Return the entries of the log of a training; ValueError names the line that is damaged."""
    log = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        try:
            log.append(parse_json(line, _ENTRY))
        except ValueError as error:
            raise ValueError(f"{path.name}, line {number}: {error}") from error
    if not log:  # without the last entry a reader would not know how long the training ran
        raise ValueError(f"{path.name} has no entries")
    return log
