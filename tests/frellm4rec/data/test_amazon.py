import gzip
import json
import re

import pandas as pd
import pytest

from frellm4rec.data import k_core, load_amazon, read_s3rec
from frellm4rec.data.amazon import AmazonOptions, read_titles
from frellm4rec.data.counts import Counts
from frellm4rec.data.datasets import amazon
from frellm4rec.data.parsing.json_lines import JsonLines
from spectral_probe.errors import ConfigError, DataError


def review(user, item, time, **more):
    return {"overall": 5.0, "reviewerID": user, "asin": item, "unixReviewTime": time, "reviewText": "fine", **more}


#: Three users with three items in common; C also has one of their own, A came back to x.
REVIEWS = [
    review("A", "x", 30),
    review("A", "y", 10),
    review("A", "z", 25),
    review("A", "x", 20),
    review("B", "x", 1),
    review("B", "y", 1),
    review("B", "z", 1),
    review("C", "z", 3),
    review("C", "y", 2),
    review("C", "x", 1),
    review("C", "own", 0),
]
PRODUCTS = [
    {"asin": "x", "title": "  "},
    {"asin": "x", "title": "An &amp; Ex"},
    {"asin": "x", "title": "Another"},
    {"asin": "y", "title": ["not", "text"]},
    {"asin": "unseen", "title": "Unseen"},
    {"asin": "own"},
]


@pytest.fixture
def folder(tmp_path):
    """Write the files of Gift_Cards in one of the layouts they come in."""

    def write(reviews=REVIEWS, products=PRODUCTS, packed=True, stem="Gift_Cards_5"):
        for name, rows in ((stem, reviews), ("meta_Gift_Cards", products)):
            if rows is None:
                continue
            text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows).encode()
            path = tmp_path / (f"{name}.json.gz" if packed else f"{name}.json")
            path.write_bytes(gzip.compress(text) if packed else text)
        return tmp_path

    return write


def labels(dataset):
    return {user: dataset.item_ids[s].tolist() for user, s in zip(dataset.user_ids, dataset.sequences, strict=True)}


@pytest.mark.parametrize("packed", [True, False])
def test_reads_reviews_in_time_order(folder, packed):
    dataset = load_amazon("Gift_Cards", folder(packed=packed), AmazonOptions(k=3))
    # Equal times keep the order of the file.
    assert labels(dataset) == {"A": ["y", "x", "z", "x"], "B": ["x", "y", "z"], "C": ["x", "y", "z"]}
    assert dataset.name == "amazon:Gift_Cards,k=3"
    assert dict(zip(dataset.item_ids, dataset.item_titles, strict=True)) == {"x": "An & Ex", "y": "", "z": ""}


def test_filters(folder):
    assert labels(load_amazon("Gift_Cards", folder(), AmazonOptions(k=3, repeats="first")))["A"] == ["y", "x", "z"]
    assert labels(load_amazon("Gift_Cards", folder(), AmazonOptions(core="none")))["C"] == ["own", "x", "y", "z"]
    # One pass: x has 4 raw reviews, y and z 3; A and C have 4, B 3. What is left of C is below 4, and stays.
    single = load_amazon("Gift_Cards", folder(), AmazonOptions(k=4, core="single"))
    assert labels(single) == {"A": ["x", "x"], "C": ["x"]}
    with pytest.raises(DataError, match="4-core"):
        load_amazon("Gift_Cards", folder(), AmazonOptions(k=4))


def test_report_and_notes(folder):
    report = load_amazon("Gift_Cards", folder(), AmazonOptions(k=3, repeats="first")).report
    assert report.stages == (
        ("owner's 5-core file", Counts(3, 4, 11)),
        ("repeats removed", Counts(3, 4, 10)),
        ("iterative 3-core", Counts(3, 3, 9)),
    )
    assert report.n_titles == 1
    assert any("holds only the owner's 5-core" in note for note in report.notes)
    with_repeats = load_amazon("Gift_Cards", folder(stem="Gift_Cards"), AmazonOptions(k=3)).report
    assert with_repeats.stages[0][0] == "all reviews"
    assert with_repeats.notes == (
        "9% of the reviews repeat an earlier review of the same item by the same user; repeats=first drops them.",
    )


