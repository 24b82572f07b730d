"""Files and folders that appear whole or not at all.

Everything is written under a hidden name beside its path, ``.partial-<process id>-<random>-<name>``, and renamed when
it is complete. The hidden name keeps the ending, because NumPy, pandas and safetensors choose the format by it. Nothing
else in the two packages writes a file, except the log of a run, which grows line by line.
"""

from __future__ import annotations

import errno
import glob
import gzip
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from safetensors import SafetensorError

from spectral_probe.errors import ConfigError, ResourceError

_PARTIAL = ".partial-"
#: Hidden names are longer than finished ones, and file systems allow 255 bytes; the ending of a name is kept.
_LONGEST_NAME = 50
_STALE_SECONDS = 24 * 3600
_NEXT_STEP = "Free some space or choose another --out; what is already there stays, and --resume goes on from it."


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Yield a path to write to; the file gets its own name when the block ends without an error.

    A link is followed, and a file that is replaced keeps its permissions. A pipe or a device is written directly.

    Parameters
    ----------
    path : path
        The name of the finished file. Its folder is made if it is missing; a file of this name is replaced.

    Yields
    ------
    Path
        A hidden path in the same folder with the same ending.

    Raises
    ------
    OSError
        If the file cannot be written; PermissionError if a file of this name is write-protected.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_file() and not path.is_dir():
        yield path
        return
    if path.is_file() and not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    try:
        yield partial
        if path.is_file():
            shutil.copymode(path, partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: str | Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield a folder to write into; it gets its own name when the block ends without an error.

    Parameters
    ----------
    path : path
        The name of the finished folder.
    replace : bool
        True: a folder of this name is moved aside and deleted. False: it stays, and the new content is deleted; another
        process was faster.

    Raises
    ------
    OSError
        If the folder cannot be written; FileExistsError if a file has its name.
    """
    path = Path(os.path.realpath(path))
    if path.exists() and not path.is_dir():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    with scratch_folder(path) as partial:
        yield partial
        if replace and path.exists():
            with scratch_folder(path) as aside:
                before = aside / path.name
                os.rename(path, before)
                try:
                    os.rename(partial, path)
                except OSError:
                    os.rename(before, path)
                    raise
        elif not path.exists():
            try:
                os.rename(partial, path)
            except OSError:
                if not path.is_dir():
                    raise


@contextmanager
def scratch_folder(path: str | Path) -> Iterator[Path]:
    """Yield an empty hidden folder beside ``path``; it is deleted when the block ends, with what is still in it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = _partial(path)
    partial.mkdir()
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def move_file(source: Path, target: Path) -> None:
    """Rename a finished file on the same disk, in one step."""
    os.replace(source, target)


def remove_partials(folder: str | Path) -> None:
    """Delete the half-written files and folders that a killed process left in a folder."""
    for partial in Path(folder).glob(f"{_PARTIAL}*"):
        _delete(partial)


def write_text(path: str | Path, text: str) -> None:
    """Write a text and a final newline, in UTF-8 with Unix line ends on every system."""
    with whole_file(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8", newline="\n")


def write_npz(path: str | Path, arrays: Mapping[str, npt.ArrayLike], *, is_compressed: bool = False) -> None:
    """Write arrays to one ``.npz`` file. Every member has the same date, so equal arrays give equal bytes."""
    save: Any = np.savez_compressed if is_compressed else np.savez
    with whole_file(path) as partial, partial.open("wb") as file:
        save(file, allow_pickle=False, **arrays)


def write_csv(path: str | Path, table: pd.DataFrame, *, float_format: str | None = None) -> None:
    """Write a table without its index, compressed where the name ends with ``.gz``.

    An archive stores no time of writing, so equal tables give equal bytes.
    """
    path = Path(path)
    with whole_file(path) as partial:
        if path.suffix != ".gz":
            table.to_csv(partial, index=False, float_format=float_format)
            return
        # An archive stores the name of its content: use the final name, not the hidden one with the process id.
        with partial.open("wb") as file, gzip.GzipFile(path.name, "wb", fileobj=file, mtime=0) as archive:
            table.to_csv(archive, index=False, float_format=float_format)


@contextmanager
def disk_errors(path: str | Path, *, what: str = "Writing", next_step: str = _NEXT_STEP) -> Iterator[None]:
    """Turn a full or read-only disk into an error that says what to do.

    Parameters
    ----------
    path : path
        Where the block writes.
    what : str
        Beginning of the message.
    next_step : str
        Its end.

    Raises
    ------
    ResourceError
        Instead of an OSError; a ResourceError passes as it is.
    ConfigError
        If a name is too long for the file system.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, ResourceError):
            raise
        if error.errno == errno.ENAMETOOLONG:
            raise ConfigError(f"{what} to {path} failed: the name is too long. Choose a shorter one.") from error
        raise ResourceError(f"{what} to {path} failed: {error.strerror or error}. {next_step}") from error
    except SafetensorError as error:  # no OSError, although the disk is the cause
        if "I/O error" not in str(error):
            raise
        raise ResourceError(f"{what} to {path} failed: {error}. {next_step}") from error


def try_to_write(folder: str | Path, *, next_step: str = _NEXT_STEP) -> None:
    """Write and delete a small file where a folder is or will be; nothing stays.

    Raises
    ------
    ResourceError
        If nothing can be written there: before hours of work, not after.
    """
    folder = Path(os.path.realpath(folder))
    with disk_errors(folder, next_step=next_step):
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        if not existing.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(existing))
        with scratch_folder(existing / "trial") as trial:
            (trial / "bytes").write_bytes(bytes(4096))


def _partial(path: Path) -> Path:
    """Return a hidden path beside a path, after deleting what killed processes left of this name a day ago."""
    name = path.name[-_LONGEST_NAME:]
    for stale in path.parent.glob(f"{_PARTIAL}*-{glob.escape(name)}"):
        with suppress(OSError):
            if time.time() - stale.lstat().st_mtime > _STALE_SECONDS:
                _delete(stale)
    # The random part tells threads apart, and processes of two containers that share a folder.
    return path.with_name(f"{_PARTIAL}{os.getpid()}-{secrets.token_hex(4)}-{name}")


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
