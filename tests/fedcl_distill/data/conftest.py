"""Data roots for the tests: the developer's own only where a test asks for real data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REAL_ROOT = os.environ.get("FEDCL_DISTILL_DATA")


@pytest.fixture(autouse=True)
def empty_data_roots(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Point the home folder at an empty one and unset the environment variable; return that home."""
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("FEDCL_DISTILL_DATA", raising=False)
    return home


@pytest.fixture
def real_root() -> Path:
    """The folder that FEDCL_DISTILL_DATA named when the tests started; the test skips where it named none."""
    if REAL_ROOT is None:
        pytest.skip("set FEDCL_DISTILL_DATA to a folder with real data")
    return Path(REAL_ROOT)
