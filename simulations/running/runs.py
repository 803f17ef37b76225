"""Runs as data, and their results as JSON lines: every setting, version and seed beside every number."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import Field, asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, ClassVar, Protocol

from fedcl_distill.files import append_line
from simulations.running.progress import Watcher


class Kind(StrEnum):
    """What a result is of; tables and pages know results by these names alone."""

    DISTIL = "distil"
    DISTIL_FAILED = "distil-failed"
    FEDERATED = "federated"
    FEDERATED_TRIAL = "federated-trial"
    FEDERATED_TUNING = "federated-tuning"
    CONTINUAL = "continual"
    FEDERATED_CONTINUAL = "federated-continual"
    PRIVACY = "privacy"
    CROSS_ARCHITECTURE = "cross-architecture"
    SCORES = "scores"
    REAL_ACCURACY = "real-accuracy"
    ROBUSTNESS = "robustness"
    AUDIT = "audit"
    GRADIENTS = "gradients"


RESULTS = "results.jsonl"
"""Name of the file in a folder of results."""

Record = dict[str, Any]
"""One result: kind, key, time, settings (the seed is one of them), metrics, seconds, environment."""

_PERFORM = "simulations.perform"
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


class Settings(Protocol):
    """Settings of one run: a dataclass of JSON values."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def as_record(self) -> dict[str, Any]:
        """JSON values that name the experiment."""
        ...


@dataclass(frozen=True)
class Run:
    """One run to do.

    Attributes:
        kind: one that :mod:`~simulations.perform` knows, such as "distil" or "federated".
        settings: of that kind.
    """

    kind: str
    settings: Settings

    @property
    def key(self) -> str:
        return settings_key(self.kind, self.settings.as_record())


def perform(run: Run, watcher: Watcher, folder: Path) -> Record:
    """Do ``run`` in this process, with its files below ``folder``; errors as of the scenario behind its kind."""
    return perform_named(run.kind, asdict(run.settings), watcher, folder)


def perform_named(
    kind: str, settings: Mapping[str, Any], watcher: Watcher, folder: Path, *, checkpoints: bool = True
) -> Record:
    """:func:`perform` for settings by name. Scenarios stand above this package, so they are found by name as well."""
    found: Record = import_module(_PERFORM).perform(kind, settings, watcher, folder, checkpoints=checkpoints)
    return found


def checkpoint_of(kind: str, key: str, folder: Path) -> Path:
    """Where a run that was interrupted left how it stands; of kinds that take care of theirs, nothing is there."""
    return folder / f"{kind}-{key}.checkpoint.pt"
