"""Damaged copies of valid files end in a data set or in an error that a user can act on, in nothing else."""

import gzip
import json
import warnings
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from frellm4rec.data import AmazonOptions, load_amazon, load_lastfm, load_movielens
from frellm4rec.data.datasets import table
from spectral_probe.errors import DataError, SpectralProbeError
from spectral_probe.interactions.dataset import Dataset

N_COPIES = 200
EVENTS = [(user, item, 100 * user + position) for user in range(4) for position, item in enumerate([3, 1, 4, 5, 9, 2])]


def lines(header, separator="\t"):
    rows = [separator.join(map(str, event)) for event in EVENTS]
    return ("\n".join([header, *rows]) + "\n").encode()


def packed(content):
    return gzip.compress(content, mtime=0)


def parquet():
    stream = BytesIO()
    pd.DataFrame(EVENTS, columns=["user_id", "item_id", "timestamp"]).to_parquet(stream)
    return stream.getvalue()


def hetrec_zip():
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("user_taggedartists-timestamps.dat", HETREC)
        archive.writestr("artists.dat", ARTISTS)
    return stream.getvalue()


CSV = b"user_id,item_id,timestamp,title\n" + b"".join(
    f'{u},{i},2020-01-0{u + 1}T00:00:{t % 60:02},"Title, of {i}"\n'.encode() for u, i, t in EVENTS
)
INTER = lines("user_id:token\titem_id:token\ttimestamp:float")
ITEM = b"item_id:token\ttitle:token_seq\n" + b"".join(f"{i}\tTitle of {i}\n".encode() for i in range(10))
S3REC = b"".join(f"{u} 3 1 4 5 9 2\n".encode() for u in range(4))
HETREC = lines("userID\tartistID\ttimestamp")
ARTISTS = b"id\tname\turl\n" + b"".join(f"{i}\tBj\xc3\xb6rk {i}\tu\n".encode("latin-1") for i in range(10))
RATINGS = "".join(f"{u}\t{i}\t3\t{t}\n" for u, i, t in EVENTS).encode()
MOVIES = "".join(f"{i}|Caf\xe9 {i} (1995)|||u|{'|'.join('0' * 19)}\n" for i in range(10)).encode("latin-1")
REVIEWS = b"".join(
    json.dumps({"reviewerID": f"u{u}", "asin": f"i{i}", "unixReviewTime": t}).encode() + b"\n" for u, i, t in EVENTS
)
META = b"".join(json.dumps({"asin": f"i{i}", "title": f"A &amp; B\u00e9 {i}"}).encode() + b"\n" for i in range(10))


def amazon(path):
    # Most copies break one line of a few; without forgiveness they would all end alike.
    return load_amazon("Gift_Cards", path.parent, AmazonOptions(k=2), max_broken_share=0.3)


def movielens(path):
    return load_movielens(path.parent, "100k", k=2, is_whole=False)


#: file that is damaged: its content, the files beside it, how it is read.
FORMATS = {
    "log.csv": (CSV, {}, lambda path: table(str(path))),
    "log.csv.gz": (packed(CSV), {}, lambda path: table(str(path))),
    "log.tsv": (CSV.replace(b",", b"\t"), {}, lambda path: table(str(path))),
    "log.parquet": (parquet, {}, lambda path: table(str(path))),
    "log.txt": (S3REC, {}, lambda path: table(str(path))),
    "log.txt.gz": (packed(S3REC), {}, lambda path: table(str(path))),
    "log.inter": (INTER, {"log.item": ITEM}, lambda path: table(str(path))),
    "log.item": (ITEM, {"log.inter": INTER}, lambda path: table(str(path.with_name("log.inter")))),
    "user_taggedartists-timestamps.dat": (
        HETREC,
        {"artists.dat": ARTISTS},
        lambda path: load_lastfm(path.parent, k=2),
    ),
    "artists.dat.gz": (
        packed(ARTISTS),
        {"user_taggedartists-timestamps.dat": HETREC},
        lambda path: load_lastfm(path.parent, k=2),
    ),
    "lastfm.zip": (hetrec_zip, {}, lambda path: load_lastfm(path, k=2)),
    "u.data": (RATINGS, {"u.item": MOVIES}, movielens),
    "u.item": (MOVIES, {"u.data": RATINGS}, movielens),
    "u.data.gz": (packed(RATINGS), {}, movielens),
    "Gift_Cards_5.json": (REVIEWS, {"meta_Gift_Cards.json": META}, amazon),
    "Gift_Cards_5.json.gz": (packed(REVIEWS), {}, amazon),
    "meta_Gift_Cards.json": (META, {"Gift_Cards_5.json": REVIEWS}, amazon),
}


def mutate(content: bytes, rng: np.random.Generator) -> bytes:
    """Return a copy with one to three kinds of damage."""
    for _ in range(rng.integers(1, 4)):
        data = bytearray(content)
        kind = rng.integers(6)
        if not data:
            break
        position = int(rng.integers(len(data)))
        if kind == 0:
            data[position] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            data[position] = int(rng.choice([0, 0x22, 0x0A, 0x0D, 0x09, 0x2C, 0x2D, 0x85, 0xA0, 0xFF]))
        elif kind == 2:
            data = data[:position]
        elif kind == 3:
            parts = content.split(b"\n")
            parts.pop(int(rng.integers(len(parts))))
            data = bytearray(b"\n".join(parts))
        elif kind == 4:
            separators = [i for i, byte in enumerate(data) if byte in b',\t \n":']
            if separators:
                at = int(rng.choice(separators))
                data = data[:at] + data[at : at + 1] * int(rng.integers(2, 4)) + data[at + 1 :]
        else:
            word = [b"nan", b"inf", b"-1", b"99999999999999999999", b"1e400", b"\\ud800", b"\xef\xbb\xbf", b"{}"]
            data[position:position] = word[int(rng.integers(len(word)))]
        content = bytes(data)
    return content


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_copies(tmp_path: Path, name):
    if name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
    content, beside, read = FORMATS[name]
    content = content() if callable(content) else content
    for other, data in beside.items():
        (tmp_path / other).write_bytes(data)
    path = tmp_path / name
    path.write_bytes(content)
    whole = read(path)
    assert (whole.n_users, whole.n_items, whole.log.n_events) == (4, 6, 24)
    rng = np.random.default_rng(list(name.encode()))
    n_read, refusals = 0, []
    for _ in range(N_COPIES):
        path.write_bytes(mutate(content, rng))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                dataset = read(path)
        except SpectralProbeError as error:
            refusals.append(error)
        else:
            n_read += 1
            assert isinstance(dataset, Dataset)
            dataset.fingerprint()
    sources = (*beside, name, name.removesuffix(".gz"), "-core")
    for error in refusals:
        assert isinstance(error, DataError), error
        assert any(source in str(error) for source in sources), error
    if name in ("log.item", "artists.dat.gz", "u.item", "meta_Gift_Cards.json"):
        assert refusals == []  # titles alone never decide over the log
        return
    # Some copies are refused and some are read.
    assert len(refusals) > 20
    assert n_read > (20 if not name.endswith((".gz", ".zip", ".parquet")) else 0)
