"""Runs as data: done here or in other processes, watched, interrupted, resumed, written down."""
