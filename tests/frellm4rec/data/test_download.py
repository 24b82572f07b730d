import gzip
import hashlib
import json
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO

import pytest

from frellm4rec.data import datasets, download, load_movielens
from frellm4rec.data.download import RemoteFile, fetch
from spectral_probe.errors import DataError

CONTENT = gzip.compress(b"the file\n" * 1000, mtime=0)


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A mirror on this machine; ``served`` holds path → body, and special bodies for what can go wrong."""
    served, asked = {}, []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            body = served.get(self.path)
            if body is None:
                self.send_error(404)
                return
            self.send_response(200)
            is_cut = self.path.startswith("/cut")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if is_cut else body)

        def log_message(self, *_):
            pass

    monkeypatch.setenv("SPECTRAL_PROBE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FRELLM4REC_DATA", raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        httpd.served, httpd.asked = served, asked
        httpd.address = f"http://127.0.0.1:{httpd.server_port}"
        yield httpd
        httpd.shutdown()


def remote(server, *paths, **more):
    return RemoteFile("f.gz", tuple(server.address + path for path in paths), b"\x1f\x8b", **more)


def test_fetches_once_and_records_the_checksum(server, tmp_path):
    server.served["/f.gz"] = CONTENT
    path = fetch(remote(server, "/f.gz"), "some")
    assert path == tmp_path / "cache" / "data" / "some" / "f.gz"
    assert path.read_bytes() == CONTENT
    assert fetch(remote(server, "/f.gz"), "some") == path
    assert server.asked == ["/f.gz"]
    record = json.loads((path.parent / "f.gz.sha256.json").read_text())
    assert record == {
        "sha256": hashlib.sha256(CONTENT).hexdigest(),
        "bytes": len(CONTENT),
        "address": f"{server.address}/f.gz",
    }
    assert sorted(p.name for p in path.parent.iterdir()) == ["f.gz", "f.gz.sha256.json"]


def test_the_next_mirror_is_tried(server):
    server.served["/good/f.gz"] = CONTENT
    server.served["/login/f.gz"] = b"<html>Please log in</html>"
    server.served["/cut/f.gz"] = CONTENT
    file = remote(server, "/absent/f.gz", "/login/f.gz", "/cut/f.gz", "/good/f.gz")
    assert fetch(file, "some").read_bytes() == CONTENT
    assert server.asked == [f"/{name}/f.gz" for name in ("absent", "login", "cut", "good")]


def test_a_part_is_never_taken_for_the_whole(server, tmp_path):
    server.served["/cut/f.gz"] = CONTENT
    for _ in range(2):
        with pytest.raises(DataError, match=r"f\.gz could not be downloaded from any of its 1 mirrors: .*/cut/f\.gz"):
            fetch(remote(server, "/cut/f.gz"), "some")
        assert list((tmp_path / "cache" / "data" / "some").iterdir()) == []


def test_an_interrupted_download_leaves_nothing_that_counts(server, tmp_path, monkeypatch):
    server.served["/f.gz"] = CONTENT

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(download, "_keep", interrupt)
        with pytest.raises(KeyboardInterrupt):
            fetch(remote(server, "/f.gz"), "some")
    assert list((tmp_path / "cache" / "data" / "some").iterdir()) == []
    assert fetch(remote(server, "/f.gz"), "some").read_bytes() == CONTENT


def test_every_mirror_is_named_with_its_reason(server):
    server.served["/login/f.gz"] = b"<html>Please log in</html>"
    file = RemoteFile(
        "f.gz", ("http://127.0.0.1:9/f.gz", f"{server.address}/none.gz", f"{server.address}/login/f.gz"), b"\x1f\x8b"
    )
    with pytest.raises(DataError) as caught:
        fetch(file, "some")
    message = str(caught.value)
    for part in ("127.0.0.1:9/f.gz (ConnectionRefusedError", "none.gz (HTTPError: 404", "b'<html>Please", "--from-dir"):
        assert part in message
    assert caught.value.exit_code == 3


def test_known_checksums_are_checked(server):
    server.served["/f.gz"] = CONTENT
    with pytest.raises(DataError, match="could not be downloaded"):
        fetch(remote(server, "/f.gz", sha256="0" * 64), "some")
    known = remote(server, "/f.gz", sha256=hashlib.sha256(CONTENT).hexdigest())
    path = fetch(known, "some")
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(DataError, match="Delete it to fetch it again"):
        fetch(known, "some")


def test_recorded_checksums_are_checked(server):
    server.served["/f.gz"] = CONTENT
    file = remote(server, "/f.gz")
    path = fetch(file, "some")
    path.write_bytes(CONTENT + b"x")
    with pytest.raises(DataError, match=f"must have the SHA-256 {hashlib.sha256(CONTENT).hexdigest()}"):
        fetch(file, "some")
    record = path.parent / "f.gz.sha256.json"
    record.write_text("{}")
    with pytest.raises(DataError, match="Delete both files"):
        fetch(file, "some")
    # A file that someone put there has no record, and is taken as it is.
    record.unlink()
    assert fetch(file, "some") == path


def test_a_cache_that_cannot_be_written_costs_another_download(server, tmp_path, caplog):
    (tmp_path / "cache").write_text("a file where a folder should be")
    server.served["/f.gz"] = CONTENT
    path = fetch(remote(server, "/f.gz"), "some")
    assert path.read_bytes() == CONTENT
    assert tmp_path not in path.parents
    assert "SPECTRAL_PROBE_CACHE" in caplog.text


def test_lastfm_without_a_folder_downloads(server, monkeypatch):
    rows = "".join(f"{u}\t{a}\t1\t{u + a}\n" for u in range(6) for a in range(6))
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("user_taggedartists-timestamps.dat", "userID\tartistID\ttagID\ttimestamp\n" + rows)
    server.served["/lastfm.zip"] = archive.getvalue()
    monkeypatch.setattr(
        datasets, "HETREC_LASTFM", RemoteFile("lastfm.zip", (f"{server.address}/lastfm.zip",), download.ZIP_MAGIC)
    )
    for _ in range(2):
        assert datasets.lastfm().n_users == 6
    assert server.asked == ["/lastfm.zip"]


def test_movielens_without_a_folder_downloads(server, monkeypatch):
    rows = "".join(f"{u}::{m}::3::{u + m}\n" for u in range(6) for m in range(6))
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("ml-1m/ratings.dat", rows)
    server.served["/ml-1m.zip"] = archive.getvalue()
    checksum = hashlib.sha256(archive.getvalue()).hexdigest()
    remote_file = RemoteFile("ml-1m.zip", (f"{server.address}/ml-1m.zip",), download.ZIP_MAGIC, checksum)
    monkeypatch.setitem(datasets.MOVIELENS, "1m", remote_file)
    for _ in range(2):
        with pytest.raises(DataError, match=r"must have the 1,000,209 ratings .*; it has 36\."):
            datasets.movielens("1m")
    assert server.asked == ["/ml-1m.zip"]
    assert load_movielens(datasets.movielens_source("1m"), "1m", is_whole=False).n_users == 6


def test_amazon_without_a_folder_downloads_what_the_filter_needs(server, monkeypatch):
    rows = "".join(
        json.dumps({"reviewerID": f"u{u}", "asin": f"i{i}", "unixReviewTime": u + i}) + "\n"
        for u in range(6)
        for i in range(6)
    )
    titles = "".join(json.dumps({"asin": f"i{i}", "title": f"Card {i}"}) + "\n" for i in range(6))
    for path in ("categoryFilesSmall/Gift_Cards_5", "categoryFiles/Gift_Cards"):
        server.served[f"/{path}.json.gz"] = gzip.compress(rows.encode())
    server.served["/metaFiles2/meta_Gift_Cards.json.gz"] = gzip.compress(titles.encode())
    monkeypatch.setattr(download, "AMAZON_MIRRORS", ("http://127.0.0.1:9", server.address))
    dataset = datasets.amazon("Gift_Cards")
    assert dataset.item_titles == [f"Card {i}" for i in range(6)]
    assert server.asked == ["/categoryFilesSmall/Gift_Cards_5.json.gz", "/metaFiles2/meta_Gift_Cards.json.gz"]
    assert datasets.amazon("Gift_Cards,core=single").report.stages[0][0] == "all reviews"
    assert server.asked[2:] == ["/categoryFiles/Gift_Cards.json.gz"]


def test_addresses_of_the_published_files():
    reviews = download.amazon_reviews("Gift_Cards", is_owners_core=True)
    assert reviews.mirrors[0].endswith("/amazon_v2/categoryFilesSmall/Gift_Cards_5.json.gz")
    assert download.amazon_metadata("Gift_Cards").mirrors[0].endswith("/amazon_v2/metaFiles2/meta_Gift_Cards.json.gz")
    assert download.HETREC_LASTFM.mirrors[0].endswith("/hetrec2011/hetrec2011-lastfm-2k.zip")
    for release, file in download.MOVIELENS.items():
        assert file.mirrors == (f"https://files.grouplens.org/datasets/movielens/ml-{release}.zip",)
        assert len(bytes.fromhex(file.sha256)) == 32
