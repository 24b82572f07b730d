"""Public raw files: downloaded once from the first mirror that has them, checked, and stored in the cache."""

from __future__ import annotations

import json
import logging
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from frellm4rec.data.parsing.text_files import GZIP_MAGIC
from spectral_probe.errors import DataError
from spectral_probe.progress import Advance, counted
from spectral_probe.storage.atomic import disk_errors, move_file, scratch_folder, write_text
from spectral_probe.storage.cache import CACHE_VARIABLE, cache_root
from spectral_probe.storage.hashing import file_hash

logger = logging.getLogger(__name__)
#: Seconds without a byte after which the next mirror is tried.
TIMEOUT = 30.0
ZIP_MAGIC = b"PK\x03\x04"


@dataclass(frozen=True)
class RemoteFile:
    """A file that others publish.

    Attributes
    ----------
    name : str
        Name in the cache.
    mirrors : tuple of str
        Addresses of the same file, tried in this order.
    magic : bytes
        First bytes of the file. They tell it from a login page that a server sends instead.
    sha256 : str or None
        Checksum of a file that never changes. None: the checksum of the first download is recorded and checked from
        then on.
    """

    name: str
    mirrors: tuple[str, ...]
    magic: bytes = b""
    sha256: str | None = None


HETREC_LASTFM = RemoteFile(
    "hetrec2011-lastfm-2k.zip",
    ("https://files.grouplens.org/datasets/hetrec2011/hetrec2011-lastfm-2k.zip",),
    ZIP_MAGIC,
)
#: The archives of MovieLens by release. The owner calls both stable and publishes their MD5; the SHA-256 are those of
#: the files with these MD5: 0e33842e24a9c977be4e0107933c0723 (100k), c4d9eecfca2ab87c1945afe126590906 (1m).
MOVIELENS = {
    release: RemoteFile(
        f"ml-{release}.zip", (f"https://files.grouplens.org/datasets/movielens/ml-{release}.zip",), ZIP_MAGIC, sha256
    )
    for release, sha256 in (
        ("100k", "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229"),
        ("1m", "a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20"),
    )
}
AMAZON_MIRRORS = (
    "https://datarepo.eng.ucsd.edu/mcauley_group/data/amazon_v2",
    "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_v2",
    "https://jmcauley.ucsd.edu/data/amazon_v2",
)


def amazon_reviews(category: str, *, is_owners_core: bool) -> RemoteFile:
    """Return the remote file with a category's reviews: all of them, or the owner's much smaller 5-core."""
    name, folder = (f"{category}_5", "categoryFilesSmall") if is_owners_core else (category, "categoryFiles")
    mirrors = tuple(f"{mirror}/{folder}/{name}.json.gz" for mirror in AMAZON_MIRRORS)
    return RemoteFile(f"{name}.json.gz", mirrors, GZIP_MAGIC)


def amazon_metadata(category: str) -> RemoteFile:
    """Return the remote file with a category's metadata."""
    mirrors = tuple(f"{mirror}/metaFiles2/meta_{category}.json.gz" for mirror in AMAZON_MIRRORS)
    return RemoteFile(f"meta_{category}.json.gz", mirrors, GZIP_MAGIC)


def fetch(file: RemoteFile, dataset: str) -> Path:
    """Return the file in the cache, downloading it first if it is not there.

    The file is stored in ``data/DATASET`` of the cache, its checksum beside it as ``NAME.sha256.json``. It gets its
    final name after it is complete and checked, so a broken download is never used.

    Parameters
    ----------
    file : RemoteFile
    dataset : str
        Folder of the cache, one per data set.

    Raises
    ------
    DataError
        If no mirror delivers the file (each is named with its reason), or the file in the cache has changed since the
        download.
    ResourceError
        If the cache cannot be written.
    """
    folder = cache_root() / "data" / dataset
    target = folder / file.name
    if target.is_file():
        _verify(target, file)
        return target
    failures = []
    next_step = f"Free space there, or set {CACHE_VARIABLE} to another folder."
    with disk_errors(folder, what="Writing a download", next_step=next_step), scratch_folder(target) as scratch:
        for address in file.mirrors:
            reason = _download(address, scratch / file.name, file)
            if reason is None:
                _keep(scratch / file.name, target, address)
                return target
            failures.append(f"{address} ({reason})")
    raise DataError(
        f"{file.name} could not be downloaded from any of its {len(file.mirrors)} mirrors: {'; '.join(failures)}. "
        "Check the connection, or get the file another way and name its folder with --from-dir."
    )


def _download(address: str, path: Path, file: RemoteFile) -> str | None:
    """Download one address to a path; return None, or the reason for the failure."""
    import pooch
    import requests

    logger.info("fetching %s", address)
    pooch.get_logger().setLevel(logging.WARNING)  # pooch asks users to note the checksum, which is recorded here
    try:
        with _Counted(file.name) as counted_bytes:
            downloader = pooch.HTTPDownloader(
                progressbar=counted_bytes,
                timeout=TIMEOUT,
                # With transfer compression, .gz files would arrive unpacked.
                headers={"Accept-Encoding": "identity"},
            )
            pooch.retrieve(address, file.sha256, fname=path.name, path=path.parent, downloader=downloader)
    except (requests.RequestException, ValueError) as error:
        # ValueError: the checksum differs, or the address is not valid.
        return _reason(error)
    with path.open("rb") as content:
        start = content.read(max(len(file.magic), 32))
    if not start or not start.startswith(file.magic):
        path.unlink()
        return f"the response is not the file; it starts with {start!r}"
    return None


class _Counted:
    """What pooch takes for a bar: the kilobytes of a download, shown as any counted work is."""

    def __init__(self, name: str) -> None:
        self.name, self.total, self.done = name, 0, 0
        self.stack = ExitStack()
        self.advance: Advance | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def update(self, n_bytes: int) -> None:
        """Add so many bytes; the first ones begin the count."""
        if self.advance is None:
            work = counted(f"downloading {self.name}", self.total // 1000, unit="kB", bar=None)
            self.advance = self.stack.enter_context(work)
        self.done += n_bytes
        self.advance(min(self.done, self.total) // 1000, "")

    def reset(self) -> None:
        """Begin again, before pooch says that all is there."""
        self.done = 0

    def close(self) -> None:
        """End; the count ends with the block."""


def _reason(error: BaseException) -> str:
    """Return the innermost cause, such as "Connection refused", without the exceptions wrapped around it."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    return f"{type(error).__name__}: {str(error)[:160]}"


def _keep(partial: Path, target: Path, address: str) -> None:
    """Record the checksum, then move the file to its final name; a file without a record was put there by a user."""
    record = {"sha256": file_hash(partial), "bytes": partial.stat().st_size, "address": address}
    write_text(_record_of(target), json.dumps(record, indent=2))
    move_file(partial, target)


def _record_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.sha256.json")


def _verify(target: Path, file: RemoteFile) -> None:
    """Refuse a file in the cache that has changed since the download."""
    expected = file.sha256
    if expected is None:
        try:
            expected = str(json.loads(_record_of(target).read_text())["sha256"])
        except FileNotFoundError:
            return  # a user put the file there, for example after a failed download
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{_record_of(target)} must hold the checksum of {target.name}; reading it failed with: {error!r}. "
                "Delete both files to fetch them again."
            ) from error
    actual = file_hash(target)
    if actual != expected:
        raise DataError(f"{target} must have the SHA-256 {expected}; it has {actual}. Delete it to fetch it again.")
