"""Item vectors: made before a model is trained, as its frozen table, and in exported files."""
