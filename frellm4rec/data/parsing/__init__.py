"""Readers of file formats, shared by the data sets."""
