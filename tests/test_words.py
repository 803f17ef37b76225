"""Plain words: what a reader who is not from here would stumble over stands in no page, help text or docstring."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
AVOIDED = {
    r"\bshall\b": "must or will",
    r"\bhangs? (up)?on\b": "depends on",
    r"\bturn(ed|s)? away\b": "rejected",
    r"\bliars?\b": "malicious clients",
    r"\bat the door\b": "on arrival",
    r"\boblivion\b": "forgetting",
}
"""Patterns, and what to write in their place."""


@pytest.mark.parametrize("pattern", AVOIDED)
def test_standard_terms_are_used(pattern: str) -> None:
    listed = subprocess.run(["git", "ls-files", "*.py", "*.md", "*.j2"], cwd=ROOT, capture_output=True, text=True)
    files = [ROOT / name for name in listed.stdout.split()] or [*ROOT.rglob("*.md")]
    found = [
        f"{file.relative_to(ROOT)}:{number}"
        for file in files
        if file != Path(__file__) and file.exists()
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1)
        if re.search(pattern, line, re.IGNORECASE)
    ]
    assert found == [], f"write {AVOIDED[pattern]!r}"
