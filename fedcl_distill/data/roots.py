"""Where data sets are looked for on this computer."""

from __future__ import annotations

import os
from pathlib import Path

ENVIRONMENT_VARIABLE = "FEDCL_DISTILL_DATA"


def data_roots(root: str | os.PathLike[str] | None = None) -> list[Path]:
    """Return the folders to search, in order; downloads go into the first.

    They are ``root``, the environment variable FEDCL_DISTILL_DATA, and ``~/.cache/fedcl-distill``: those that
    are set, whether they exist or not.
    """
    named = [root, os.environ.get(ENVIRONMENT_VARIABLE)]
    folders = [Path(folder).expanduser() for folder in named if folder]
    return list(dict.fromkeys([*folders, Path.home() / ".cache" / "fedcl-distill"]))
