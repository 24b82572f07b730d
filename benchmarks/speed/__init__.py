"""Timings, as ratios of two commands on one machine."""
