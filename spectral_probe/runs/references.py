"""Which run a text means: a folder, ``@last``, ``@-2``, a name, or the beginning of a folder's name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spectral_probe.errors import ConfigError, DataError, did_you_mean

#: The kinds of runs: two of the instrument, and that of a package that trains models.
ANALYSIS, COMPARISON, TRAINING = "analysis", "comparison", "training"
#: Folder in which runs are made unless another one is named.
ROOT = Path("runs")
#: How many runs an error lists.
N_LISTED = 5
#: Letters of a name, at most.
LONGEST_NAME = 80
_NUMBERED = re.compile(r"@(last|-?[0-9]*)", re.IGNORECASE)
#: A folder of a run begins with its time.
_TIME = re.compile(r"(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z-")


@dataclass(frozen=True)
class RunEntry:
    """A run in a folder of runs.

    Attributes
    ----------
    path : Path
    state : dict
        Its ``run.json``.
    kind : str
    """

    path: Path
    state: dict[str, Any]
    kind: str

    @property
    def name(self) -> str:
        """The name that it was given; empty if it has none."""
        return str(self.state.get("name") or (self.state.get("request") or {}).get("name") or "")

    @property
    def model(self) -> str:
        """The model that was asked for; runs of older versions name it in the request alone."""
        return str((self.state.get("request") or {}).get("model") or self.state.get("model") or "")

    @property
    def dataset(self) -> str:
        """The data set that was asked for."""
        return str((self.state.get("request") or {}).get("dataset") or self.state.get("dataset") or "")

    @property
    def when(self) -> str:
        """When it was begun, in UTC: ``2026-05-01 12:30``."""
        if match := _TIME.match(self.path.name):
            return "{}-{}-{} {}:{}".format(*match.groups())
        return str(self.state.get("created") or "")[:16].replace("T", " ")


def runs_in(root: Path = ROOT, kinds: Sequence[str] = ()) -> list[RunEntry]:
    """Return the runs in a folder, newest first; folders that are no readable runs are left out.

    Parameters
    ----------
    root : Path
    kinds : sequence of str
        Only runs of these kinds; all if empty.
    """
    from spectral_probe.runs.folder import RunFolder  # with NumPy, which a command's help does not need

    entries = []
    for file in root.expanduser().glob("*/run.json"):
        run = RunFolder(file.parent)
        try:
            entry = RunEntry(file.parent, run.state(), run.kind)
        except DataError:
            continue
        if not kinds or entry.kind in kinds:
            entries.append(entry)
    return sorted(entries, key=_age, reverse=True)


def _age(entry: RunEntry) -> tuple[str, int]:
    """Return when a run was begun; of two that were begun in one second, the files tell which was first."""
    digits = "".join(_TIME.match(entry.path.name).groups()) if _TIME.match(entry.path.name) else ""  # type: ignore[union-attr]
    created = digits or "".join(filter(str.isdigit, str(entry.state.get("created"))))[:14]
    try:
        return created, (entry.path / "config.yaml").stat().st_mtime_ns
    except OSError:
        return created, 0


def reference(position: int) -> str:
    """Return what counts to a run in a list of runs, newest first: ``@last``, ``@-2``, …."""
    return "@last" if position == 0 else f"@-{position + 1}"


def is_reference(text: str | Path) -> bool:
    """Return whether a text can mean nothing but a run: ``@last``, ``@-2``, or the beginning of a folder's time."""
    name = Path(text).name
    return bool(_NUMBERED.fullmatch(name) or re.match(r"[0-9]{8}T", name))


def check_name(name: str | None, root: Path | None = None, *, resumed: Path | None = None) -> None:
    """Refuse a name (``--name``) that could not stand for a run.

    Parameters
    ----------
    name : str, optional
    root : Path, optional
        Folder of runs in which no other run may have the name.
    resumed : Path, optional
        The run that may have it.

    Raises
    ------
    ConfigError
    """
    if name is None:
        return
    if why := _why_no_name(name):
        raise ConfigError(f"--name {why}; got {name!r}. Choose another name.")
    for entry in runs_in(root) if root is not None else ():
        if entry.name == name and (resumed is None or entry.path.resolve() != resumed.resolve()):
            raise ConfigError(
                f"The run {entry.path} has the name {name!r} already, and a name stands for one run. Choose another "
                "name, or finish that run with --resume."
            )


def names_of(name: str | None, models: Sequence[str], root: Path | None) -> list[str]:
    """Return the name of the run of each model: ``NAME-MODEL`` where there are several, as a name stands for one run.

    Parameters
    ----------
    name : str or None
        What ``--name`` gives; without it no run has a name.
    models : sequence of str
        As they were asked for; of a path or a repository the last part counts.
    root : Path or None
        As in :func:`check_name`, which checks every name.

    Raises
    ------
    ConfigError
        If a name could not stand for a run, or two models would have the same.
    """
    if not name or len(models) == 1:
        return [name or ""] * len(models)
    ends = [re.sub(r"[^A-Za-z0-9.]+", "-", model.rstrip("/").rpartition("/")[2]).strip("-.") for model in models]
    names = [f"{name}-{end or number}" for number, end in enumerate(ends, start=1)]
    for number, (model, every) in enumerate(zip(models, names, strict=True)):
        check_name(every, root)
        if every in names[:number]:
            raise ConfigError(
                f"--name gives two of the models the name {every!r}, the second is {model!r}, and a name is of one "
                "run. Analyse them one after another, each with a name."
            )
    return names


