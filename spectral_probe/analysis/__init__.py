"""The wiring: from a model and a data set to a profile in a run folder."""
