"""Calibration of the verdict: false verdicts, coverage and power on real local graphs with synthetic states.

- ``probe``: the low-pass excess of ``spectral_energy``; everything that depends on the graphs alone is computed once.
- ``worlds``: the synthetic states, whose truth is known.
- ``study``: the cells and their repetitions, one tidy table.
- ``report``: that table as ``docs/calibration.md``.

Run ``python -m benchmarks.calibration --help``.
"""
