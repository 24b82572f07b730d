"""MoRec: a text encoder in place of an item table, under a SASRec."""
