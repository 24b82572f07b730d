"""The files that people have are read without a question, or with an error that says how to ask."""

from __future__ import annotations

import bz2
import gzip
import json
import os
import zipfile

import pytest

from frellm4rec.data import read_table
from frellm4rec.data.datasets import table
from frellm4rec.data.parsing import text_files
from spectral_probe.errors import ConfigError, DataError
from spectral_probe.interactions.column_names import parse_columns
from spectral_probe.plugins.datasets import resolve_dataset, split_columns, with_columns

ROWS = [("7", "50", 5, 978300760), ("7", "60", 3, 978300700), ("8", "50", 4, 978300800), ("8", "70", 1, 978300900)]
EXPECTED = {"7": ["60", "50"], "8": ["50", "70"]}
IN_FILE_ORDER = {"7": ["50", "60"], "8": ["50", "70"]}


def histories(dataset) -> dict[str, list[str]]:
    return {
        str(user): [str(dataset.item_ids[item]) for item in sequence]
        for user, sequence in zip(dataset.user_ids, dataset.sequences, strict=True)
    }


def titles(dataset) -> dict[str, str]:
    return dict(zip(map(str, dataset.item_ids), dataset.item_titles, strict=True))


def lines(header: str, separator: str = ",", columns=(0, 1, 2, 3)) -> str:
    rows = [separator.join(str(row[column]) for column in columns) for row in ROWS]
    return "\n".join([*([header] if header else []), *rows]) + "\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ratings.csv", lines("userId,movieId,rating,timestamp")),
        ("log.csv", lines("customer_id;product_id;score;ts", ";")),
        ("log.tsv", lines("uid\tiid\tstars\tdatetime", "\t")),
        ("log.csv", lines("UserID::Item Id::x::Time", "::")),
        ("log.csv", lines("reviewerID|asin|overall|unixReviewTime", "|")),
        ("log.csv", lines("user_id\tparent_asin\trating\ttimestamp", "\t")),
        ("log.txt", lines("user,item,rating,time")),
        ("u.data", lines("", "\t")),
        ("ratings.dat", lines("", "::")),
        ("log.csv", lines("")),
        ("log.csv", lines("", ",", (0, 1, 3))),
    ],
)
def test_usual_names_separators_and_no_header(name, text, tmp_path):
    (tmp_path / name).write_text(text)
    assert histories(resolve_dataset(str(tmp_path / name))) == EXPECTED


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pairs.csv", lines("", ",", (0, 1))),
        ("pairs.tsv", lines("", "\t", (0, 1))),
        ("pairs.dat", lines("", "::", (0, 1))),
        ("pairs.txt", lines("", " ", (0, 1))),
        ("pairs.txt", lines("", "\t", (0, 1))),
        ("pairs.csv", lines("user,item", ",", (0, 1))),
        ("rated.csv", lines("user,item,rating", ",", (0, 1, 2))),
    ],
)
def test_without_times_the_order_of_the_file_is_taken_and_noted(name, text, tmp_path, caplog):
    (tmp_path / name).write_text(text)
    dataset = resolve_dataset(str(tmp_path / name))
    assert histories(dataset) == IN_FILE_ORDER
    assert "the order of the file is taken as the order of the events" in caplog.text
    assert any("order of the file" in note for note in dataset.report.notes)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (lines("", ",", (0, 1, 2)), r"--columns user=1,item=2"),
        ("a,b,5\nc,d,6\n", r"--columns user=1,item=2"),
        ("a,b\nc,d\n", r"--columns user=1,item=2"),
        (lines("user_id,movieId,product_id,ts"), "more than one column for the item.*--columns item="),
        (lines("uid,customer_id,item,ts"), "more than one column for the user"),
        (lines("u,v,w,x"), "no column 'user_id'.*--columns user="),
    ],
)
def test_what_is_in_doubt_is_refused_with_the_option_to_use(text, message, tmp_path):
    (tmp_path / "log.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        resolve_dataset(str(tmp_path / "log.csv"))


def test_columns_are_named_in_the_name_of_the_data_set(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(lines("a,b,c,d"))
    assert histories(resolve_dataset(with_columns(str(path), "user=a, item=b,time=d"))) == EXPECTED
    assert histories(resolve_dataset(with_columns(f"table:{path},user=c,item=d", "item=b,user=a"))) == IN_FILE_ORDER
    assert histories(table("log.csv,user=a,item=b,time=d", from_dir=tmp_path)) == EXPECTED
    with pytest.raises(DataError, match=r"no column 'e' .*--columns item="):
        resolve_dataset(with_columns(str(path), "user=a,item=e"))
    path.write_text(lines('"a,x",b,c,d'))
    assert histories(resolve_dataset(with_columns(str(path), '"user=a,x",item=b,time=d'))) == EXPECTED
    path.write_text(lines("", ",", (1, 0, 3)))
    assert histories(resolve_dataset(with_columns(str(path), "user=2,item=1,time=3"))) == EXPECTED
    path.write_text(lines("", ",", (0, 1)).replace("7,50\n", "1,2\n"))
    with pytest.raises(DataError, match="may be a header or data"):
        resolve_dataset(with_columns(str(path), "user=1,item=2"))
    with pytest.raises(DataError, match="no column '3'"):
        resolve_dataset(with_columns(str(path), "user=1,item=3"))
    path.write_text("what,userId\na,u\nb,u\nc,u\n")
    assert histories(resolve_dataset(with_columns(str(path), "user=2,item=1"))) == {"u": ["a", "b", "c"]}
    path.write_text(lines("w,v,t", ",", (1, 0, 3)))
    assert histories(resolve_dataset(with_columns(str(path), "user=2,item=1,time=3"))) == EXPECTED


def test_an_existing_file_with_the_name_of_a_column_in_its_name_is_that_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in (".", "inside"):
        path = tmp_path / folder / "with,user=x.csv"
        path.parent.mkdir(exist_ok=True)
        path.write_text(lines("a,b,c,d"))
        name = with_columns("with,user=x.csv", "user=a,item=b,time=d")
        assert split_columns(name.removeprefix("table:")) == ("with,user=x.csv", "user=a,item=b,time=d")
        assert with_columns(name, "user=a,item=b,time=d") == name
        assert histories(resolve_dataset(name)) == EXPECTED
    (tmp_path / "with,user=x.csv").unlink()
    assert histories(resolve_dataset(name, tmp_path / "inside")) == EXPECTED


def test_a_quote_after_the_equals_sign_is_explained():
    with pytest.raises(ConfigError, match="is quoted together with its role: --columns '\"user=the, user\",item=b'"):
        parse_columns('user="the, user",item=b')
    assert parse_columns('"user=the, user",item=b') == {"user": "the, user", "item": "b"}


def test_columns_that_cannot_be_meant_are_refused():
    for text in ("user", "user=", "users=a", "user=a,user=b", "user=a,item=a", "", "=a"):
        with pytest.raises(ConfigError):
            parse_columns(text)
    for name in ("demo", "lastfm", "movielens:100k", "table"):
        with pytest.raises(ConfigError, match="--columns names the columns of a file"):
            with_columns(name, "user=a")
    assert with_columns("demo", None) == "demo"
    assert split_columns("a,b.csv,time=t") == ("a,b.csv", "time=t")


def test_movielens_files_have_their_titles_beside_them(tmp_path):
    (tmp_path / "ratings.dat").write_text(lines("", "::"))
    (tmp_path / "movies.dat").write_bytes("50::Caf\u00e9 (1995)::Drama\n60::A::B (1996)::X\n".encode("latin-1"))
    expected = {"50": "Caf\u00e9 (1995)", "60": "A::B (1996)", "70": ""}
    assert titles(table(str(tmp_path / "ratings.dat"))) == expected
    (tmp_path / "ratings.csv").write_text(lines("userId,movieId,rating,timestamp"))
    (tmp_path / "movies.csv").write_text('movieId,title,genres\n50,"Piano, The (1993)",Drama\n')
    assert titles(table(str(tmp_path / "ratings.csv")))["50"] == "Piano, The (1993)"
    (tmp_path / "u.data").write_text(lines("", "\t"))
    (tmp_path / "u.item").write_text(f"50|Star Wars (1977)|||u|{'|'.join('0' * 19)}\n")
    assert titles(table(str(tmp_path / "u.data")))["50"] == "Star Wars (1977)"


REVIEWS = [
    {
        "rating": 5.0,
        "title": f"Great {t}",
        "text": "x",
        "asin": f"v{i}",
        "parent_asin": i,
        "user_id": u,
        "timestamp": t * 1000,
    }
    for u, i, _, t in ROWS
]


@pytest.mark.parametrize("packing", ["", ".gz"])
def test_amazon_reviews_of_2023(packing, tmp_path):
    pack = gzip.compress if packing else bytes
    path = tmp_path / f"All_Beauty.jsonl{packing}"
    path.write_bytes(pack("\n".join(map(json.dumps, REVIEWS)).encode()))
    dataset = resolve_dataset(str(path))
    assert (dataset.name, histories(dataset), dataset.item_titles) == ("All_Beauty", EXPECTED, None)
    products = [{"parent_asin": "50", "title": "Soap &amp; Co"}, {"parent_asin": "60", "title": None}]
    (tmp_path / f"meta_All_Beauty.jsonl{packing}").write_bytes(pack("\n".join(map(json.dumps, products)).encode()))
    assert titles(resolve_dataset(str(path))) == {"50": "Soap & Co", "60": "", "70": ""}


def test_the_title_of_a_review_is_not_that_of_its_item(tmp_path):
    header = "user_id,parent_asin,timestamp,title,text"
    rows = [f"{u},{i},{t},Great {t},x" for u, i, _, t in ROWS]
    (tmp_path / "All_Beauty.csv").write_text("\n".join([header, *rows]) + "\n")
    assert resolve_dataset(str(tmp_path / "All_Beauty.csv")).item_titles is None
    rows = [f"u{u},i{i},{u},Title {u} {i}" for u in range(3) for i in range(6)]
    (tmp_path / "log.csv").write_text("\n".join(["user_id,item_id,timestamp,title", *rows]) + "\n")
    dataset = resolve_dataset(str(tmp_path / "log.csv"))
    assert dataset.item_titles is None
    assert any("differs between the rows of one item for 6 of 6" in note for note in dataset.report.notes)
    assert read_table(tmp_path / "log.csv", title="title").item_titles[0] == "Title 0 0"


def test_json_lines_that_lack_a_label_are_counted(tmp_path):
    rows = [
        *({"user": str(u), "item": i, "ts": i} for u in range(40) for i in range(5)),
        {"user": "NaN", "item": 3, "ts": 1},
    ]
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    dataset = resolve_dataset(str(path))
    assert (dataset.n_users, dataset.n_items) == (40, 5)
    assert any("1 of 201 lines" in note for note in dataset.report.notes)
    path.write_text(json.dumps(rows[:5]))
    with pytest.raises(DataError, match="not a JSON object"):
        resolve_dataset(str(path))


def packed(tmp_path, name: str, content: bytes):
    path = tmp_path / name
    if name.lower().endswith(".zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("inside/", b"")
            archive.writestr("inside/log.csv", content)
            archive.writestr("__MACOSX/inside/._log.csv", b"x")
    else:
        path.write_bytes((bz2 if name.lower().endswith(".bz2") else gzip).compress(content))
    return path


PACKINGS = ["log.csv.gz", "log.csv.GZ", "log.csv.bz2", "log.CSV.Bz2", "log.csv.zip", "log.zip", "log.ZIP"]


@pytest.mark.parametrize("name", PACKINGS)
def test_packed_files(name, tmp_path):
    path = packed(tmp_path, name, lines("userId,movieId,rating,timestamp").encode())
    dataset = resolve_dataset(str(path))
    assert (histories(dataset), dataset.name) == (EXPECTED, "log")
    path.write_bytes(path.read_bytes()[:-25])
    with pytest.raises(DataError, match="Fetch it again"):
        resolve_dataset(str(path))


@pytest.mark.parametrize(("name", "inner"), [("log.csv.zip", "gz"), ("log.csv.gz", "gz"), ("log.csv.bz2", "zip")])
def test_a_file_that_is_packed_twice_is_called_so(name, inner, tmp_path):
    content = packed(tmp_path, f"inner.{inner}", lines("userId,movieId,rating,timestamp").encode()).read_bytes()
    with pytest.raises(DataError, match=rf"is packed twice: .* a {'gzip' if inner == 'gz' else 'zip'} file"):
        resolve_dataset(str(packed(tmp_path, name, content)))


def test_a_text_that_begins_like_bzip2_is_text(tmp_path):
    (tmp_path / "log.csv").write_text("BZhang_user,item_id\na,b\n")
    assert text_files.read_text(tmp_path / "log.csv").startswith("BZhang_user")


def test_a_zip_of_several_files_is_refused_with_their_names(tmp_path):
    with zipfile.ZipFile(tmp_path / "log.zip", "w") as archive:
        archive.writestr("a.csv", "x")
        archive.writestr("b.csv", "y")
    with pytest.raises(DataError, match=r"has 2: \['a.csv', 'b.csv'\]"):
        resolve_dataset(str(tmp_path / "log.zip"))


@pytest.mark.parametrize("name", ["log.csv.gz", "log.csv.bz2", "log.zip", "log.jsonl.gz", "log.parquet.gz"])
def test_what_a_file_unpacks_to_is_limited(name, tmp_path, monkeypatch):
    monkeypatch.setattr(text_files, "MAX_UNPACKED", 1 << 20)
    path = packed(tmp_path, name, b"user_id,item_id,timestamp\n" + b" " * (4 << 20))
    with pytest.raises(DataError, match="unpacks to more than"):
        resolve_dataset(str(path))


def test_a_pipe_or_a_device_is_refused_at_once(tmp_path):
    for name in ("log.csv", "log.csv.gz", "log.jsonl", "log.parquet", "log.txt", "log.zip"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(DataError, match="it is a pipe"):
            resolve_dataset(str(tmp_path / name))
        with pytest.raises(DataError, match="it is a pipe"):
            table(name, from_dir=tmp_path)
    (tmp_path / "zero.csv").symlink_to("/dev/zero")
    with pytest.raises(DataError, match="it is a character device"):
        resolve_dataset(str(tmp_path / "zero.csv"))
    with pytest.raises(DataError, match="it is a folder"):
        resolve_dataset(str(tmp_path))
    for name in ("lastfm", "movielens:100k"):
        with pytest.raises(DataError, match="it is a pipe"):
            resolve_dataset(name, tmp_path / "log.zip")


@pytest.mark.parametrize(
    ("text", "columns", "n_events"),
    [
        ("alice,bread\nbob,12\nbob,13\nbob,14\nalice,15\n", "user=1,item=2", 5),
        ("alice,movie,1000000001\nbob,book,1000000002\nbob,dvd,1000000003\n", "user=1,item=2,time=3", 3),
        ("9,movie,1000000001\n8,book,1000000002\n8,dvd,1000000003\n", "user=1,item=2,time=3", 3),
        ("who,what,when\nbob,book,1000000002\nbob,dvd,1000000003\n", "user=1,item=2,time=3", 2),
        ("user,item\nbob,book\nbob,dvd\n", "user=1,item=2", 2),
    ],
)
def test_a_first_line_is_skipped_only_where_it_is_a_header(text, columns, n_events, tmp_path, caplog):
    path = tmp_path / "log.csv"
    path.write_text(text)
    dataset = resolve_dataset(f"table:{path},{columns}")
    assert sum(map(len, dataset.sequences)) == n_events
    assert ("line 1 is a header and is skipped" in caplog.text) == (n_events < text.count("\n"))


def test_a_first_line_that_may_be_a_header_is_refused(tmp_path):
    (tmp_path / "log.csv").write_text("alice,movie\nbob,book\n")
    with pytest.raises(DataError, match="may be a header or data"):
        resolve_dataset(f"table:{tmp_path / 'log.csv'},user=1,item=2")


def json_lines(path, changes):
    """Write 200 events with times against the order of the file; ``changes`` maps a line from 0 to keys left out."""
    rows = [{"user_id": f"u{n % 20}", "item_id": f"i{n % 17}", "timestamp": 1_000_000 - n} for n in range(200)]
    rows = [{k: v for k, v in row.items() if k not in changes.get(n, ())} for n, row in enumerate(rows)]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


@pytest.mark.parametrize("key", ["timestamp", "item_id"])
def test_a_first_event_that_lacks_a_key_is_left_out_like_any_other(key, tmp_path):
    whole = read_table(json_lines(tmp_path / "a.jsonl", {5: [key]}))
    first = read_table(json_lines(tmp_path / "b.jsonl", {0: [key]}))
    assert sum(map(len, first.sequences)) == sum(map(len, whole.sequences)) == 199
    # Times run against the order of the file: were they not read, the histories would be reversed.
    assert first.item_ids[first.sequences[list(first.user_ids).index("u1")][-1]] == "i1"


@pytest.mark.parametrize(
    ("content", "advice"),
    [
        (b'[{"user_id": 1, "item_id": 2}]', "one JSON array.*jq -c"),
        (b'[\n{"user_id": 1, "item_id": 2},\n{"user_id": 1, "item_id": 3}\n]', "one JSON array"),
        (b'{"user_id": [1, 2],\n "item_id": [3, 4]}', "one JSON object"),
        ('{"user_id": 1, "item_id": 2}\n'.encode("utf-16"), "UTF-16"),
    ],
)
def test_other_json_is_named(content, advice, tmp_path):
    (tmp_path / "x.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=advice):
        read_table(tmp_path / "x.jsonl")
