"""Recommenders that RecBole trained, read from their checkpoints for the instrument."""
