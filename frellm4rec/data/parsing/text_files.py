"""Bytes and text of files, plain or packed; every failure is a DataError that names the file."""

from __future__ import annotations

import bz2
import gzip
import io
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from spectral_probe.errors import DataError
from spectral_probe.storage.regular import check_regular

#: First bytes of packed files.
GZIP_MAGIC, ZIP_MAGIC = b"\x1f\x8b", b"PK\x03\x04"
_BZIP2_MAGIC = re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)")
_ENDINGS = {".gz": "gzip", ".bz2": "bzip2", ".zip": "zip"}
_PACKED = re.compile(r"\.(gz|bz2|zip)$", re.IGNORECASE)
#: A packed file may unpack to this many bytes, or to this many times its size if that is more. Logs reach 30 times.
MAX_UNPACKED, MAX_RATIO = 2**28, 200


class _Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


class _Limited(io.RawIOBase):
    """A stream that refuses to give more than a number of bytes."""

    def __init__(self, stream: _Readable, limit: int, where: str) -> None:
        self._stream, self._left, self._limit, self._where = stream, limit, limit, where

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data = self._stream.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise DataError(
                f"{self._where} unpacks to more than {self._limit:,} bytes, {MAX_RATIO} times its size or more: it is "
                "damaged or made to fill the memory. Unpack it yourself and look at it before you read it."
            )
        buffer[: len(data)] = data
        return len(data)


def limited(stream: _Readable, packed_size: int, where: str) -> BinaryIO:
    """Return a stream of unpacked bytes that ends in a DataError if they are far more than was packed."""
    return io.BufferedReader(_Limited(stream, max(MAX_UNPACKED, MAX_RATIO * packed_size), where))


def gunzip(content: bytes, where: str) -> bytes:
    """Return what gzipped bytes unpack to, within the limit of :func:`limited`."""
    return _unpacked(gzip.GzipFile(fileobj=io.BytesIO(content)), len(content), where).read()


def _unpacked(stream: _Readable, packed_size: int, where: str) -> BinaryIO:
    """Return a limited stream of unpacked bytes; DataError if they are those of another packed file."""
    unpacked = limited(stream, packed_size, where)
    if packing := packing_of(unpacked.peek(10)):  # type: ignore[attr-defined]
        raise DataError(f"{where} is packed twice: what it unpacks to is a {packing} file. Unpack it once.")
    return unpacked


def packing_of(content: bytes) -> str:
    """Return how the file is packed that begins with these bytes: gzip, bzip2 or zip; empty if it is not."""
    if content.startswith(GZIP_MAGIC):
        return "gzip"
    if _BZIP2_MAGIC.match(content):
        return "bzip2"
    return "zip" if content.startswith(ZIP_MAGIC) else ""


def stem(path: Path) -> str:
    """Return the file's name without its endings."""
    return _PACKED.sub("", path.name).rsplit(".", 1)[0]


def ending(path: Path) -> str:
    """Return the file's ending in lower case, without that of its packing; of a ``NAME.zip``, its member's ending."""
    name = _PACKED.sub("", path.name)
    if "." not in name.lstrip(".") and path.suffix.lower() == ".zip" and path.is_file():
        with _errors_of(path), zipfile.ZipFile(path) as archive:
            name = Path(_PACKED.sub("", _member(archive, path).filename)).name
    return Path(name).suffix.lower()


@contextmanager
def open_unpacked(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading, unpacked if it is gzipped, bzip2ed or a zip with one file, whatever its name.

    Raises
    ------
    DataError
        If it is not a regular file, cannot be read, is damaged or ends early, or unpacks to far more than its size.
    """
    check_regular(path)
    with _errors_of(path), path.open("rb") as raw:
        size = path.stat().st_size
        packing = packing_of(raw.read(10)) or _ENDINGS.get(path.suffix.lower(), "")
        raw.seek(0)
        if packing == "gzip":
            with gzip.GzipFile(fileobj=raw) as stream:
                yield _unpacked(stream, size, str(path))
        elif packing == "bzip2":
            with bz2.BZ2File(raw) as packed:
                yield _unpacked(packed, size, str(path))
        elif packing == "zip":
            with zipfile.ZipFile(raw) as archive, archive.open(_member(archive, path)) as member:
                yield _unpacked(member, size, str(path))
        else:
            yield raw


@contextmanager
def _errors_of(path: Path) -> Iterator[None]:
    try:
        yield
    except (DataError, MemoryError):
        raise
    except Exception as error:  # a damaged archive can raise any exception
        raise DataError(f"{path} must be a readable file; reading it failed with: {error}. Fetch it again.") from error


def _member(archive: zipfile.ZipFile, path: Path) -> zipfile.ZipInfo:
    """Return the only file in a zip."""
    members = [info for info in archive.infolist() if not info.is_dir()]
    members = [
        info for info in members if not info.filename.startswith("__MACOSX/") and ".DS_Store" not in info.filename
    ]
    if len(members) != 1:
        names = [info.filename for info in members[:5]]
        raise DataError(
            f"A zip is read if it has one file; {path} has {len(members)}: {names}. Unpack it, and name the file (or "
            "the data set that it belongs to, with --from-dir)."
        )
    return members[0]


def read_bytes(path: Path) -> bytes:
    """Return the content of a file, unpacked; errors are those of :func:`open_unpacked`."""
    with open_unpacked(path) as file:
        return file.read()


def read_text(path: Path, *, errors: str = "strict") -> str:
    """Return the content of a UTF-8 text file, plain or packed, without its byte order mark.

    Parameters
    ----------
    path : path
    errors : {"strict", "surrogateescape"}
        What bytes become that are not UTF-8; with the second, :func:`undecoded_byte` tells them.

    Raises
    ------
    DataError
        If the file cannot be read, is empty, or is not UTF-8; line and byte are named.
    """
    content = read_bytes(path)
    try:
        text = content.decode("utf-8-sig", errors)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise not_utf8(path, line, content[error.start]) from None
    if not text.strip():  # after the mark of the byte order, and with every kind of space, is nothing
        raise DataError(f"{path} is empty; its first line should hold data or a header. Check that it is whole.")
    return text


def not_utf8(path: Path, line: int, byte: int) -> DataError:
    """Return the error for a byte that is not UTF-8."""
    return DataError(f"{path} must be UTF-8 text; line {line} has the byte {byte:#04x}. Convert it to UTF-8.")


def undecoded_byte(text: str) -> int | None:
    """Return the first byte of a text that was not UTF-8; None if there is none."""
    if text.isascii():
        return None
    return next((ord(c) - 0xDC00 for c in text if "\udc80" <= c <= "\udcff"), None)
