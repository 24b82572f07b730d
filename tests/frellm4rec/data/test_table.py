import gzip
from pathlib import Path

import pandas as pd
import pytest

from frellm4rec.data import read_s3rec, read_table
from frellm4rec.data.datasets import table
from spectral_probe.errors import ConfigError, DataError
from spectral_probe.plugins.datasets import resolve_dataset

CSV = 'user_id,item_id,timestamp,name\nu1,007,3,\nu1,7,1,"Seven, or so"\nu2,007,2,Bond\nu1,8,2,Eight\nu2,8,9,Other\n'


@pytest.fixture
def write(tmp_path):
    def write(name, text, encoding="utf-8"):
        path = tmp_path / name
        data = text.encode(encoding)
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return path

    return write


def labels(dataset):
    return [dataset.item_ids[s].tolist() for s in dataset.sequences]


@pytest.mark.parametrize("name", ["log.csv", "log.csv.gz", "log.tsv"])
def test_reads_text_tables(write, name):
    text = CSV.replace('"Seven, or so"', "Seven") if name.endswith("csv") or name.endswith("gz") else CSV
    if name == "log.tsv":
        text = CSV.replace('"Seven, or so"', "Seven").replace(",", "\t")
    dataset = read_table(write(name, text), title="name")
    assert dataset.name == "log"
    assert labels(dataset) == [["7", "8", "007"], ["007", "8"]]
    assert dict(zip(dataset.item_ids, dataset.item_titles, strict=True)) == {"7": "Seven", "8": "Eight", "007": "Bond"}


def test_quoted_commas_and_byte_order_mark(write):
    dataset = read_table(write("log.csv", CSV, "utf-8-sig"), title="name")
    assert "Seven, or so" in dataset.item_titles


def test_times_as_text_dates_and_large_numbers(write):
    dated = "user_id,item_id,timestamp\nu,a,2020-01-02\nu,b,2019-12-31T23:00:00\nu,c,2020-01-01T05:00:00+02:00\n"
    assert labels(read_table(write("dates.csv", dated))) == [["b", "c", "a"]]
    # One nanosecond apart: floats could not tell them.
    large = "user_id,item_id,timestamp\nu,a,1700000000000000001\nu,b,1700000000000000000\nu,c,5\n"
    assert labels(read_table(write("large.csv", large))) == [["c", "b", "a"]]
    assert labels(read_table(write("decimal.csv", large.replace(",5\n", ",5.5\n"))))[0][0] == "c"


def test_without_times_the_rows_are_in_order(write):
    text = "who,what\nu,b\nu,a\nv,b\n"
    assert labels(read_table(write("log.csv", text), user="who", item="what", time=None)) == [["b", "a"], ["b"]]


def test_titles_from_a_file_of_their_own(write):
    titles = write("titles.csv", "item_id,title\n8,Eight\n9,Nine\n")
    dataset = read_table(write("log.csv", CSV), titles=titles)
    assert dict(zip(dataset.item_ids, dataset.item_titles, strict=True)) == {"7": "", "8": "Eight", "007": ""}


def test_titles_of_other_labels_are_refused(write):
    with pytest.raises(DataError, match="no title for any of the 3 items"):
        read_table(write("log.csv", CSV), titles=write("titles.csv", "item_id,title\nx,Ex\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (CSV.replace("u2,007,2,Bond", "u2,007,2"), "line 4 has 3: 'u2,007,2'"),
        (CSV.replace("u2,007,2,Bond", "u2,,2,Bond"), r"'item_id' of .* must not be empty; it is in line 4"),
        (CSV.replace("u2,007,2,Bond", "u2,007,soon,Bond"), "line 4 has 'soon'"),
        (CSV.replace("item_id", "ittem_id"), "Did you mean 'ittem_id'.*--columns item="),
        (CSV.replace("name", "item_id"), "more than one column 'item_id'"),
        (CSV.splitlines()[0] + "\n", "no rows"),
        ("", "is empty; its first line"),
        ("\n \n", "is empty; its first line"),
        (CSV.replace("u2,007,2,Bond", "u2,007,nan,Bond"), "line 4 has 'nan'"),
        (CSV.replace("u2,007,2,Bond", "u2,007,1e999,Bond"), "line 4 has '1e999'"),
        (CSV + CSV.splitlines()[0] + "\n", "line 7 has 'timestamp'"),
        (CSV + 'u3,"broken\n', "well-formed table; line"),
    ],
)
def test_names_what_is_wrong_with_a_table(write, text, message):
    with pytest.raises(DataError, match=message):
        read_table(write("log.csv", text))


def test_other_encodings_and_endings(write, tmp_path):
    with pytest.raises(DataError, match=r"line 2 has the byte 0xf6"):
        read_table(write("log.csv", "user_id,item_id,timestamp\nBjörk,1,1\n", "latin-1"))
    with pytest.raises(ConfigError, match=r"'log\.xlsx'"):
        read_table(write("log.xlsx", CSV))
    with pytest.raises(DataError, match="does not exist"):
        read_table(tmp_path / "absent.csv")


