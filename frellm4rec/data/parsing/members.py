"""Files of a published data set, in a folder or in the owner's zip, plain or gzipped."""

from __future__ import annotations

import zipfile
from pathlib import Path, PurePosixPath

from frellm4rec.data.parsing.text_files import gunzip, limited, read_bytes
from spectral_probe.errors import DataError
from spectral_probe.storage.regular import check_regular


def read_member(source: Path, name: str, *, dataset: str, origin: str) -> bytes | None:
    """Return the unpacked bytes of a file in a folder or zip, or None where it is absent.

    Parameters
    ----------
    source : Path
        Folder with ``NAME`` or ``NAME.gz``, or a zip that has one of them at any depth.
    name : str
        Name of the file without ``.gz``.
    dataset, origin : str
        What the file belongs to and where it comes from, for errors.

    Raises
    ------
    DataError
        If the source does not exist, or it or the file cannot be read.
    """
    if not source.exists():
        raise DataError(f"{dataset} is read from a folder or a zip; {source} does not exist. Get it from {origin}.")
    try:
        if source.is_dir():
            for path in (source / name, source / f"{name}.gz"):
                if path.is_file():
                    return read_bytes(path)
            return None
        check_regular(source)
        with zipfile.ZipFile(source) as archive:
            # Some owners put the files at the root, others in a folder: take the shallowest.
            members = sorted(archive.namelist(), key=lambda member: (member.count("/"), member))
            for member in members:
                if PurePosixPath(member).name in (name, f"{name}.gz"):
                    info = archive.getinfo(member)
                    with archive.open(info) as stream:
                        content = limited(stream, info.compress_size, f"{member} in {source}").read()
                    return gunzip(content, f"{member} in {source}") if member.endswith(".gz") else content
            return None
    except (DataError, MemoryError):
        raise
    except Exception as error:  # a damaged archive can raise any exception
        raise DataError(
            f"{name} in {source} must be readable as a plain, gzipped or zipped file; reading it failed with: {error}. "
            f"Fetch it again from {origin}."
        ) from error


def decode_line(raw: bytes) -> str:
    """Return a line as text: UTF-8 where it is valid, else Latin-1 (copies of old files exist in both)."""
    raw = raw.rstrip(b"\r")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("latin-1")
