"""Fuzzing of everything that reads what others wrote: payloads, answers, requests, settings, data files, checkpoints.

``python -m simulations.dev.fuzz TARGET… --seconds N`` mutates inputs and keeps those that reach new code, with Atheris.
"""

from __future__ import annotations
