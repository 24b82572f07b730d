"""Search: equal trials and equal time for every model, chosen on the validation items."""
