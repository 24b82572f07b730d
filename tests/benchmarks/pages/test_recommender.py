"""What the page of results says of the recommender follows from the tables alone."""

import numpy as np
import pandas as pd
import pytest

from benchmarks.pages import recommender, results
from frellm4rec.evaluation import Evaluation
from frellm4rec.experiments.tables import (
    CELL_COLUMNS,
    DIFFERENCE_COLUMNS,
    MEAN_COLUMNS,
    ExperimentTables,
    typed,
    write_table,
)
from spectral_probe.errors import DataError
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.log import Interactions

LABELS = {"experiment": "ablation", "dataset": "lastfm", "fingerprint": "5ed1", "ranking": "99+1", "k": 10}
OWN = {"backbone": "stories260K", "settings": ""}
ALONE = {"backbone": "", "mode": "", "settings": "", "variant": "sasrec", "label": "SASRec"}
#: Variant without a part, mode: difference from the full model, interval, corrected p.
DIFFERENCES = [
    ("wo-tfm", "prefix", "full", -0.02, -0.03, -0.01, 0.004),
    ("wo-tfm", "causal", "full", 0.01, 0.002, 0.018, 0.03),
    ("wo-tfm", "two_sided_leaky", "full", -0.05, -0.06, -0.04, 0.001),
    ("wo-glpf", "prefix", "full", 0.001, -0.004, 0.006, 0.7),
    ("wo-glpf", "causal", "full", -0.004, -0.007, -0.001, 0.06),
    ("base", "prefix", "full", -0.03, -0.04, -0.02, 0.002),
    ("base", "causal", "full", -0.02, -0.03, -0.01, 0.002),
    ("full", "prefix", "sasrec", -0.04, -0.06, -0.02, 0.0006),
    ("full", "causal", "sasrec", 0.0, -0.01, 0.01, 1.0),
]


@pytest.fixture
def tables():
    cells, means, differences = [], [], []
    for variant, mode, against, difference, low, high, p in DIFFERENCES:
        labels = {**LABELS, **OWN, "mode": mode, "variant": variant, "label": variant.upper(), "n_users": 1090}
        values = {"difference": difference, "low": low, "high": high, "p_value": p / 2, "p_holm": p}
        differences.append(
            {**labels, **values, "against": against, "metric": "ndcg", "n_seeds": 3, "reference_n_seeds": 3}
        )
        if against == "full" or mode == "prefix":
            protocol = "lastfm 5ed1, k=10, ties at expected value (rate 0.0000)"
            cells.append({**labels, "seed": 0, "status": "finished", "tie_rate": 0.0, "protocol": protocol})
            value = {"value": 0.25 + difference, "std": 0.01, "low": 0.2, "high": 0.3, "n_seeds": 3}
            means += [{**labels, **value, "metric": metric} for metric in ("ndcg", "recall")]
    other = {"difference": -0.001, "low": -0.006, "high": 0.004, "p_value": 0.5, "p_holm": 0.5, "ranking": "full"}
    differences.append({**differences[0], **other})
    cells.append({**LABELS, **ALONE, "seed": 0, "status": "finished", "tie_rate": 0.0, "protocol": "lastfm 5ed1, k=10"})
    means += [
        {**LABELS, **ALONE, "metric": metric, "value": 0.28, "low": 0.26, "high": 0.3, "n_seeds": 3, "n_users": 1090}
        for metric in ("ndcg", "recall")
    ]
    columns = (CELL_COLUMNS, MEAN_COLUMNS, DIFFERENCE_COLUMNS)
    parts = zip((cells, means, differences), columns, strict=True)
    return ExperimentTables(*(typed(pd.DataFrame(rows, columns=names)) for rows, names in parts))


def test_every_claim_is_the_one_of_its_interval(tables):
    lines = {line.split("**")[1]: line for line in recommender.claims(tables) if line.startswith("- **")}
    assert lines["TFM"] == (
        "- **TFM**, 99+1 candidates: helps (stories260K prefix); hurts (stories260K causal). The paper's claim that "
        "it helps (+0.0820) holds in 1 of 2 settings here; the opposite was found in 1 of 2. full ranking: no "
        "difference shown (stories260K prefix)."
    )
    assert lines["G-LPF"] == (
        "- **G-LPF**, 99+1 candidates: no difference shown (stories260K prefix); no difference shown after correction "
        "(stories260K causal). The paper's claim that it helps (+0.0803) is not reproduced here."
    )
    assert lines["both filters"].endswith("The paper's claim that it helps (+0.1091) holds here.")
    assert "ID embeddings" not in lines
    beside = [line for line in recommender.claims(tables) if "beside SASRec" in line]
    assert beside[0].endswith(
        "prefix, 99+1 candidates): NDCG@10 −0.0400 [−0.0600, −0.0200], p < 0.001: it is below SASRec."
    )
    assert beside[1].endswith("p = 1.000: no difference is shown.")
    assert len(beside) == 2


def test_the_worth_of_a_part_is_with_minus_without(tables):
    rows = [line for line in recommender.claims(tables) if line.startswith("| TFM")]
    assert [row.split(" | ")[2] for row in rows] == ["prefix", "prefix", "causal", "two-sided (leaky)"]
    assert "| +0.0200 [+0.0100, +0.0300] | 0.004 | +0.0820 | **helps** |" in rows[0]
    assert "| −0.0100 [−0.0180, −0.0020] | 0.030 | +0.0820 | **hurts** |" in rows[2]
    assert "| full | +0.0010 [−0.0040, +0.0060] | 0.500 | – | **no difference shown** |" in rows[1]
    assert "two-sided (leaky)" in rows[3]


