"""Run the model once and keep one Gram matrix per layer."""
