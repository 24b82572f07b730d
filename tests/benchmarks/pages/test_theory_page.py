"""The page of theory says what is computed and what the committed tables say, and nothing else."""

import re

import numpy as np
import pandas as pd
import pytest
from scipy.signal import butter, dimpulse, dlti

from benchmarks.pages import theory
from frellm4rec.modules import two_sided_operator


def test_the_page_is_written_from_the_tables_byte_for_byte():
    assert theory.PAGE.read_text(encoding="utf-8") == theory.page()


def test_no_measured_number_stands_in_the_text_itself():
    """Numbers with two decimals or a percent sign come from the tables; the rest are settings and hand-worked ones."""
    text = theory.TEXT.read_text(encoding="utf-8")
    typed = set(re.findall(r"\d+\.\d{2,}|\d+(?:\.\d+)?\s?%", text))
    # tests/frellm4rec/theory/test_theory.py asserts the first two and the 99 %; the last is the paper's number.
    assert typed == {"0.459", "0.509", "99 %", "95 %", "2508.10312"}


def test_the_tables_hold_three_models_every_layer_and_no_path_on_a_machine():
    table = pd.read_csv(theory.FIGURES / "rayleigh.csv")
    assert set(table["model"]) == {"sasrec", "stories260K", "minilm"}
    assert set(table["cutoff"]) == set(theory.MEASURED)
    assert len(table) == len(table.drop_duplicates(["model", "layer", "mode", "cutoff", "treatment"]))
    assert (table["share_falls_low"] <= table["share_falls"]).all()
    assert (table["share_falls"] <= table["share_falls_high"]).all()
    assert not table.isna().any().any()


def test_centred_states_do_not_change_on_a_graph_in_random_order():
    table = pd.read_csv(theory.FIGURES / "rayleigh.csv")
    assert table.loc[table["treatment"] == "headline", "shuffled_change"].abs().max() < 1e-9


@pytest.mark.parametrize(("cutoff", "n_layers"), [(0.1, 1), (0.1, 6), (0.5, 2)])
def test_the_recursive_filter_is_that_of_scipy(cutoff, n_layers):
    b, a = butter(theory.ORDER, cutoff)
    b, a = (np.polynomial.polynomial.polypow(part, n_layers) for part in (b, a))
    response = dimpulse(dlti(b, a), n=theory.T)[1][0][:, 0]
    expected = (response[0], response[:5].sum(), np.abs(response[:5]).sum(), response[-5:].sum())
    assert theory.newest_weights("iir", cutoff, n_layers) == pytest.approx(expected, abs=1e-6)


def test_six_recursive_filters_leave_nothing_on_the_newest_five_items():
    assert theory.newest_weights("iir", 0.1, 6)[2] < 5e-5


def test_the_causal_filter_delays_less_than_the_recursive_one_and_still_delays():
    for cutoff in (0.1, 0.2, 0.3):
        for n_layers in (1, 2, 6):
            causal, recursive = (theory.newest_weights(mode, cutoff, n_layers)[0] for mode in ("causal", "iir"))
            assert causal > 3 * recursive, (cutoff, n_layers)
    newest = [theory.newest_weights("causal", 0.3, n_layers)[1] for n_layers in (6, 12, 28)]
    assert newest[0] > 1 > 0.5 > newest[1] > 0.01 > newest[2]


def test_many_two_sided_filters_put_almost_as_much_on_the_oldest_items_as_on_the_newest():
    _, newest, _, oldest = theory.newest_weights("two_sided", 0.3, 28)
    assert newest > oldest > 0.8 * newest


def test_the_weights_of_the_zero_phase_filters_are_those_of_the_last_row():
    row = np.linalg.matrix_power(two_sided_operator(50, 0.3).numpy(), 2)[-1]
    expected = (row[-1], row[-5:].sum(), np.abs(row[-5:]).sum(), row[:5].sum())
    assert theory.newest_weights("two_sided", 0.3, 2) == pytest.approx(expected)
