"""Calibration of the verdict on carried taste: made-up states, whose truth is known, on real histories and graphs.

- ``probes``: the histories of a data set, their graphs, and what the worlds are made of.
- ``worlds``: the made-up states.
- ``first_version``: the measure before this one, for comparison.
- ``measures``: both measures of a batch of draws, with z, interval and word of each draw.
- ``study``: the cells and their draws, one tidy table; an interrupted study is continued.
- ``acceptance``: what each cell must meet, and which fail.
- ``report``, ``wording``: that table as ``docs/calibration.md``.

Run ``python -m benchmarks.calibration --help``.
"""
