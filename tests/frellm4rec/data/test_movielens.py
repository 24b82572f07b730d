import gzip
import re
import zipfile

import numpy as np
import pytest

from frellm4rec.data import datasets, load_movielens
from frellm4rec.data.counts import Counts
from frellm4rec.data.download import MOVIELENS, RemoteFile
from frellm4rec.data.movielens import RELEASES
from spectral_probe.errors import ConfigError, DataError

#: user, movie, rating, time in the order of the file. Users 7 and 3 share movies 50, 60, 70; user 9 is too short.
RATINGS = [
    (7, 60, 5, 2000),
    (7, 50, 1, 1000),
    (7, 60, 3, 500),  # a second rating of the same movie, earlier in time: the first row counts
    (7, 70, 2, 2000),  # tie with movie 60: the order of the file decides
    (3, 70, 4, 5),
    (3, 60, 4, 5),
    (3, 50, 1, 5),
    (9, 50, 5, 1),
    (3, 99, 5, 1),  # a movie that only one user has rated
]
TITLES = {50: "Misérables, Les (1995)", 60: "Movie: Part 2 (1996)", 70: "unknown", 99: "Rare (1990)"}


def ratings_text(release="100k", rows=RATINGS, end="\n"):
    separator = RELEASES[release].separator
    return end.join(separator.join(map(str, row)) for row in rows) + end


def titles_text(release="100k", titles=TITLES, end="\n"):
    if release == "1m":
        return end.join(f"{movie}::{title}::Drama|Comedy" for movie, title in titles.items()) + end
    rest = "|01-Jan-1995||http://a/b?c|" + "|".join("0" * 19)
    return end.join(f"{movie}|{title}{rest}" for movie, title in titles.items()) + end


def files_of(release="100k", ratings=None, titles=None, end="\n", encoding="latin-1"):
    return {
        RELEASES[release].ratings: (ratings or ratings_text(release, end=end)).encode("latin-1"),
        RELEASES[release].titles[0]: (titles or titles_text(release, end=end)).encode(encoding),
    }


def write(folder, files, layout="plain"):
    """Write files in one of the layouts they come in; return the folder or zip."""
    if layout == "zip":
        path = folder / "raw.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in files.items():
                archive.writestr(f"ml/{name}", data)
        return path
    for name, data in files.items():
        (folder / (name + (".gz" if layout == "gz" else ""))).write_bytes(
            gzip.compress(data) if layout == "gz" else data
        )
    return folder


def read(source, release="100k", k=2):
    return load_movielens(source, release, k=k, is_whole=False)


@pytest.mark.shared
def test_counts_of_the_real_file(shared_dir):
    folder = shared_dir / "data" / "ml-100k"
    if not (folder / "u.data.gz").is_file():
        pytest.skip("MovieLens is not here")
    dataset = load_movielens(folder, "100k")
    assert dataset.report.stages == (
        ("ratings", Counts(943, 1682, 100_000)),
        ("user-movie pairs", Counts(943, 1682, 100_000)),
        ("iterative 5-core", Counts(943, 1349, 99_287)),
    )
    assert dataset.name == "movielens:100k"
    assert all(dataset.item_titles)
    # Against a plain reading of the file: one user's movies, oldest first, ties in the order of the file.
    lines = gzip.decompress((folder / "u.data.gz").read_bytes()).decode().splitlines()
    rows = [line.split("\t") for line in lines if line.startswith("196\t")]
    kept_items = set(dataset.item_ids.tolist())
    movies = [int(movie) for _, movie, _, _ in sorted(rows, key=lambda row: int(row[3])) if int(movie) in kept_items]
    user = dataset.user_ids.tolist().index(196)
    assert dataset.item_ids[dataset.sequences[user]].tolist() == movies


