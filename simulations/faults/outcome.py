"""What a job leaves in its folder, without what two runs of the same settings may differ in."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from fedcl_distill.synthetic import SyntheticSet, load
from simulations.faults.jobs import STARTS
from simulations.running.records import RESULTS, read_records

_MEASURED = re.compile("second|peak|start_bytes|cores|memory|rate|class_names")


def outcome_of(folder: Path) -> dict[str, Any]:
    """Each file by its path: results by key, sets as what they hold, others by the hash of their bytes."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != STARTS)
    return {str(path.relative_to(folder)): _content(path) for path in files}


def difference(expected: dict[str, Any], found: dict[str, Any]) -> str | None:
    """What is not as expected, in words; None if nothing is."""
    missing, more = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    other = sorted(name for name in set(expected) & set(found) if expected[name] != found[name])
    parts = {"missing": missing, "left over": more, "different": other}
    return "; ".join(f"{what}: {', '.join(names)}" for what, names in parts.items() if names) or None


def _content(path: Path) -> Any:
    if path.name == RESULTS:
        records = list(read_records(path))
        doubled = [key for key, count in Counter(record["key"] for record in records).items() if count > 1]
        return {record["key"]: _values(record["metrics"]) for record in records}, doubled
    if path.suffix == ".safetensors":
        return _digest(load(path))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _digest(one: SyntheticSet) -> str:
    found = hashlib.sha256(repr((one.class_names, one.normalisation, one.parameterization)).encode())
    for tensor in (one.labels, *(one.arrays[name] for name in sorted(one.arrays))):
        found.update(torch.as_tensor(tensor).contiguous().numpy().data)
    return found.hexdigest()


def _values(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _values(inner) for key, inner in value.items() if not _MEASURED.search(key)}
    return [_values(inner) for inner in value] if isinstance(value, list) else value