def test_the_name_asks_for_the_same_data(folder):
    dataset = load_amazon("Luxury_Beauty", _luxury(folder()), AmazonOptions(k=3, repeats="first"))
    assert dataset.name == "amazon:Luxury_Beauty,k=3,repeats=first"
    assert dataset.report.paper == Counts(11490, 6534, 71898)
    again = amazon(dataset.name.removeprefix("amazon:"), from_dir=folder())
    assert again.fingerprint() == dataset.fingerprint()


def _luxury(folder):
    (folder / "Gift_Cards_5.json.gz").rename(folder / "Luxury_Beauty.json.gz")
    return folder


def test_titles_are_optional(folder):
    assert load_amazon("Gift_Cards", folder(products=None), AmazonOptions(k=3)).item_titles is None


@pytest.mark.parametrize(
    "line",
    [
        '{"reviewerID": "A", "asin":',
        "[1, 2]",
        "'single': 'quotes'",
        '{"reviewerID": "A", "asin": "x"}',
        json.dumps(review("", "x", 1)),
        json.dumps(review("A", 7, 1)),
        json.dumps(review("A", "x", "soon")),
        json.dumps(review("A", "x", True)),
        json.dumps(review("A", "x", 1.5)),
        json.dumps(review("A", "x", float("nan"))),
        json.dumps(review("A", "x", 2**70)),
        json.dumps(review("A", "\ud800", 1)),
        "[" * 100_000,
    ],
)
def test_few_broken_lines_are_counted_and_many_are_an_error(folder, line):
    times = [review(f"u{n % 20}", f"i{n // 20}", n) for n in range(400)]
    dataset = load_amazon("Gift_Cards", folder([*times, line]))
    assert dataset.log.n_events == 400
    assert dataset.report.notes[0] == "1 of 401 lines of Gift_Cards_5.json.gz are broken."
    with pytest.raises(DataError, match=r"may have 1\.0% broken lines; 5 of 405 are \(1\.2%\), first: line 401"):
        load_amazon("Gift_Cards", folder([*times, *[line] * 5]))
    with pytest.raises(DataError, match="5 of 405"):
        load_amazon("Gift_Cards", folder([*times, *[line] * 5]), max_broken_share=0.012)
    assert load_amazon("Gift_Cards", folder([*times, *[line] * 5]), max_broken_share=0.02).n_users == 20


def test_times_as_text_and_blank_lines(folder):
    rows = [review("A", "x", "30"), "", review("A", "y", "4"), "  ", review("A", "z", "200")]
    assert labels(load_amazon("Gift_Cards", folder(rows), AmazonOptions(core="none"))) == {"A": ["y", "x", "z"]}


def test_broken_metadata_leave_the_titles_out(folder, caplog):
    products = [*PRODUCTS, {"title": "No asin"}]
    assert load_amazon("Gift_Cards", folder(products=products), AmazonOptions(k=3)).item_titles is None
    assert re.search(r"titles are left out.*1 of 7 are.*first: line 7 must have an asin", caplog.text)
    path = folder(products=products) / "meta_Gift_Cards.json.gz"
    titles, notes = read_titles(path, {"x"}, "Gift_Cards", max_broken_share=0.5)
    assert titles == {"x": "An & Ex"}
    assert notes == ["1 of 7 lines of meta_Gift_Cards.json.gz are broken."]