@pytest.mark.parametrize("layout", ["plain", "gz", "zip"])
@pytest.mark.parametrize("release", RELEASES)
def test_reads_every_layout_of_both_releases(tmp_path, release, layout):
    dataset = read(write(tmp_path, files_of(release), layout), release)
    assert dataset.name == f"movielens:{release}"
    assert dataset.user_ids.tolist() == [3, 7]
    # Every rating counts, also a low one. In a tie the file's order stays; the first row of a pair sets the time.
    assert [dataset.item_ids[s].tolist() for s in dataset.sequences] == [[70, 60, 50], [50, 60, 70]]
    assert dict(zip(dataset.item_ids.tolist(), dataset.item_titles, strict=True)) == {
        movie: title for movie, title in TITLES.items() if movie != 99
    }
    assert [counts for _, counts in dataset.report.stages] == [Counts(3, 4, 9), Counts(3, 4, 8), Counts(2, 3, 6)]
    assert dataset.report.paper is None


def test_line_ends_and_encoding_change_nothing(tmp_path):
    prints = set()
    for number, more in enumerate(({}, {"end": "\r\n"}, {"encoding": "utf-8"}, {"encoding": "utf-8-sig"})):
        folder = tmp_path / str(number)
        folder.mkdir()
        prints.add(read(write(folder, files_of(**more))).fingerprint())
    assert len(prints) == 1


def test_titles_are_optional_and_come_from_the_owner_first(tmp_path):
    files = files_of()
    item = "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n" + "".join(
        f"{movie}\tRecBole {movie}\t1995\tDrama\n" for movie in TITLES
    )
    write(tmp_path, {"u.data": files["u.data"]})
    bare = read(tmp_path)
    assert bare.item_titles is None
    (tmp_path / "ml-100k.item").write_text(item)
    recbole = read(tmp_path)
    assert sorted(recbole.item_titles) == ["RecBole 50", "RecBole 60", "RecBole 70"]
    assert "ml-100k.item" in recbole.report.notes[0]
    write(tmp_path, files)
    owner = read(tmp_path)
    assert "unknown" in owner.item_titles
    assert owner.report.notes == ()
    assert bare.fingerprint() == recbole.fingerprint(titles=False) == owner.fingerprint(titles=False)


def test_both_releases_in_one_folder(tmp_path):
    write(tmp_path, files_of("100k"))
    more = [*RATINGS, (9, 60, 5, 2), (9, 70, 5, 3)]
    write(tmp_path, files_of("1m", ratings=ratings_text("1m", more)))
    # The name decides, nothing else.
    assert read(tmp_path, "100k").n_users == 2
    assert read(tmp_path, "1m").n_users == 3


def test_the_other_release_is_named(tmp_path):
    write(tmp_path, files_of("1m"))
    with pytest.raises(DataError, match=r"needs u\.data .* has ratings\.dat, .* Write movielens:1m"):
        read(tmp_path, "100k")


