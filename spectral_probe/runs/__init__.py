"""Folders on disk that hold a result and everything it depends on."""
