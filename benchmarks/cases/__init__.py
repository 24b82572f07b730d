"""The benchmark cases; ``python -m benchmarks`` runs each in a process of its own."""
