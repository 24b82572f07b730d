"""Who touched what, in time order."""
