"""Files that appear whole or not at all, hashes, and the one cache."""
