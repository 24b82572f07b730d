"""SASRec with its published loss beside what others report: which variant stands there, and what is said of it."""

import pytest

from benchmarks.pages import floors
from frellm4rec.experiments.grid import ExperimentRequest, cells_of
from tests.frellm4rec.tiny_recommenders import experiment_tables

LABELS = {"experiment": "floors", "dataset": "lastfm", "fingerprint": "5ed1", "ranking": "full", "k": 10}
ALONE = {"backbone": "", "mode": "", "settings": ""}


def tables(validation, recall):
    """Tables with these validation NDCGs of each variant (a value per seed) and test recalls."""
    variants = {variant.name: variant.label for variant in floors.experiment().variants} | {"popularity": "Popularity"}
    cells, means = [], []
    for name, values in validation.items():
        row = {**LABELS, **ALONE, "variant": name, "label": variants[name], "status": "finished", "n_users": 1090}
        row |= {"tie_rate": 0.1, "protocol": "lastfm 5ed1, k=10"}
        cells += [{**row, "seed": seed, "validation_ndcg": value} for seed, value in enumerate(values)]
        estimate = {"n_seeds": len(values), "std": 0.001, "covers": "users and trainings"}
        for metric, value in (("recall", recall[name]), ("ndcg", recall[name] / 2)):
            means.append(
                {**row, **estimate, "metric": metric, "value": value, "low": value - 0.01, "high": value + 0.01}
            )
    return experiment_tables(cells, means, [])


@pytest.mark.parametrize(
    ("recall", "says"), [(0.06, "0.0600 lies inside the range"), (0.09, "0.0900 lies outside the range")]
)
def test_the_validation_chooses_and_the_range_is_named(recall, says, tmp_path):
    assert floors.section(tmp_path) == []
    # The variant with the better mean on validation is the worse one on test.
    made = tables(
        {"bce-0.2": (0.05, 0.03), "bce-0.5": (0.045, 0.045), "gbce": (0.9, 0.9), "popularity": (0.02,)},
        {"bce-0.2": 0.2, "bce-0.5": recall, "gbce": 0.3, "popularity": 0.0385},
    )
    made.save(tmp_path)
    text = "\n".join(floors.section(tmp_path))
    assert (
        "chooses SASRec, BCE, dropout 0.5 (SASRec, BCE, dropout 0.2: 0.0400, SASRec, BCE, dropout 0.5: 0.0450)" in text
    )
    assert f"test Recall@10 of {says} of the reports, 0.05 to 0.075." in text
    assert f"| SASRec, BCE, dropout 0.5 | {recall:.4f} [{recall - 0.01:.4f}, {recall + 0.01:.4f}] |" in text
    assert "| 0.0598 (0.0560 to 0.0615) | 0.0334 |" in text
    assert "| Popularity | 0.0385 [0.0285, 0.0485] |" in text


def test_the_experiment_has_every_floor_once_and_every_loss_for_each_seed():
    cells = cells_of(floors.experiment(), ExperimentRequest("lastfm", n_seeds=2))
    names = [cell.variant.name for cell in cells]
    assert names.count("popularity") == names.count("markov") == names.count("itemknn") == 1
    assert names.count("sasrec") == names.count("bce-0.2") == names.count("bce-0.5") == names.count("gbce") == 2
    assert {cell.overrides["architecture.n_features"] for cell in cells if not cell.is_baseline} == {64}
