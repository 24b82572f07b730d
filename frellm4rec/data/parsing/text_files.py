"""Bytes and text of files, plain or gzipped; every failure is a DataError that names the file."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from spectral_probe.errors import DataError

GZIP_MAGIC = b"\x1f\x8b"


def stem(path: Path) -> str:
    """Return the file's name without its endings."""
    return path.name.removesuffix(".gz").rsplit(".", 1)[0]


def ending(path: Path) -> str:
    """Return the file's ending in lower case, without ``.gz``."""
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def read_bytes(path: Path) -> bytes:
    """Return the content of a file, unpacked if it is gzipped, whatever its name.

    Raises
    ------
    DataError
        If the file does not exist or cannot be read, or its gzip stream is damaged or ends early.
    """
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if path.suffix == ".gz" or content.startswith(GZIP_MAGIC) else content
    except FileNotFoundError:
        raise DataError(f"{path} does not exist. Check the path.") from None
    except (OSError, EOFError, zlib.error, ValueError) as error:
        raise DataError(f"{path} must be a readable file; reading it failed with: {error}. Fetch it again.") from error


def read_text(path: Path) -> str:
    """Return the content of a UTF-8 text file, plain or gzipped, without its byte order mark.

    Raises
    ------
    DataError
        If the file cannot be read, is empty, or is not UTF-8; line and byte are named.
    """
    content = read_bytes(path)
    if not content.strip():
        raise DataError(f"{path} is empty; its first line should hold data or a header. Check that it is whole.")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path} must be UTF-8 text; line {line} has the byte {content[error.start]:#04x}. Convert it to UTF-8."
        ) from None
