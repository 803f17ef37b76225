"""Unrolled training: whoever trains on the synthetic samples must do well on real ones."""
