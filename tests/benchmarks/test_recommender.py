"""What the page of results says of the recommender follows from the tables alone."""

import pandas as pd
import pytest

from benchmarks import recommender, results
from frellm4rec.experiments.results import (
    CELL_COLUMNS,
    DIFFERENCE_COLUMNS,
    MEAN_COLUMNS,
    ExperimentTables,
    typed,
)
from spectral_probe.errors import DataError

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
        own = {**LABELS, **OWN, "mode": mode, "variant": variant, "label": variant.upper(), "n_users": 1090}
        values = {"difference": difference, "low": low, "high": high, "p_value": p / 2, "p_holm": p}
        differences.append(
            {**own, **values, "against": against, "metric": "ndcg", "n_seeds": 3, "reference_n_seeds": 3}
        )
        if against == "full" or mode == "prefix":
            protocol = "lastfm 5ed1, k=10, ties at expected value (rate 0.0000)"
            cells.append({**own, "seed": 0, "status": "finished", "tie_rate": 0.0, "protocol": protocol})
            value = {"value": 0.25 + difference, "std": 0.01, "low": 0.2, "high": 0.3, "n_seeds": 3}
            means += [{**own, **value, "metric": metric} for metric in ("ndcg", "recall")]
    cells.append({**LABELS, **ALONE, "seed": 0, "status": "finished", "tie_rate": 0.0, "protocol": "lastfm 5ed1, k=10"})
    means += [
        {**LABELS, **ALONE, "metric": metric, "value": 0.28, "low": 0.26, "high": 0.3, "n_seeds": 3, "n_users": 1090}
        for metric in ("ndcg", "recall")
    ]
    columns = (CELL_COLUMNS, MEAN_COLUMNS, DIFFERENCE_COLUMNS)
    parts = zip((cells, means, differences), columns, strict=True)
    return ExperimentTables(*(typed(pd.DataFrame(rows, columns=names)) for rows, names in parts))


def test_every_claim_is_the_one_of_its_interval(tables):
    said = {line.split("**")[1]: line for line in recommender.claims(tables) if line.startswith("- **")}
    assert said["TFM"] == (
        "- **TFM**: helps (stories260K, prefix); hurts (stories260K, causal). The paper's claim that it helps "
        "(+0.0820) holds in 1 of 2 settings here; the opposite was found in 1 of 2."
    )
    assert said["G-LPF"] == (
        "- **G-LPF**: no difference shown (stories260K, prefix); no difference shown after correction (stories260K, "
        "causal). The paper's claim that it helps (+0.0803) is not reproduced here."
    )
    assert said["both filters"].endswith("The paper's claim that it helps (+0.1091) holds here.")
    assert "ID embeddings" not in said
    beside = [line for line in recommender.claims(tables) if "beside SASRec" in line]
    assert "−0.0400 [−0.0600, −0.0200], p < 0.001: below the network" in beside[0]
    assert "no difference shown to the network" in beside[1]


def test_the_worth_of_a_part_is_with_minus_without(tables):
    rows = [line for line in recommender.claims(tables) if line.startswith("| TFM")]
    assert "| +0.0200 [+0.0100, +0.0300] | 0.004 | +0.0820 | **helps** |" in rows[0]
    assert "| −0.0100 [−0.0180, −0.0020] | 0.030 | +0.0820 | **hurts** |" in rows[1]
    assert "two-sided (leaky)" in rows[2]


def test_the_section_shows_table_and_figure_and_is_absent_without_tables(tables, tmp_path):
    folder = tmp_path / "lastfm" / "recommender"
    assert recommender.section(folder) == []
    run = tmp_path / "run"
    run.mkdir()
    tables.save(run)
    recommender.collect([run, run], folder)
    assert sorted(path.name for path in folder.iterdir()) == [
        "ablation.pdf",
        "ablation.png",
        "cells.csv",
        "differences.csv",
        "means.csv",
    ]
    pd.testing.assert_frame_equal(ExperimentTables.load(folder).means, tables.means)
    text = "\n".join(recommender.section(folder))
    assert text.startswith("## FreLLM4Rec\n")
    assert "](../figures/lastfm/recommender/ablation.png)" in text
    assert "### What each part of FreLLM4Rec is worth (Table 3 of the paper)" in text
    assert "#### lastfm, 99+1 candidates, backbone stories260K" in text
    assert "\n".join(recommender.claims(tables)) in text


def test_an_experiment_of_ones_own_is_not_on_the_page(tables, tmp_path):
    tables.cells["experiment"] = "mine"
    tables.save(tmp_path)
    with pytest.raises(DataError, match="Only packaged experiments"):
        recommender.collect([tmp_path], tmp_path / "out")


def test_the_committed_tables_name_no_place_on_a_machine():
    for path in (results.FIGURES / "recommender").glob("*.csv"):
        text = path.read_text(encoding="utf-8")
        assert "/home/" not in text
        assert "shared/" not in text
