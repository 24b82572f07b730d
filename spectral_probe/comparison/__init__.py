"""What changes from one profile to another."""
