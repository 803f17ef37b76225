"""Truth: docs/methods.md itself. Its example runs, and it names every method there is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fedcl_distill.methods import list_methods

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "methods.md").read_text()


EXAMPLES = re.findall(r"<!-- runnable -->\n```python\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.mark.parametrize(
    ("example", "output"), zip(EXAMPLES, ["40 samples decoded from 10 stored ones", "medians\n"], strict=True)
)
def test_examples_run(example: str, output: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    script = tmp_path / "example.py"
    script.write_text(example)
    result = subprocess.run([sys.executable, str(script)], env=environment, capture_output=True, text=True, timeout=240)
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.startswith(output)


def test_every_method_is_in_the_table() -> None:
    cells = " ".join(line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| "))
    assert [name for name in list_methods() if not re.search(rf"(?<![\w-]){name}(?![\w-])", cells)] == []
