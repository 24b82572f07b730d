"""Energies of graph frequencies and their exact nulls."""
