"""Tools for whoever works on this code: hostile input, killed jobs, benchmarks, profiles, published loops.

They are in the repository and not in the wheel; nothing outside this package imports them.
"""
