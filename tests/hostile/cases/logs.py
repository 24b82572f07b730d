"""Interaction logs as people have them, and as bad days leave them: the same counts, or an error of the data."""

from __future__ import annotations

import bz2
import gzip
import io
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from tests.hostile.cases.damage import ANY
from tests.hostile.harness import Call, Outcome
from tests.hostile.world import World

Writer = Callable[[pd.DataFrame, Path], Path]
RENAMED = (
    ("userId", "movieId", "timestamp"),
    ("customer_id", "product_id", "timestamp"),
    ("uid", "iid", "ts"),
    ("user", "item", "time"),
    ("user_id", "parent_asin", "timestamp"),
)


def _text(log: pd.DataFrame, separator: str = ",") -> str:
    rows = [separator.join(log.columns), *(separator.join(map(str, row)) for row in log.itertuples(index=False))]
    return "\n".join(rows) + "\n"


def _counts(world: World) -> Callable[[Outcome], str]:
    wanted = ["60", "40", f"{len(world.log)}"]

    def check(outcome: Outcome) -> str:
        lines = [line.split() for line in outcome.out.splitlines() if line.startswith("as read")]
        got = lines[0][2:5] if lines else []
        return "" if [text.replace(",", "") for text in got] == wanted else f"counts {got} instead of {wanted}"

    return check


def _equal(write: Writer, world: World, folder: Path, rng: np.random.Generator) -> Call:
    """Return a call that must read the log of the world from a file in another form."""
    path = write(world.log.copy(), folder)
    return Call(["frellm4rec", "data", str(path)], (0,), check=_counts(world))


def _renamed(names: tuple[str, str, str], log: pd.DataFrame, folder: Path) -> Path:
    path = folder / "log.csv"
    log.set_axis(list(names), axis=1).to_csv(path, index=False)
    return path


def _separated(separator: str, suffix: str, log: pd.DataFrame, folder: Path) -> Path:
    path = folder / f"log{suffix}"
    path.write_text(_text(log, separator))
    return path


def _compressed(name: str, compress: Callable[[bytes], bytes], log: pd.DataFrame, folder: Path) -> Path:
    path = folder / name
    path.write_bytes(compress(_text(log).encode()))
    return path