def _why_no_name(name: str) -> str:
    """Return which rule a name breaks; empty if none."""
    if not name.strip():
        return "must not be empty"
    if len(name) > LONGEST_NAME:
        return f"has at most {LONGEST_NAME} letters, and this one has {len(name)}"
    if not name.isprintable():
        return "must be one line without control characters"
    if "/" in name or name in (".", ".."):
        return "must be no path: no /, and neither . nor .."
    if name[0] in "@-~":
        return "must not begin with @, - or ~"
    if re.match(r"([0-9]{1,8}$|[0-9]{8}T)", name):
        return "must not look like the beginning of a run's folder, which is a date"
    return ""


def resolve_run(text: str | Path, kinds: Sequence[str] = (), *, root: Path = ROOT) -> Path:
    """Return the folder of the run that a text means.

    Parameters
    ----------
    text : str or Path
        A folder; ``@last``, the newest run, ``@-2``, the one before, …; the name of a run (``--name``); or the
        beginning of the name of its folder, alone or behind the path of a folder of runs.
    kinds : sequence of str
        The kinds that are counted and searched; all if empty. A folder is returned whatever its kind.
    root : Path
        Folder in which runs are searched.

    Raises
    ------
    ConfigError
        If several runs are meant.
    DataError
        If there is no such run; the newest ones are listed.
    """
    path = Path(text).expanduser()
    if (path / "run.json").exists():
        return path
    folder, beginning = (root if path.parent == Path() else path.parent), path.name
    every = runs_in(folder)
    entries = [entry for entry in every if not kinds or entry.kind in kinds]
    if not path.exists() and _NUMBERED.fullmatch(beginning):
        return _numbered(beginning, entries, kinds, folder)
    meant, how = _meant(beginning, entries)
    if path.exists() and how != "have the name":  # it may be a folder with a saved model; the command says what it is
        return path
    if len(meant) == 1:
        return meant[0].path
    if meant:
        raise ConfigError(f"{len(meant)} runs in {folder} {how} {str(text)!r}. Name one of them: {_listed(meant)}.")
    _refuse_unreadable(folder / beginning)
    nearest = did_you_mean(beginning, [name for entry in entries for name in (entry.path.name, entry.name)])
    if others := _meant(beginning, every)[0]:
        kind = " or ".join(sorted({f"{_article(entry.kind)} run" for entry in others}))
        nearest = f" {str(text)!r} is {kind} ({_listed(others)}); this command reads {' or '.join(kinds)} runs."
    if not entries and folder != root:
        entries, folder = runs_in(root, kinds), root
    raise DataError(f"There is no run {str(text)!r}.{nearest} {_newest(entries, kinds, folder)}")


def _meant(beginning: str, entries: Sequence[RunEntry]) -> tuple[list[RunEntry], str]:
    """Return the runs with this name, or else those whose folder begins with it, and which of the two it is."""
    named = [entry for entry in entries if beginning and entry.name == beginning]
    if named:
        return named, "have the name"
    return [entry for entry in entries if beginning and entry.path.name.startswith(beginning)], "begin with"


def _refuse_unreadable(path: Path) -> None:
    """Raise DataError for a folder of runs' folder that is there and holds no run that could be read."""
    from spectral_probe.runs.folder import RunFolder

    if path.name and path.is_dir():
        try:
            RunFolder(path).state()
        except DataError as error:
            why = f" {error.__cause__}." if (path / "run.json").exists() else " It has no such file."
            raise DataError(
                f"{path} holds no readable run.json:{why} Restore the file, or name another run; `spectral-probe runs` "
                "lists them."
            ) from error


def _article(kind: str) -> str:
    return f"{'an' if kind[:1] in 'aeiou' else 'a'} {kind}"


def _numbered(text: str, entries: Sequence[RunEntry], kinds: Sequence[str], root: Path) -> Path:
    """Return the run that ``@last`` or ``@-2`` counts to."""
    number = 1 if text == "@last" else int(text[2:] or 0) if text.startswith("@-") else 0
    if number < 1:
        raise ConfigError(f"Runs are counted from @-1, which is @last; got {text}. Write @last for the newest.")
    if number > len(entries):
        raise DataError(f"There is no run {text}. {_newest(entries, kinds, root)}")
    return entries[number - 1].path


def _newest(entries: Sequence[RunEntry], kinds: Sequence[str], root: Path) -> str:
    """Return which runs there are, or how to make one."""
    of_kind = f"{' or '.join(kinds)} " if kinds else ""
    if not entries:
        return f"The folder {root} holds no {of_kind}run. Give the path of one, or make one first."
    beginning = "The only one" if len(entries) == 1 else f"The newest {of_kind}runs"
    return f"{beginning} in {root}: {_listed(entries)}."


def _listed(entries: Sequence[RunEntry]) -> str:
    more = f", and {len(entries) - N_LISTED} more" if len(entries) > N_LISTED else ""
    return ", ".join(entry.path.name for entry in entries[:N_LISTED]) + more
