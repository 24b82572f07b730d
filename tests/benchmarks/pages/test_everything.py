"""Every recommender on one axis: what is taken from an analysis, and what is drawn and said of it."""

import pandas as pd
import pytest

from benchmarks.pages import everything
from benchmarks.pages.results import LASTFM
from spectral_probe.figure_style import line_labels
from tests.conftest import assert_print_ready


class Profile:
    """The table of an analysis, with rows that the page does not show."""

    def __init__(self, model, retention):
        rows = []
        for layer in range(4):  # the input, two blocks, and the state after the final norm
            for component, treatment in (("taste", "residual"), ("popularity", "rows"), ("taste", "rows")):
                for control in ("none", "random-weights", "raw"):
                    for nodes, null in (("carried", "swap"), ("foreseen", "swap"), ("carried", "cyclic")):
                        rows.append(
                            {
                                **{"model": model, "component": component, "treatment": treatment, "control": control},
                                **{"nodes": nodes, "null": null, "band": "low", "layer": layer},
                                "state": ("embed", "block", "block", "final_norm")[layer],
                                **{"layer_name": f"block {layer}", "n_users": 40, "n_effective": 21.5},
                                **dict.fromkeys(("excess", "excess_low", "excess_high"), 0.1),
                                "retention": retention**layer * (1.0 if component == "taste" else 2.0),
                                "retention_low": retention**layer - 0.1,
                                "retention_high": retention**layer + 0.1,
                            }
                        )
        self.table = pd.DataFrame(rows)

    def to_frame(self):
        return self.table


@pytest.fixture
def table():
    parts = [everything.rows_of(Profile("sasrec own-00", 0.5)), everything.rows_of(Profile("gru4rec", 0.9))]
    return pd.concat(parts, ignore_index=True)


def test_the_carried_components_of_their_headline_are_taken(table):
    assert len(table) == 2 * 3 * 2 * 2  # models, layers, components, controls
    assert set(table["model"]) == {"SASRec", "GRU4Rec"}
    assert table.loc[table["layer"] == 1, "depth"].unique().tolist() == [0.5]
    assert set(table["control"]) == {"none", "random-weights"}


def test_a_curve_per_model_in_either_panel(table):
    drawn = everything.figure(table)
    taste, popularity = drawn.axes
    for ax, factor in ((taste, 1.0), (popularity, 2.0)):
        lines = {line.get_label(): line for line in ax.get_lines() if not line.get_label().startswith("_")}
        assert set(lines) == {"SASRec", "GRU4Rec"}
        assert lines["SASRec"].get_ydata().tolist() == pytest.approx([factor, 0.5 * factor, 0.25 * factor])
        assert lines["SASRec"].get_xdata().tolist() == [0.0, 0.5, 1.0]
        assert {text.get_text() for text in line_labels(ax)} == {"SASRec", "GRU4Rec"}
    assert_print_ready(drawn, 178)


def test_the_section_states_the_last_block(table, tmp_path):
    assert everything.section(tmp_path) == []
    table.to_csv(tmp_path / "everything.csv", index=False)
    text = "\n".join(everything.section(tmp_path))
    assert "| SASRec | 0.25 [0.15, 0.35] |" in text
    assert "| GRU4Rec | 0.81 [0.71, 0.91] |" in text


def test_the_committed_figure_has_its_table():
    if not (LASTFM / "everything.csv").exists():
        pytest.skip("no analyses are committed yet")
    committed = pd.read_csv(LASTFM / "everything.csv")
    assert list(committed.columns) == everything.COLUMNS
    inputs = committed[(committed["layer"] == 0) & (committed["control"] == "none")]
    assert (inputs["retention"] == 1.0).all()
    assert (LASTFM / "everything.png").exists()
