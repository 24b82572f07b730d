"""Theorem 1 and Assumption 1 of the paper, measured on saved states."""
