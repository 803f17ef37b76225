"""Truth: docs/methods.md itself. It names every method there is."""

from __future__ import annotations

import re
from pathlib import Path

from fedcl_distill.methods import list_methods

PAGE = (Path(__file__).parent.parent / "docs" / "methods.md").read_text()


def test_every_method_is_in_the_table() -> None:
    cells = " ".join(line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| "))
    assert [name for name in list_methods() if not re.search(rf"(?<![\w-]){name}(?![\w-])", cells)] == []
