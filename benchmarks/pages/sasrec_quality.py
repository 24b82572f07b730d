"""Quality of the trained SASRec: test NDCG@10 and Recall@10 per seed, with 99 negatives and with the full ranking.

Run as ``python -m benchmarks.pages.sasrec_quality --dataset lastfm --from-dir DIR``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pandas as pd

from frellm4rec.data.datasets import lastfm
from frellm4rec.evaluation import evaluate, sample_candidates
from frellm4rec.runs.pretrained import pretrained
from frellm4rec.training.trainer import TrainingConfig
from spectral_probe.errors import ConfigError, SpectralProbeError
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.storage.atomic import write_csv

#: Negatives are shared by all models and seeds.
CANDIDATE_SEED = 0
COLUMNS = [
    "model",
    "revision",
    "dataset",
    "fingerprint",
    "seed",
    "part",
    "ranking",
    "n_negatives",
    "candidate_seed",
    "k",
    "n_users",
    "ndcg",
    "recall",
    "tie_rate",
    "protocol",
]


def measure(
    dataset: Dataset, seed: int, *, device: str = "cpu", training: TrainingConfig | None = None
) -> pd.DataFrame:
    """Return one row per ranking rule for the SASRec of a seed, trained or from the cache."""
    model = pretrained("sasrec", dataset, seed=seed, device=device, training=training)
    candidates = sample_candidates(dataset, part="test", seed=CANDIDATE_SEED)
    rows = [evaluate(model, dataset, candidates=lists).summary() for lists in (candidates, None)]
    df = pd.DataFrame(rows).assign(seed=seed)[COLUMNS]
    # Nullable integers: the full ranking has neither.
    return df.astype({"n_negatives": "Int64", "candidate_seed": "Int64"})


def run(
    dataset: Dataset, seeds: int, out: Path, *, device: str = "cpu", training: TrainingConfig | None = None
) -> pd.DataFrame:
    """Measure seeds 0…seeds − 1 and write the table after each; an interrupted run keeps the finished seeds."""
    if seeds < 1:
        raise ConfigError(f"--seeds must be at least 1; got {seeds}.")
    out.parent.mkdir(parents=True, exist_ok=True)
    tables: list[pd.DataFrame] = []
    for seed in range(seeds):
        tables.append(measure(dataset, seed, device=device, training=training))
        write_csv(out, pd.concat(tables))
    return pd.concat(tables, ignore_index=True)


def main(arguments: list[str] | None = None) -> int:
    """Run the experiment from the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pages.sasrec_quality", description=__doc__)
    parser.add_argument("--dataset", choices=["lastfm"], default="lastfm")
    parser.add_argument("--from-dir", type=Path, help="folder or zip with the raw files")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds, counted from 0")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, required=True, help="CSV to write")
    options = parser.parse_args(arguments)
    try:
        table = run(lastfm(from_dir=options.from_dir), options.seeds, options.out, device=options.device)
    except SpectralProbeError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    means = table.groupby("ranking", sort=False)[["ndcg", "recall"]].agg(["mean", "std"])
    print(means.to_string(float_format="%.4f"))
    for protocol in table["protocol"].unique():
        print(protocol)
    return 0


if __name__ == "__main__":
    sys.exit(main())
