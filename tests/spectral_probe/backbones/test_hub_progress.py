"""A download is counted by what lies in the cache."""

import threading

from spectral_probe.backbones.hub_progress import MEGABYTE, counted_download
from spectral_probe.progress import reported_by


class Reporter:
    """Keeps what is reported, and tells when something has arrived."""

    def __init__(self):
        self.started, self.done, self.ended, self.arrived = None, 0, False, threading.Event()

    def stage(self, text):
        pass

    def start(self, text, total, done, unit):
        self.started = (text, total, done, unit)

    def advance(self, done, note):
        self.done = done
        if done:
            self.arrived.set()

    def end(self):
        self.ended = True


def test_what_arrives_in_the_cache_is_counted(tmp_path):
    blobs = tmp_path / "models--org--name" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / "earlier").write_bytes(b"x" * 1000)
    reporter = Reporter()
    with reported_by(reporter), counted_download("org/name", 5 * MEGABYTE, tmp_path, seconds=0.001):
        (blobs / "new.incomplete").write_bytes(b"x" * 2 * MEGABYTE)
        assert reporter.arrived.wait(20)
    assert reporter.started == ("downloading org/name", 5, 0, "MB")
    assert (reporter.done, reporter.ended) == (2, True)


def test_nothing_is_counted_where_all_is_there(tmp_path):
    reporter = Reporter()
    with reported_by(reporter), counted_download("org/name", 0, tmp_path):
        pass
    assert reporter.started is None
