"""A place for files whose content is the input."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path


def scratch_file(name: str, content: bytes) -> Path:
    """A file of that name and content in a folder that goes when the process ends."""
    path = scratch_folder() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@cache
def scratch_folder() -> Path:
    """That folder."""
    folder = tempfile.mkdtemp(prefix="fuzz-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
