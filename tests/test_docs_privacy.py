"""Truth: docs/privacy.md itself. Its example runs, and prints the guarantee that it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_example_runs(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "privacy.md").read_text()
    (example,) = re.findall(r"<!-- runnable -->\n```python\n(.*?)```", page, flags=re.DOTALL)
    script = tmp_path / "example.py"
    script.write_text(example)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
    result = subprocess.run(
        [sys.executable, str(script)], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=240
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout == "(4, 1e-05)-DP of a record\n"
    assert (tmp_path / "ledger.json").exists()
