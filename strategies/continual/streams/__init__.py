"""Data as streams of experiences."""
