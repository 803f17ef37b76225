"""Trajectory matching: training on the synthetic samples must lead where training on the real ones led."""