def test_a_stream_that_ends_early_is_refused(write, tmp_path):
    whole = write("log.csv.gz", CSV * 50).read_bytes()
    for n_bytes in (1, 10, len(whole) // 2, len(whole) - 1):
        (tmp_path / "part.csv.gz").write_bytes(whole[:n_bytes])
        with pytest.raises(DataError, match="Fetch it again"):
            read_table(tmp_path / "part.csv.gz")
    # Packed, whatever the name says.
    (tmp_path / "packed.csv").write_bytes(write("log.csv.gz", CSV).read_bytes())
    assert read_table(tmp_path / "packed.csv").n_users == 2


def test_names_what_is_wrong_with_parquet(tmp_path):
    pytest.importorskip("pyarrow")
    path = tmp_path / "log.parquet"
    good = pd.DataFrame({"user_id": [1, 1, 2], "item_id": [5, 6, 5], "timestamp": [2.0, 1.0, 1.0]})
    for column, values, message in [
        ("timestamp", [2.0, float("nan"), 1.0], "must not be empty; it is in row 2"),
        ("timestamp", [2.0, float("inf"), 1.0], "line 2 has 'inf'"),
        ("timestamp", [True, False, True], "line 1 has 'True'"),
        ("timestamp", ["2020-01-01", "2020-01-02", "soon"], "line 3 has 'soon'"),
        ("item_id", [[1], [2], [3]], r"must hold numbers, text or dates; it holds '\[1\]'"),
    ]:
        good.assign(**{column: values}).to_parquet(path)
        with pytest.raises(DataError, match=message):
            read_table(path)
    good.iloc[:0].to_parquet(path)
    with pytest.raises(DataError, match="no rows"):
        read_table(path)
    good.assign(timestamp=pd.to_datetime(["2020-01-02", "2020-01-01", "2020-01-03"], utc=True)).to_parquet(path)
    assert labels(read_table(path)) == [[6, 5], [5]]
    path.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(DataError, match="must be a Parquet file"):
        read_table(path)


def test_reads_parquet(tmp_path):
    pytest.importorskip("pyarrow")
    df = pd.DataFrame({"user_id": [1, 1, 2], "item_id": [5, 6, 5], "timestamp": [2, 1, 1]})
    df.to_parquet(tmp_path / "log.parquet")
    assert labels(read_table(tmp_path / "log.parquet")) == [[6, 5], [5]]


def test_reads_s3rec(write):
    dataset = read_s3rec(write("beauty.txt", "9 5 2 5\n\n4 2 8 1\n"), titles=write("t.csv", "item_id,title\n2,Two\n"))
    assert dataset.name == "beauty"
    assert dataset.user_ids.tolist() == ["9", "4"]
    assert labels(dataset) == [["5", "2", "5"], ["2", "8", "1"]]
    assert dataset.item_titles == ["", "Two", "", ""]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3\n2\n", "line 2 reads '2'"),
        ("1 2 3\n2 1\n1 4\n", "user '1' of line 3 is already in line 1"),
        ("\n", "is empty; its first line"),
    ],
)
def test_names_what_is_wrong_with_s3rec_text(write, text, message):
    with pytest.raises(DataError, match=message):
        read_s3rec(write("log.txt", text))


def test_plugin_tells_kinds_apart_and_takes_titles_where_they_are(write, tmp_path):
    write("log.csv", CSV.replace("name", "title"))
    assert "Eight" in table("log.csv", from_dir=tmp_path).item_titles
    assert table(str(write("plain.csv", CSV))).item_titles is None
    assert labels(table(str(write("log.txt.gz", "1 2 3 4\n")))) == [["2", "3", "4"]]
    with pytest.raises(ConfigError, match="none was named"):
        table(None)
    with pytest.raises(DataError, match="does not exist"):
        table("absent.csv", from_dir=tmp_path)


def test_a_folder_of_raw_files_is_used_or_refused(write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write("log.csv", CSV)
    (tmp_path / "inside").mkdir()
    inside = path.rename(tmp_path / "inside" / "log.csv")
    assert resolve_dataset("log.csv", Path("inside")).n_items == table(str(inside)).n_items
    for name in (str(inside), f"table:{inside}"):
        with pytest.raises(ConfigError, match="is an absolute path, which does not begin in --from-dir inside"):
            resolve_dataset(name, Path("inside"))
    with pytest.raises(ConfigError, match="demo is built in and reads no files; got --from-dir inside"):
        resolve_dataset("demo", Path("inside"))
    with pytest.raises(ConfigError, match="A data set in memory reads no files; got from_dir='inside'"):
        resolve_dataset(table(str(inside)), Path("inside"))
    with pytest.raises(DataError, match=r"There is no file 'inside/other\.csv'"):
        resolve_dataset("other.csv", Path("inside"))