def test_the_section_shows_claims_table_and_figure_and_is_absent_without_tables(tables, tmp_path):
    folder = tmp_path / "lastfm" / "recommender"
    assert recommender.section(folder) == []
    folder.mkdir(parents=True)
    tables.save(folder)
    text = "\n".join(recommender.section(folder))
    assert text.startswith("## FreLLM4Rec\n")
    assert "](../figures/lastfm/recommender/ablation.png)" in text
    assert "### What each part of FreLLM4Rec is worth (Table 3 of the paper)" in text
    assert "#### lastfm, 99+1 candidates, backbone stories260K" in text
    assert "\n".join(recommender.claims(tables)) in text


def test_what_was_run_apart_is_collected_and_compared(tmp_path):
    values = {"sasrec/seed-0": [0.0, 0.5, 1.0, 0.0], "runs/a": [1.0, 0.5, 1.0, 0.0], "runs/b": [0.0, 0.5, 0.0, 0.0]}
    rows = {"sasrec/seed-0": ALONE, "runs/a": {**OWN, "variant": "full"}, "runs/b": {**OWN, "variant": "wo-tfm"}}
    for name, runs in (("one", ["sasrec/seed-0", "runs/a"]), ("two", ["sasrec/seed-0", "runs/b"])):
        cells = []
        for run in runs:
            ndcg = np.array(values[run])
            evaluation = Evaluation(
                ndcg, (ndcg > 0) * 1.0, ndcg * 0, np.arange(4), 10, "m", "r", "lastfm", "5ed1", "test", 99, 0
            )
            evaluation.save(tmp_path / name / run / "evaluation" / "test-99+1.npz")
            label = {"mode": "prefix", "label": rows[run]["variant"], **rows[run]}
            cells.append(
                {**LABELS, **label, "seed": 0, "status": "finished", "run": run, "protocol": "p", "tie_rate": 0}
            )
        write_table(typed(pd.DataFrame(cells, columns=CELL_COLUMNS)), tmp_path / name / "cells.csv")
    folder = tmp_path / "figures" / "recommender"
    recommender.collect([tmp_path / "one", tmp_path / "two"], folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "ablation.pdf",
        "ablation.png",
        "cells.csv",
        "differences.csv",
        "means.csv",
    ]
    joined = ExperimentTables.load(folder)
    assert joined.cells["variant"].tolist() == ["sasrec", "full", "wo-tfm"]
    pairs = joined.differences[joined.differences["metric"] == "ndcg"].set_index(["variant", "against"])["difference"]
    assert pairs.to_dict() == {("wo-tfm", "full"): -0.5, ("full", "sasrec"): 0.25, ("wo-tfm", "sasrec"): -0.25}


def test_an_experiment_of_ones_own_is_not_on_the_page(tables, tmp_path):
    tables.cells["experiment"] = "mine"
    tables.save(tmp_path)
    with pytest.raises(DataError, match="Only packaged experiments"):
        recommender.collect([tmp_path], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_how_much_the_graph_filter_changes_beyond_a_rescaling(tmp_path, monkeypatch):
    # Training holds a pair of items that four users share (λ = 0, 1), one item alone (0), two nobody read (1, 1).
    sequences = [np.array([0, 1, 2, 3]) for _ in range(4)] + [np.array([4, 2, 3])]
    dataset = Dataset.from_interactions(Interactions.from_sequences(sequences, n_items=5), name="pair")
    table = np.array([[1.0, 0], [-1, 0], [0, 0], [0, 0], [0, 0]], dtype=np.float32)
    monkeypatch.setattr(recommender, "pretrained_item_table", lambda name, dataset, seed: table * (seed + 1))
    strength = recommender.measure_strength(dataset, seeds=(0, 1), alpha=0.5)
    np.testing.assert_allclose(strength["near_one"], 3 / 5)
    # (1, −1) on the pair is an eigenvector at λ = 1: the filter is a multiple of the identity on it.
    np.testing.assert_allclose(strength["changed"], 0.0, atol=1e-12)
    table[1] = 0.0
    # (1, 0) splits evenly over λ = 0 and λ = 1, and has a mean that is taken out.
    strength = recommender.measure_strength(dataset, seeds=(0, 1), alpha=0.5)
    assert strength["changed"].between(0.1, 0.9).all()
    assert strength["changed"].nunique() == 1
    strength.to_csv(tmp_path / "glpf.csv", index=False)
    line = recommender.strength(tmp_path / "glpf.csv")[0]
    assert f"{strength['near_one'][0]:.0%} of the 5 eigenvalues" in line
    assert f"up to {strength['changed'][0]:.0%} (mean over 2 seeds" in line
    assert recommender.strength(tmp_path / "absent.csv") == []


def test_the_committed_tables_name_no_path_on_a_machine():
    for path in (results.FIGURES / "recommender").glob("*.csv"):
        text = path.read_text(encoding="utf-8")
        assert "/home/" not in text
        assert "shared/" not in text
