"""The figures and tables of the paper, each beside its published form: ``python -m benchmarks.figures``."""
