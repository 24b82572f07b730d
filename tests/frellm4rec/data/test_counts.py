import numpy as np
import pytest

from frellm4rec.data import format_report, make_demo, report_of
from frellm4rec.data.counts import PAPER_TABLE_1, Counts, FilterReport, filter_core, with_report
from spectral_probe.errors import DataError
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.log import Interactions


@pytest.fixture
def log():
    """Items 0, 1, 2 form a 3-core of users a, b, c; item 4 is nobody's."""
    sequences = [[0, 1, 2], [2, 1, 0, 3], [1, 0, 2], [3]]
    log = Interactions.from_sequences(sequences, n_items=5, user_ids=np.array(list("abcd"), dtype=object))
    return Dataset.from_interactions(log, item_titles=["zero", "", "two", "three", "four"], name="log")


def test_counts(log):
    assert Counts.of_dataset(log) == Counts(4, 4, 11)
    assert Counts(4, 4, 11).mean_length == 2.75
    assert report_of(log).stages == (("as read", Counts(4, 4, 11)),)
    assert report_of(log).paper is None


@pytest.mark.parametrize("iterative", [True, False])
def test_filter_core_keeps_order_labels_and_titles(log, iterative):
    filtered = filter_core(log, 3, iterative=iterative)
    assert filtered.user_ids.tolist() == ["a", "b", "c"]
    assert [filtered.item_ids[s].tolist() for s in filtered.sequences] == [[0, 1, 2], [2, 1, 0], [1, 0, 2]]
    assert filtered.item_titles == ["zero", "", "two"]
    label = "iterative 3-core" if iterative else "single-pass 3-core"
    assert filtered.report.stages == (("as read", Counts(4, 4, 11)), (label, Counts(3, 3, 9)))
    assert filtered.report.n_titles == 2
    with pytest.raises(DataError, match="9-core"):
        filter_core(log, 9)


def test_a_counted_data_set_is_the_same_data_set(log):
    counted = with_report(log, [("as read", Counts(4, 4, 11))])
    assert isinstance(counted, Dataset)
    assert counted.fingerprint() == log.fingerprint()


def test_report_as_text_stands_beside_the_paper():
    row = PAPER_TABLE_1["lastfm"]
    stages = (("tag assignments", Counts(1892, 12523, 186479)), ("iterative 5-core", row))
    text = format_report(FilterReport("lastfm", stages, 3624, ("a note",)))
    assert text == str(FilterReport("lastfm", stages, 3624, ("a note",)))
    lines = text.splitlines()
    assert lines[0] == "lastfm"
    assert lines[2].split() == ["tag", "assignments", "1,892", "12,523", "186,479", "98.56"]
    assert lines[4].split() == ["paper,", "Table", "1", "1,090", "3,646", "52,551", "48.21"]
    assert lines[5:] == ["counts are the same as the paper's", "3,624 of 3,646 items have a title", "note: a note"]
    other = format_report(FilterReport("amazon:All_Beauty", (("5-core", Counts(961, 49, 5084)),)))
    assert "not the same as the paper's" in other
    assert "no titles" in other


def test_paper_rows_have_the_papers_mean_lengths():
    means = {name: round(counts.mean_length, 2) for name, counts in PAPER_TABLE_1.items()}
    assert means == {
        "amazon:All_Beauty": 5.31,
        "amazon:Luxury_Beauty": 6.26,
        "amazon:Movies_and_TV": 5.48,
        "lastfm": 48.21,
    }


def test_demo_has_counts():
    frame = report_of(make_demo().dataset).to_frame()
    assert frame.loc[0, ["users", "items"]].tolist() == [800, 400]
