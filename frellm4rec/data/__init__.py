"""Readers that turn files into interaction logs."""

from __future__ import annotations

from dataclasses import replace

from frellm4rec.data.amazon import AmazonOptions, load_amazon
from frellm4rec.data.core_filter import k_core
from frellm4rec.data.counts import FilterReport, format_report, report_of
from frellm4rec.data.demo import DemoConfig, DemoWorld, make_demo
from frellm4rec.data.lastfm import load_lastfm
from frellm4rec.data.recbole import read_recbole, write_recbole
from frellm4rec.data.s3rec import read_s3rec
from frellm4rec.data.table import read_table
from frellm4rec.data.titles import clean_title
from spectral_probe.interactions import Dataset

__all__ = [
    "AmazonOptions",
    "DemoConfig",
    "DemoWorld",
    "FilterReport",
    "clean_title",
    "format_report",
    "k_core",
    "load_amazon",
    "load_lastfm",
    "log_fingerprint",
    "make_demo",
    "read_recbole",
    "read_s3rec",
    "read_table",
    "report_of",
    "write_recbole",
]


def log_fingerprint(dataset: Dataset) -> str:
    """Return the SHA-256 of histories and catalogue size alone.

    Titles are left out: what depends on the log only (negatives, trained ID models) stays the same when titles are
    added or corrected.
    """
    return replace(dataset, item_titles=None).fingerprint()
