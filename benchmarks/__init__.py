"""Speed and memory of the project, as ratios taken in one run."""
