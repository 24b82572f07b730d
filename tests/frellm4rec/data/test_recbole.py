import gzip

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from frellm4rec.data import make_demo, read_recbole, write_recbole
from frellm4rec.data.datasets import table
from spectral_probe.errors import ConfigError, DataError, ResourceError
from spectral_probe.interactions.dataset import Dataset
from spectral_probe.interactions.labels import label_of
from spectral_probe.interactions.log import Interactions

INTER = (
    "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
    "196\t242\t3\t30.5\n196\t302\t3\t4\n22\t377\t1\t2\n22\t242\t1\t3\n"
)
ITEM = 'item_id:token\tmovie_title:token_seq\tclass:token_seq\n242\tKolya "1996"\tComedy\n302\tL.A. Confidential\t\n'


def write(folder, inter=INTER, item=ITEM, name="ml"):
    (folder / f"{name}.inter").write_text(inter, encoding="utf-8")
    if item is not None:
        (folder / f"{name}.item").write_text(item, encoding="utf-8")
    return folder / f"{name}.inter"


def by_label(dataset):
    titles = dataset.item_titles or [None] * dataset.n_items
    return {
        str(user): [(str(dataset.item_ids[i]), titles[i]) for i in s]
        for user, s in zip(dataset.user_ids, dataset.sequences, strict=True)
    }


def test_reads_histories_and_titles(tmp_path):
    dataset = read_recbole(write(tmp_path))
    assert by_label(dataset) == {
        "196": [("302", "L.A. Confidential"), ("242", 'Kolya "1996"')],
        "22": [("377", ""), ("242", 'Kolya "1996"')],
    }
    assert dataset.name == "ml"
    assert table("ml.inter", from_dir=tmp_path).fingerprint() == dataset.fingerprint()


def test_packed_files_other_columns_and_no_titles(tmp_path):
    path = tmp_path / "log.inter.gz"
    path.write_bytes(gzip.compress(INTER.replace("user_id", "uid").encode()))
    (tmp_path / "log.item").write_text("item_id:token\tprice:float\n242\t3\n")
    dataset = read_recbole(path, user="uid", time=None)
    assert dataset.item_titles is None
    assert by_label(dataset)["196"] == [("242", None), ("302", None)]
    (tmp_path / "log.item").write_text(ITEM)
    assert read_recbole(path, user="uid", title="class").item_titles.count("Comedy") == 1


@pytest.mark.parametrize(
    ("inter", "message"),
    [
        ("", "is empty"),
        (INTER.replace("user_id:token", "user_id"), r"name:type .*line 1 has 'user_id'"),
        (INTER.replace("user_id:token", "user_id:tokens"), "Did you mean 'token'"),
        (INTER.replace("user_id", "who"), "no column 'user_id' in its header, line 1.*--columns user="),
        (INTER.replace("rating", "item_id"), "more than one column 'item_id'"),
        (INTER.replace("22\t377\t1\t2", "22\t377\t1"), "4 fields on every line; line 4 has 3"),
        (INTER.replace("22\t377\t1\t2", "22\t377\t1\tnan"), "line 4 has 'nan'"),
        (INTER.replace("22\t377\t1\t2", "\t377\t1\t2"), "must not be empty; it is in line 4"),
        (INTER.splitlines()[0] + "\n", "no rows"),
        (INTER + INTER, "line 6 has 'timestamp:float'"),
    ],
)
def test_names_what_is_wrong(tmp_path, inter, message):
    with pytest.raises(DataError, match=message):
        read_recbole(write(tmp_path, inter))


@pytest.mark.parametrize(
    ("item", "note"),
    [
        (b"item_id:token\ttitle:token_seq\n1\tOne\n", "no title for any of the 3 items"),
        ("item_id:token\ttitle:token_seq\n242\tCaf\u00e9\n".encode("latin-1"), "must be UTF-8 text"),
        (b"item_id:token\ttitle:token_seq\n242\n", "fields on every line; line 2 has 1"),
        (b"item_id\ttitle\n242\tA\n", "name:type"),
        (b"item_id:token\tprice:float\n242\t3\n", "no column 'title'"),
        (b"", "is empty"),
    ],
)
def test_a_damaged_file_of_items_leaves_the_log_alone(tmp_path, item, note, caplog):
    path = write(tmp_path)
    (tmp_path / "ml.item").write_bytes(item)
    dataset = read_recbole(path)
    assert (dataset.n_users, dataset.n_items, dataset.item_titles) == (2, 3, None)
    assert note in caplog.text
    assert any("titles are left out" in line for line in dataset.report.notes)
    with pytest.raises(DataError):
        read_recbole(path, title="title")


def test_usual_names_and_the_order_of_the_file(tmp_path, caplog):
    path = write(tmp_path, INTER.replace("user_id", "uid").replace("item_id", "movieId").replace("timestamp", "when"))
    dataset = read_recbole(path)
    assert by_label(dataset)["196"] == [("242", 'Kolya "1996"'), ("302", "L.A. Confidential")]
    assert "columns recognised: user 'uid', item 'movieId'" in caplog.text
    assert "order of the file" in caplog.text


def test_round_trip_of_the_demo(tmp_path):
    dataset = make_demo().dataset
    path = write_recbole(dataset, tmp_path)
    assert path == tmp_path / "demo" / "demo.inter"
    assert sorted(p.name for p in path.parent.iterdir()) == ["demo.inter", "demo.item"]
    assert by_label(read_recbole(path)) == by_label(dataset)
    # Written twice, the second replaces the first.
    assert write_recbole(dataset, tmp_path).read_bytes() == path.read_bytes()


WORDS = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Z"], exclude_characters="\ufeff"), min_size=1, max_size=6
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.lists(st.integers(0, 5), min_size=1, max_size=8), min_size=1, max_size=5),
    st.lists(WORDS.filter(lambda word: label_of(word) == word), min_size=6, max_size=6, unique=True),
    st.lists(st.lists(WORDS, max_size=3).map(" ".join), min_size=6, max_size=6),
)
def test_round_trip(tmp_path, sequences, labels, titles):
    log = Interactions.from_sequences(sequences, n_items=6, item_ids=np.array(labels, dtype=object))
    dataset = Dataset.from_interactions(log, item_titles=titles)
    path = write_recbole(dataset, tmp_path, name="any thing/at all")
    assert path.parent.name == "any-thing-at-all"
    if not any(titles[i] for s in sequences for i in s):
        assert read_recbole(path).item_titles is None
    else:
        assert by_label(read_recbole(path)) == by_label(dataset)


def test_labels_that_the_format_cannot_hold_are_refused(tmp_path):
    for label in ("a\tb", "", " a", "a\nb", "\r"):
        log = Interactions.from_sequences([[0, 1]], item_ids=np.array([label, "x"], dtype=object))
        with pytest.raises(ConfigError, match="one item is called"):
            write_recbole(Dataset.from_interactions(log), tmp_path)
    log = Interactions.from_sequences([[0, 1]], item_ids=np.array([1, "1"], dtype=object))
    with pytest.raises(ConfigError, match="two items have the same label"):
        write_recbole(Dataset.from_interactions(log), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match=r"Writing to .* failed: .* name another folder"):
        write_recbole(make_demo().dataset, tmp_path / "file")
