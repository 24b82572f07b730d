"""Training runs on disk, and what is made from them."""
