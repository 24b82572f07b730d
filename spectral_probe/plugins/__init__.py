"""Models, data sets and item inputs that other packages bring."""
