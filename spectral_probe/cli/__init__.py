"""The command spectral-probe."""
