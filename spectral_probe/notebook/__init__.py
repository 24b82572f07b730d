"""What a notebook shows: the page of a profile, its interactive chart, the explorer of saved Grams."""
