"""The published tables and figures as grids of training runs."""
