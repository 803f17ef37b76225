"""Results as JSON lines: every setting, version and seed beside every number; appended atomically, never lost."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from fedcl_distill.files import append_line

RESULTS = "results.jsonl"
"""Name of the file in a folder of results."""

Record = dict[str, Any]
"""One result: kind, key, time, settings (the seed is one of them), metrics, seconds, environment."""

_PACKAGES = ("fedcl-distill", "torch", "torchvision", "numpy", "flwr", "avalanche-lib")


def make_record(kind: str, settings: Mapping[str, Any], metrics: Mapping[str, Any], seconds: float) -> Record:
    """Put a result together; ``kind`` is that of the run, values are JSON values."""
    return {
        "kind": kind,
        "key": settings_key(kind, settings),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "settings": dict(settings),
        "metrics": dict(metrics),
        "seconds": round(seconds, 3),
        "environment": environment(),
    }


def settings_key(kind: str, settings: Mapping[str, Any]) -> str:
    """Names a cell of an experiment: equal settings have equal keys, so that a repeated run skips what is done."""
    return hashlib.sha256(json.dumps([kind, settings], sort_keys=True).encode()).hexdigest()[:16]


def append_record(path: str | os.PathLike[str], record: Record) -> None:
    """Append one result line.

    Raises:
        StorageError: it could not be written.
    """
    append_line(path, json.dumps(_without_nan(record), sort_keys=True, allow_nan=False))


def _without_nan(value: Any) -> Any:
    """``value`` with null for NaN and infinity, which JSON does not know (a class without test samples, say)."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: _without_nan(one) for key, one in value.items()}
    return [_without_nan(one) for one in value] if isinstance(value, list | tuple) else value


def read_records(path: str | os.PathLike[str]) -> Iterator[Record]:
    """Yield the results in ``path``; a line that a crash tore is passed over, an absent file holds none."""
    if not Path(path).exists():
        return
    with open(path, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if _is_record(record):
                yield record


def _is_record(value: Any) -> bool:
    parts = {"kind": str, "key": str, "settings": dict, "metrics": dict}
    return isinstance(value, dict) and all(isinstance(value.get(name), kind) for name, kind in parts.items())


def finished_keys(path: str | os.PathLike[str]) -> set[str]:
    """Keys of the results that ``path`` already holds."""
    return {record["key"] for record in read_records(path)}


@cache
def environment() -> dict[str, Any]:
    """What a reader needs to judge the seconds: versions, processor, cores, threads, device."""
    import torch

    versions: dict[str, str | None] = {}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "python": platform.python_version(),
        "versions": versions,
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
