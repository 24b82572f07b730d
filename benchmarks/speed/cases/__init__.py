"""The benchmark cases; ``python -m benchmarks.speed`` runs each in a process of its own."""
