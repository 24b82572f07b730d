"""Curves over layers with intervals and a verdict."""
