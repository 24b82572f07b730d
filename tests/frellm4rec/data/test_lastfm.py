import gzip
import re
import zipfile

import numpy as np
import pytest

from frellm4rec.data import load_lastfm
from frellm4rec.data.counts import Counts
from frellm4rec.data.datasets import lastfm
from frellm4rec.data.download import RemoteFile
from spectral_probe.errors import DataError

#: userID, artistID, timestamp in the order of the file. Users 7 and 3 share artists 50, 60, 70; user 9 is too short.
EVENTS = [
    (7, 60, 2000),
    (7, 50, 1000),
    (7, 60, 500),  # a second tag of the same artist, earlier in time: the first row counts
    (7, 70, 2000),  # tie with artist 60: the order of the file decides
    (3, 70, 5),
    (3, 60, 5),
    (3, 50, 5),
    (9, 50, 1),
    (3, 99, 1),  # an artist that only one user has
]


def events_text(rows=EVENTS, end="\n"):
    lines = ["userID\tartistID\ttagID\ttimestamp", *(f"{u}\t{a}\t{i}\t{t}" for i, (u, a, t) in enumerate(rows))]
    return end.join(lines) + end


ARTISTS = (
    b"id\tname\turl\tpictureURL\n50\tBj\xc3\xb6rk\thttp://a\thttp://b\n60\tSigur R\xf3s\thttp://a\t\n"
    b'61\tUnused "quote\thttp://a\t\n'
)


@pytest.fixture
def hetrec(tmp_path):
    """Write the raw files in one of the layouts they come in."""

    def write(layout="plain", events=None, artists=ARTISTS, end="\n"):
        content = {"user_taggedartists-timestamps.dat": (events or events_text(end=end)).encode("latin-1")}
        if artists is not None:
            content["artists.dat"] = artists
        target = tmp_path / "raw"
        if layout in ("plain", "gz"):
            target.mkdir()
            for name, data in content.items():
                packed = gzip.compress(data) if layout == "gz" else data
                (target / (name + (".gz" if layout == "gz" else ""))).write_bytes(packed)
            return target
        with zipfile.ZipFile(target.with_suffix(".zip"), "w") as archive:
            for name, data in content.items():
                archive.writestr(f"hetrec/{name}", data)
        return target.with_suffix(".zip")

    return write


@pytest.mark.shared
def test_equals_the_published_file_line_for_line(shared_dir):
    folder = shared_dir / "data" / "LastFM"
    if not (folder / "LastFM.txt").is_file():
        pytest.skip("LastFM is not here")
    dataset = load_lastfm(folder)
    assert (dataset.n_users, dataset.n_items, dataset.log.n_events) == (1090, 3646, 52551)
    lines = [" ".join(map(str, [user, *(s + 1)])) for user, s in enumerate(dataset.sequences, start=1)]
    assert lines == (folder / "LastFM.txt").read_text().splitlines()
    names = [line.split("\t") for line in (folder / "derived_item_map.tsv").read_text().splitlines()[1:]]
    assert dataset.item_titles == [name for _, _, name in names]
    assert dataset.item_ids.tolist() == [int(artist) for _, artist, _ in names]


@pytest.mark.parametrize("layout", ["plain", "gz", "zip"])
def test_reads_every_layout(hetrec, layout):
    dataset = load_lastfm(hetrec(layout), k=2)
    assert dataset.user_ids.tolist() == [3, 7]
    # Within a tie the file's order stays; across times it does not; the first row of a pair sets the time.
    assert [dataset.item_ids[s].tolist() for s in dataset.sequences] == [[70, 60, 50], [50, 60, 70]]
    assert dict(zip(dataset.item_ids.tolist(), dataset.item_titles, strict=True)) == {
        50: "Björk",
        60: "Sigur Rós",
        70: "",
    }


def test_windows_line_ends_change_nothing(hetrec, tmp_path):
    first = load_lastfm(hetrec("plain"), k=2)
    second = load_lastfm(hetrec("zip", end="\r\n"), k=2)
    assert first.fingerprint() == second.fingerprint()


