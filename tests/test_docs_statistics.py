"""Truth: docs/statistics.md itself. Its example runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PAGE = (Path(__file__).parent.parent / "docs" / "statistics.md").read_text()


def test_the_example_runs() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(example, names)
    assert names["synthetic"].class_counts.tolist() == [1] * 10
    assert int(names["total"].class_counts.sum()) == sum(len(part) for part in names["parts"])
