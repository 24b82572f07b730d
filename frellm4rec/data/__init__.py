"""Readers that turn files into interaction logs."""

from __future__ import annotations

from dataclasses import replace

from frellm4rec.data.core_filter import k_core
from frellm4rec.data.lastfm import load_lastfm
from frellm4rec.data.table import read_s3rec, read_table
from spectral_probe.interactions import Dataset

__all__ = ["k_core", "load_lastfm", "log_fingerprint", "read_s3rec", "read_table"]


def log_fingerprint(dataset: Dataset) -> str:
    """Return the SHA-256 of histories and catalogue size alone.

    Titles are left out: what depends on the log only (negatives, trained ID models) stays the same when titles are
    added or corrected.
    """
    return replace(dataset, item_titles=None).fingerprint()