def test_missing_and_damaged_sources(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read(tmp_path / "absent")
    with pytest.raises(DataError, match=r"needs u\.data .*ml-100k\.zip, from https://grouplens"):
        read(tmp_path)
    (tmp_path / "u.data.gz").write_bytes(gzip.compress(ratings_text().encode())[:-9])
    with pytest.raises(DataError, match="Fetch it again"):
        read(tmp_path)
    (tmp_path / "bad.zip").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(DataError, match="Fetch it again"):
        read(tmp_path / "bad.zip")


@pytest.mark.parametrize(
    ("ratings", "message"),
    [
        ("\n<!DOCTYPE html>\n<html></html>", "is a web page"),
        (ratings_text().replace("7\t50\t1\t1000", "7\tfifty\t1\t1000"), r"line 2 reads '7\\tfifty"),
        (ratings_text().replace("7\t50\t1\t1000", "7\t50\t1"), r"line 2 reads '7\\t50\\t1'"),
        (ratings_text().replace("7\t50\t1\t1000", "7\t50\t6\t1000"), r"rating \(1 to 5\).* line 2 reads"),
        (ratings_text().replace("7\t50\t1\t1000", f"7\t50\t1\t{2**63}"), "line 2 reads"),
        (ratings_text("1m"), r"separated by '\\t', on every line; line 1 reads '7::60"),
        ("user\titem\trating\ttime\n" + ratings_text(), "line 1 reads 'user"),
        ("\x00".join(ratings_text()), "line 1 reads"),
        ("\n\n", "no ratings"),
    ],
)
def test_names_the_bad_line_of_the_ratings(tmp_path, ratings, message):
    with pytest.raises(DataError, match=message):
        read(write(tmp_path, files_of(ratings=ratings)))


@pytest.mark.parametrize(
    ("release", "titles", "message"),
    [
        ("100k", "<html>not found</html>\n", "line 1 reads '<html>"),
        ("100k", titles_text()[:-30], "line 4 reads '99"),
        ("100k", titles_text("1m"), "line 1 reads '50::"),
        ("1m", titles_text(), r"line 1 reads '50\|Mis"),
        ("1m", "x::Name::Drama\n", "line 1 reads 'x::Name"),
    ],
)
def test_names_the_bad_line_of_the_titles_and_leaves_them_out(tmp_path, release, titles, message, caplog):
    assert read(write(tmp_path, files_of(release, titles=titles)), release).item_titles is None
    assert re.search(message, caplog.text)


def test_titles_in_another_encoding_are_left_out(tmp_path, caplog):
    assert read(write(tmp_path, files_of(encoding="utf-16"))).item_titles is None
    assert re.search(r"u\.item must have the number and the title", caplog.text)


def test_files_that_are_not_whole_are_refused(tmp_path, monkeypatch, caplog):
    write(tmp_path, files_of())
    with pytest.raises(DataError, match=r"u\.data must have the 100,000 ratings .*; it has 9\."):
        load_movielens(tmp_path, "100k", k=2)
    monkeypatch.setitem(RELEASES, "100k", RELEASES["100k"].__class__("100k", "u.data", "\t", 9, ("u.item",)))
    assert load_movielens(tmp_path, "100k", k=2).n_users == 2
    (tmp_path / "u.item").write_text(titles_text(titles={60: "a", 70: "b", 99: "c"}))
    assert load_movielens(tmp_path, "100k", k=2).item_titles is None
    assert re.search(r"u\.item must have a line for every rated movie; it lacks 1 of 4, .*movie 50", caplog.text)


def test_releases_are_named(tmp_path):
    for argument, message in (
        (None, "none was named"),
        ("100K", "Did you mean '100k'"),
        ("20m", "can be read as a table"),
    ):
        with pytest.raises(ConfigError, match=message):
            datasets.movielens(argument, from_dir=tmp_path)


@pytest.fixture
def square(tmp_path, monkeypatch):
    """Write a folder ``ml-100k`` that the 5-core leaves as it is: six users with the same six movies."""
    rows = [(user, movie, 3, user + movie) for user in range(6) for movie in range(6)]
    files = RELEASES["100k"].__class__("100k", "u.data", "\t", len(rows), ("u.item",))
    monkeypatch.setitem(RELEASES, "100k", files)
    folder = tmp_path / "ml-100k"
    folder.mkdir()
    return write(folder, {"u.data": ratings_text(rows=rows).encode()})


def test_plugin_finds_the_folder(square, tmp_path, monkeypatch):
    by_option = datasets.movielens("100k", from_dir=square)
    monkeypatch.setenv("FRELLM4REC_DATA", str(tmp_path))
    assert datasets.movielens("100k").fingerprint() == by_option.fingerprint()
    np.testing.assert_array_equal(by_option.train.lengths(), 4)


def test_plugin_says_where_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTRAL_PROBE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FRELLM4REC_DATA", raising=False)
    monkeypatch.setitem(MOVIELENS, "100k", RemoteFile("ml-100k.zip", ("http://127.0.0.1:9/ml-100k.zip",)))
    with pytest.raises(DataError, match=r"ml-100k\.zip .*127\.0\.0\.1:9/ml-100k\.zip .*--from-dir"):
        datasets.movielens("100k")
