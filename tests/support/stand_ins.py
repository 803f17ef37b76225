"""Programs that stand in for those of a worker."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from simulations.running import pool

_ROOT = Path(__file__).parents[2]


def replace_worker(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let workers do what ``code`` says; each writes its process number to ``pid`` in ``folder``."""
    lines = ["import json, os, pathlib, signal, sys, time", f"folder = pathlib.Path({str(folder)!r})"]
    lines.append("(folder / 'pid').write_text(str(os.getpid()))")
    (folder / "stand_in_worker.py").write_text("\n".join([*lines, code]))
    monkeypatch.setattr(pool, "_MODULE", "stand_in_worker")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(_ROOT)]))
