"""What is said of the parts of a model follows from the intervals in the tables alone."""

import pytest

from frellm4rec.experiments.definitions import Experiment, load_experiment
from frellm4rec.experiments.effects import effect_lines, part_effects
from frellm4rec.experiments.markdown import markdown
from tests.frellm4rec.tiny_recommenders import experiment_tables

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
    return experiment_tables(cells, means, differences)


@pytest.fixture
def ablation():
    return load_experiment("ablation")


def test_the_ablation_names_what_its_variants_leave_out(ablation):
    assert {variant.name: variant.leaves_out for variant in ablation.variants} == {
        "full": "",
        "wo-glpf": "G-LPF",
        "wo-tfm": "TFM",
        "base": "both filters",
        "wo-id": "ID embeddings",
        "wo-text": "text embeddings",
    }


def test_every_claim_is_the_one_of_its_interval(ablation, tables):
    lines = {line.split("**")[1]: line for line in effect_lines(ablation, tables) if line.startswith("- **")}
    assert lines["TFM"] == (
        "- **TFM**, 99+1 candidates: helps (stories260K prefix); hurts (stories260K causal). The paper's claim that "
        "it helps (+0.0820) holds in 1 of 2 settings here; the opposite was found in 1 of 2. full ranking: no "
        "detectable difference (stories260K prefix)."
    )
    # The interval of one leaves out 0, but not p after the correction.
    assert lines["G-LPF"] == (
        "- **G-LPF**, 99+1 candidates: no detectable difference (stories260K prefix and stories260K causal). The "
        "paper's claim that it helps (+0.0803) is not reproduced here."
    )
    assert lines["both filters"].endswith("The paper's claim that it helps (+0.1091) holds here.")
    assert "ID embeddings" not in lines
    beside = [line for line in effect_lines(ablation, tables) if "beside SASRec" in line]
    assert beside[0].endswith("prefix, 99+1 candidates): NDCG@10 −0.0400 [−0.0600, −0.0200], p < 0.001: lower.")
    assert beside[1].endswith("p = 1.000: no detectable difference.")
    assert len(beside) == 2


def test_the_worth_of_a_part_is_with_minus_without(ablation, tables):
    rows = [line for line in effect_lines(ablation, tables) if line.startswith("| TFM")]
    assert [row.split(" | ")[2] for row in rows] == ["prefix", "prefix", "causal", "two-sided (leaky)"]
    assert "| +0.0200 [+0.0100, +0.0300] | 0.004 | +0.0820 | **helps** |" in rows[0]
    assert "| −0.0100 [−0.0180, −0.0020] | 0.030 | +0.0820 | **hurts** |" in rows[2]
    assert "| full | +0.0010 [−0.0040, +0.0060] | 0.500 | – | **no detectable difference** |" in rows[1]
    assert "two-sided (leaky)" in rows[3]
    parts = part_effects(ablation, tables)
    row = parts[(parts["part"] == "TFM") & (parts["mode"] == "causal")].iloc[0]
    assert (row["worth"], row["low"], row["high"], row["effect"]) == (-0.01, -0.018, -0.002, "hurts")


def test_few_seeds_speak_of_these_trainings_only(ablation, tables):
    tables.differences["covers"] = "users, these trainings"
    text = "\n".join(effect_lines(ablation, tables))
    assert "helps (stories260K prefix, these trainings)" in text
    assert "| **helps**, these trainings |" in text
    assert "SASRec** (stories260K prefix, these trainings, 99+1 candidates)" in text
    tables.differences["covers"] = "users and trainings"
    assert "these trainings" not in "\n".join(effect_lines(ablation, tables))


def test_an_experiment_without_parts_says_higher_or_lower(tables):
    values = {"title": "Own", "source": "Table 3", "reference": "full", "backbones": ["stories260K"]}
    variants = [{"name": "full"}, {"name": "wo-tfm"}, {"name": "wo-glpf"}, {"name": "base"}]
    own = Experiment.from_dict({**values, "variants": variants}, "ablation")
    assert part_effects(own, tables).empty
    text = markdown(own, tables)
    assert "helps" not in text
    assert "−0.0200 [−0.0300, −0.0100], p = 0.004: lower" in text
    assert "+0.0100 [+0.0020, +0.0180], p = 0.030: higher" in text
    assert effect_lines(own, tables.select(variant="wo-tfm")) == []


def test_the_page_of_an_experiment_shows_its_parts(ablation, tables):
    assert "\n".join(effect_lines(ablation, tables)) in markdown(ablation, tables)
