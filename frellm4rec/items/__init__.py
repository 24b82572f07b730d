"""What is known of an item before a model is trained."""