def test_titles_are_optional_and_not_part_of_the_log(hetrec):
    with_titles = load_lastfm(hetrec("zip"), k=2)
    without = load_lastfm(hetrec("plain", artists=None), k=2)
    assert without.item_titles is None
    assert with_titles.fingerprint() != without.fingerprint()
    assert with_titles.fingerprint(titles=False) == without.fingerprint(titles=False)


@pytest.mark.parametrize(
    ("events", "message"),
    [
        (events_text().replace("7\t50\t1\t1000", "7\tfifty\t1\t1000"), r"line 3 reads '7\\tfifty"),
        (events_text().replace("7\t50\t1\t1000", "7\t50\t1"), r"line 3 reads '7\\t50\\t1'"),
        (events_text().replace("artistID", "artistId"), "Did you mean 'artistId'"),
        (events_text().replace("7\t50\t1\t1000", f"7\t50\t1\t{2**63}"), "line 3 reads"),
        ("userID\tartistID\ttagID\ttimestamp\n", "no events"),
    ],
)
def test_names_the_bad_line(hetrec, events, message):
    with pytest.raises(DataError, match=message):
        load_lastfm(hetrec(events=events), k=2)


def test_bad_artist_line_is_named_and_leaves_the_titles_out(hetrec, caplog):
    dataset = load_lastfm(hetrec(artists=b"id\tname\turl\tpictureURL\nx\tName\t\t\n"), k=2)
    assert dataset.item_titles is None
    assert "line 2 reads 'x" in caplog.text


def test_missing_and_damaged_sources(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        load_lastfm(tmp_path / "none")
    with pytest.raises(DataError, match=re.escape("user_taggedartists-timestamps.dat")):
        load_lastfm(tmp_path)
    (tmp_path / "user_taggedartists-timestamps.dat.gz").write_bytes(b"not gzip")
    with pytest.raises(DataError, match="Fetch it again"):
        load_lastfm(tmp_path)
    (tmp_path / "bad.zip").write_bytes(b"not a zip")
    with pytest.raises(DataError, match="Fetch it again"):
        load_lastfm(tmp_path / "bad.zip")


def test_too_strict_a_core_is_an_error(hetrec):
    with pytest.raises(DataError, match="50-core"):
        load_lastfm(hetrec(), k=50)


def test_plugin_finds_the_folder(tmp_path, monkeypatch):
    # The plug-in applies the 5-core: six users with the same six artists.
    rows = [(user, artist, user + artist) for user in range(6) for artist in range(6)]
    folder = tmp_path / "lastfm"
    folder.mkdir()
    (folder / "user_taggedartists-timestamps.dat").write_text(events_text(rows))
    by_option = lastfm(None, from_dir=folder)
    monkeypatch.setenv("FRELLM4REC_DATA", str(tmp_path))
    assert lastfm().fingerprint() == lastfm(str(folder)).fingerprint() == by_option.fingerprint()
    np.testing.assert_array_equal(by_option.train.lengths(), 4)


def test_plugin_says_where_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("SPECTRAL_PROBE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(
        "frellm4rec.data.datasets.HETREC_LASTFM", RemoteFile("lastfm.zip", ("http://127.0.0.1:9/lastfm.zip",))
    )
    monkeypatch.delenv("FRELLM4REC_DATA", raising=False)
    with pytest.raises(DataError, match=r"lastfm\.zip .*127\.0\.0\.1:9/lastfm\.zip .*--from-dir"):
        lastfm()
    monkeypatch.setenv("FRELLM4REC_DATA", str(tmp_path))
    with pytest.raises(DataError, match="--from-dir"):
        lastfm()
    with pytest.raises(DataError, match="Name one of them"):
        lastfm("a", from_dir=tmp_path)


def test_report_counts_every_step(hetrec):
    report = load_lastfm(hetrec(), k=2).report
    assert report.stages == (
        ("tag assignments", Counts(3, 4, 9)),
        ("user-artist pairs", Counts(3, 4, 8)),
        ("iterative 2-core", Counts(2, 3, 6)),
    )
    assert report.paper == Counts(1090, 3646, 52551)
    assert report.n_titles == 2


def test_zip_prefers_the_file_nearest_the_root(hetrec, tmp_path):
    path = hetrec("zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("backup/old/user_taggedartists-timestamps.dat", "nonsense")
    assert load_lastfm(path, k=2).n_users == 2
