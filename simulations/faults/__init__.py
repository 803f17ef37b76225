"""Runs that are killed at random times and started again, and held against the same run left alone.

``python -m simulations.faults JOB… --kills N`` kills with SIGKILL, so that nothing can clean up behind itself.
"""