def _zipped(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("log.csv", content)
    return buffer.getvalue()


def _written(name: str, change: Callable[[str], bytes], log: pd.DataFrame, folder: Path) -> Path:
    path = folder / name
    path.write_bytes(change(_text(log)))
    return path


def _parquet(log: pd.DataFrame, folder: Path) -> Path:
    path = folder / "log.parquet"
    log.to_parquet(path)
    return path


def _spaced(log: pd.DataFrame, folder: Path) -> Path:
    log["item_id"] = [f"{name} " if row % 3 else name for row, name in enumerate(log["item_id"])]
    return _separated(",", ".csv", log, folder)


def _json_lines(log: pd.DataFrame, folder: Path) -> Path:
    path = folder / "reviews.jsonl"
    log.set_axis(["user_id", "parent_asin", "timestamp"], axis=1).to_json(path, orient="records", lines=True)
    return path


def _recbole(log: pd.DataFrame, folder: Path) -> Path:
    path = folder / "log.inter"
    head = "user_id:token\titem_id:token\ttimestamp:float"
    path.write_text("\n".join([head, *("\t".join(map(str, row)) for row in log.itertuples(index=False))]) + "\n")
    return path


EQUAL: dict[str, Writer] = {
    **{f"columns {', '.join(names)}": partial(_renamed, names) for names in RENAMED},
    "tabs": partial(_separated, "\t", ".tsv"),
    "tabs in .csv": partial(_separated, "\t", ".csv"),
    "semicolons": partial(_separated, ";", ".csv"),
    "double colons": partial(_separated, "::", ".dat"),
    "bars": partial(_separated, "|", ".csv"),
    "gz": partial(_compressed, "log.csv.gz", gzip.compress),
    "GZ in capitals": partial(_compressed, "LOG.CSV.GZ", gzip.compress),
    "bz2": partial(_compressed, "log.csv.bz2", bz2.compress),
    "zip": partial(_compressed, "log.csv.zip", _zipped),
    "a byte order mark": partial(_written, "log.csv", lambda text: ("\ufeff" + text).encode()),
    "Windows lines": partial(_written, "log.csv", lambda text: text.replace("\n", "\r\n").encode()),
    "empty lines at the end": partial(_written, "log.csv", lambda text: (text + "\n\n").encode()),
    "no last line break": partial(_written, "log.csv", lambda text: text.rstrip("\n").encode()),
    "parquet": _parquet,
    "json lines": _json_lines,
    "RecBole": _recbole,
    "spaces after labels": _spaced,
    "columns in another order": lambda log, folder: _separated(",", ".csv", log[log.columns[::-1]], folder),
    "a further column": lambda log, folder: _separated(",", ".csv", log.assign(rating=3), folder),
}


def _faulty(
    change: Callable[[pd.DataFrame, Path], object], world: World, folder: Path, rng: np.random.Generator
) -> Call:
    path = folder / "log.csv"
    change(world.log.astype(object), path)
    return Call(["frellm4rec", "data", str(path)], (2, 3))


def _with_cell(column: str, value: object) -> Callable[[pd.DataFrame, Path], object]:
    def change(log: pd.DataFrame, path: Path) -> None:
        log.loc[7, column] = value
        path.write_text(_text(log))

    return change


FAULTY: dict[str, Callable[[pd.DataFrame, Path], object]] = {
    "header only": lambda log, path: path.write_text("user_id,item_id,timestamp\n"),
    "a text as time": _with_cell("timestamp", "yesterday"),
    "no time in one line": _with_cell("timestamp", ""),
    "an infinite time": _with_cell("timestamp", "inf"),
    "a time that overflows": _with_cell("timestamp", "1e400"),
    "no item in one line": _with_cell("item_id", ""),
    "NaN as item": _with_cell("item_id", "NaN"),
    r"\N as item": _with_cell("item_id", r"\N"),
    "NULL as user": _with_cell("user_id", "NULL"),
    "no item column": lambda log, path: log.drop(columns="item_id").to_csv(path, index=False),
    "the user column twice": lambda log, path: path.write_text(_text(log).replace("item_id", "user_id", 1)),
    "Latin-1 in an item": lambda log, path: path.write_bytes(_text(log).replace("i12", "caf\xe9", 1).encode("latin-1")),
    "an open quote": lambda log, path: path.write_text(_text(log).replace("u3,", '"u3,', 1)),
    "too few cells in a line": lambda log, path: path.write_text(_text(log).replace(",1000", "", 1)),
    "too many cells in a line": lambda log, path: path.write_text(_text(log).replace("u3,", "u3,x,", 1)),
    "100,000 columns": lambda log, path: path.write_text(",".join(f"c{n}" for n in range(100_000)) + "\n1\n"),
    "UTF-16": lambda log, path: path.write_bytes(_text(log).encode("utf-16")),
    "one word": lambda log, path: path.write_text("hello"),
    "a page": lambda log, path: path.write_text("<!DOCTYPE html><html><body>404</body></html>"),
    "a device": lambda log, path: path.symlink_to("/dev/zero"),
    "a bomb": lambda log, path: path.symlink_to(_bomb(path.with_suffix(".csv.gz")).name),
}


def _bomb(path: Path) -> Path:
    with gzip.open(path, "wb") as stream:
        for _ in range(3):
            stream.write(b"0" * 1_000_000)
    return path


def _damaged(name: str, suffix: str, world: World, folder: Path, rng: np.random.Generator) -> Call:
    path = EQUAL[{".csv": "a further column", ".csv.gz": "gz", ".parquet": "parquet"}[suffix]](world.log.copy(), folder)
    ANY[name](path, rng)
    # A CSV that was cut between two lines is a smaller log.
    return Call(["frellm4rec", "data", str(path)], (0, 2, 3) if (name, suffix) == ("cut", ".csv") else (2, 3))


CASES = {
    **{f"equal: {name}": partial(_equal, write) for name, write in EQUAL.items()},
    **{f"faulty: {name}": partial(_faulty, change) for name, change in FAULTY.items()},
    **{
        f"damaged{suffix}: {name}": partial(_damaged, name, suffix)
        for suffix in (".csv", ".csv.gz", ".parquet")
        for name in ANY
    },
}
