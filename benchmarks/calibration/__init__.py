"""Calibration of the verdict: false verdicts, coverage and power on real local graphs with invented states.

- ``probe``: what ``spectral_energy`` computes for the low pass, with everything that depends on graphs alone kept.
- ``worlds``: the invented states, of which the truth is known.
- ``study``: the cells and their repetitions, one tidy table.
- ``report``: that table as ``docs/calibration.md``.

Run ``python -m benchmarks.calibration --help``.
"""
