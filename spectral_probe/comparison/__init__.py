"""Differences between profiles, with a label and figures."""
