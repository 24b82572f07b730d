"""What a language model reads at each position."""
