"""Curves over layers, with confidence intervals and a verdict."""