def test_damaged_and_missing_files(folder, tmp_path):
    with pytest.raises(DataError, match=r"one of Gift_Cards\.json\.gz, .*--from-dir"):
        load_amazon("Gift_Cards", tmp_path)
    with pytest.raises(DataError, match="is not a folder"):
        load_amazon("Gift_Cards", tmp_path / "none")
    path = folder(REVIEWS * 200) / "Gift_Cards_5.json.gz"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"after line \d+ reading it failed.*Fetch it again"):
        load_amazon("Gift_Cards", tmp_path)
    path.write_bytes(gzip.compress(b"\n"))
    with pytest.raises(DataError, match="is empty"):
        load_amazon("Gift_Cards", tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        list(JsonLines(tmp_path / "absent.json"))


def test_all_reviews_are_preferred(folder):
    folder(REVIEWS[:7])
    dataset = load_amazon("Gift_Cards", folder(stem="Gift_Cards"), AmazonOptions(k=3))
    assert dataset.n_users == 3


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("Gift_Cards", AmazonOptions()),
        ("Gift_Cards,core=single", AmazonOptions(core="single")),
        ("Gift_Cards, repeats=first ,k=3,core=none", AmazonOptions(3, "none", "first")),
    ],
)
def test_argument(argument, expected):
    assert AmazonOptions.parse(argument) == ("Gift_Cards", expected)
    assert AmazonOptions.parse(expected.argument("Gift_Cards")) == ("Gift_Cards", expected)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("gift_cards", "Did you mean 'Gift_Cards'"),
        ("Gift_Cards,core=double", "core must be one of"),
        ("Gift_Cards,repeat=first", "Did you mean 'repeats'"),
        ("Gift_Cards,k=0", "k of at least 1"),
        ("Gift_Cards,k=five", "whole number"),
        ("Gift_Cards,single", "got 'single'"),
        ("Gift_Cards,k=2,k=3", "each once"),
        ("../etc", "no category"),
        (None, "none was named"),
    ],
)
def test_wrong_arguments_are_refused(argument, message):
    with pytest.raises(ConfigError, match=message):
        amazon(argument)


def test_plugin_reads_a_folder(folder, tmp_path, monkeypatch):
    rows = [review(f"u{n % 20}", f"i{n // 20}", n) for n in range(400)]
    by_option = amazon("Gift_Cards", from_dir=folder(rows))
    assert (by_option.n_users, by_option.n_items) == (20, 20)
    category_folder = tmp_path / "data" / "Gift_Cards"
    category_folder.mkdir(parents=True)
    (category_folder / "Gift_Cards_5.json.gz").write_bytes((tmp_path / "Gift_Cards_5.json.gz").read_bytes())
    monkeypatch.setenv("FRELLM4REC_DATA", str(tmp_path / "data"))
    assert amazon("Gift_Cards").log.n_events == 400


@pytest.mark.shared
@pytest.mark.parametrize(
    ("category", "repeats", "expected"),
    [
        ("Gift_Cards", "keep", Counts(456, 147, 2960)),
        ("Gift_Cards", "first", Counts(453, 147, 2941)),
        ("All_Beauty", "keep", Counts(961, 49, 5084)),
        ("All_Beauty", "first", Counts(137, 24, 686)),
    ],
)
def test_published_reviews_give_the_counted_core(shared_dir, category, repeats, expected):
    report = load_amazon(category, shared_dir / "data" / category, AmazonOptions(repeats=repeats)).report
    assert report.filtered == expected
    assert report.raw == {"Gift_Cards": Counts(458, 148, 2972), "All_Beauty": Counts(991, 85, 5269)}[category]
    assert report.n_titles == (147 if category == "Gift_Cards" else None)


@pytest.mark.shared
@pytest.mark.parametrize(
    ("folder", "file", "kept", "first"),
    [
        (
            "Industrial_and_Scientific",
            "derived_Industrial_and_Scientific.txt",
            Counts(342, 180, 2178),
            Counts(275, 149, 1744),
        ),
        ("Luxury_Beauty", "Luxury_Beauty.txt", Counts(3589, 1366, 32732), Counts(2028, 936, 20050)),
        ("All_Beauty", "All_Beauty.txt", Counts(961, 49, 5084), Counts(137, 24, 686)),
    ],
)
def test_published_sequences_give_the_counted_core(shared_dir, folder, file, kept, first):
    dataset = read_s3rec(shared_dir / "data" / folder / file)
    rows = [(user, item) for user, s in enumerate(dataset.sequences) for item in s]
    df = pd.DataFrame(rows, columns=["user_id", "item_id"])
    assert Counts.of_frame(k_core(df)) == kept
    assert Counts.of_frame(k_core(df.drop_duplicates())) == first
