"""Gradient matching: both sides must pull a network the same way."""
