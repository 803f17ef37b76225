"""Truth: the pages themselves. Every example that is marked as one that runs does, in a folder of its own."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

DOCS = Path(__file__).parent.parent / "docs"
MARK = re.compile(r"<!-- runnable -->\n```python\n(.*?)```", flags=re.DOTALL)
EXAMPLES = [
    (f"{page.relative_to(DOCS)}-{number}", code)
    for page in sorted(DOCS.rglob("*.md"))
    for number, code in enumerate(MARK.findall(page.read_text("utf-8")))
]
PRINTED = {
    "methods.md-0": "40 samples decoded from 10 stored ones",
    "methods.md-1": "medians\n",
    "privacy.md-0": "(4, 1e-05)-DP of a record\n",
}
"""How the output begins, where the page says it."""


@pytest.mark.parametrize(("name", "code"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
def test_examples_run(name: str, code: str, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    script = tmp_path / "example.py"
    script.write_text(code)
    if "@register" in code:  # names that no other test may find
        environment = {**os.environ, "PYTHONPATH": str(DOCS.parent)}
        said = subprocess.run(
            [sys.executable, str(script)], env=environment, check=True, capture_output=True, text=True
        )
        assert said.stdout.startswith(PRINTED.get(name, ""))
        return
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        runpy.run_path(str(script), run_name="__main__")
    assert capsys.readouterr().out.startswith(PRINTED.get(name, ""))
    if name == "privacy.md-0":
        assert Path("ledger.json").exists()


def test_pages_are_linked_from_the_site() -> None:
    listed = set(re.findall(r"[\w/-]+\.md", (DOCS.parent / "mkdocs.yml").read_text("utf-8")))
    assert {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")} <= listed


def test_relative_links_lead_somewhere() -> None:
    lost = [
        f"{page.relative_to(DOCS)}: {link}"
        for page in DOCS.rglob("*.md")
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text("utf-8"))
        if not (page.parent / link).exists()
    ]
    assert lost == []
