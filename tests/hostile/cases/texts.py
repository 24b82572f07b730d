"""Texts from outside on the terminal, in tables and in files: shown as text, and read back as they were."""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from tests.hostile.harness import Call, Outcome
from tests.hostile.world import World, copy_of

TEXTS = {
    "a colour": "\x1b[31mred\x1b[0m",
    "the title of the window": "\x1b]0;owned\x07",
    "a clear screen": "\x1b[2J\x1b[H",
    "a backspace": "abc\x08\x08\x08xyz",
    "a carriage return": "good\rbad",
    "C1 control": "x\x9b31mred",
    "markup": "[bold]loud[/bold] [/] [link=http://x]",
    "a table cell": "a|b|c",
    "a page": "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "a formula": '=HYPERLINK("http://x","y")',
    "a command": "@SUM(1+1)*cmd|' /C calc'!A0",
    "right to left": "abc\u202egnp.exe",
    "combining marks": "a" + "\u0301" * 200,
    "wide letters": "漢字かな交じり文",
    "a surrogate pair": "😀 smile",
    "quotes": "\"double\" and 'single'",
    "a backslash": "\\n \\x1b[31m",
    "braces": "{{ 7 * 7 }} {0} %s ${HOME}",
    "10,000 letters": "x" * 10_000,
}


def _write(world: World, folder: Path, *, title: str | None = None, item: str | None = None) -> Path:
    rows = world.log.copy()
    ids = rows["item_id"].replace({"i12": item}) if item is not None else rows["item_id"]
    titles = rows["item_id"].map({**world.titles, **({} if title is None else {"i12": title})})
    path = folder / "log.csv"
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow([*rows.columns, "title"])
        writer.writerows(zip(rows["user_id"], ids, rows["timestamp"], titles, strict=True))
    return path


def _title(text: str, world: World, folder: Path, rng: np.random.Generator) -> Call:
    path = _write(world, folder, title=text)
    user = world.log.loc[world.log["item_id"] == "i12", "user_id"].iloc[0]
    arguments = ["frellm4rec", "recommend", str(world.training), "--dataset", str(path), "--user", user, "--k", "39"]
    return Call([*arguments, "--include-seen"], (0, 3))


def _item(text: str, world: World, folder: Path, rng: np.random.Generator) -> Call:
    """Train on a log with such an id, and print the recommendations."""
    path = _write(world, folder, item=text)
    recipe = ["--model", "popularity", "--dataset", str(path), "--out", str(folder / "runs")]
    return Call(["frellm4rec", "train", *recipe], (0, 3))


def _exported(text: str, world: World, folder: Path, rng: np.random.Generator) -> Call:
    """Export a data set with such an id; the file must hold the id as it was, or the data are refused."""
    path = _write(world, folder, item=text)

    def check(outcome: Outcome) -> str:
        (inter,) = (folder / "out").rglob("*.inter")
        items = {line.split("\t")[1] for line in inter.read_text("utf-8").split("\n")[1:] if line}
        # One letter has one spelling: an accent is a part of it.
        return "" if unicodedata.normalize("NFC", text.strip()) in items else "the exported file has another id"

    return Call(["frellm4rec", "data", str(path), "--export", "recbole", str(folder / "out")], (0, 2, 3), check=check)


def _user(text: str, world: World, folder: Path, rng: np.random.Generator) -> Call:
    return Call(["frellm4rec", "recommend", str(world.training), "--user", text], (2, 3))


def _file_name(text: str, world: World, folder: Path, rng: np.random.Generator) -> Call:
    name = text.replace("/", "_")[:60]
    copy_of(world.data, folder).rename(folder / f"{name}.csv")
    return Call(["frellm4rec", "data", str(folder / f"{name}.csv")], (0, 2, 3))


def _no_file(text: str, world: World, folder: Path, rng: np.random.Generator) -> Call:
    return Call(["spectral-probe", "report", str(folder / text.replace("/", "_"))], (2, 3))


def _model_name(text: str, world: World, folder: Path, rng: np.random.Generator) -> Call:
    return Call(["spectral-probe", "analyze", "--model", text, "--dataset", str(world.data), "--dry-run"], (2, 4))


def _cases() -> dict[str, Callable[[World, Path, np.random.Generator], Call]]:
    makers = {
        **{"title": _title, "id in a training": _item, "id in an export": _exported, "user": _user},
        **{"file": _file_name, "missing run": _no_file, "model": _model_name},
    }
    return {f"{what}: {name}": partial(make, text) for what, make in makers.items() for name, text in TEXTS.items()}


CASES = _cases()
