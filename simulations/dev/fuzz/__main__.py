"""``python -m simulations.dev.fuzz TARGET… --seconds N``.

Each target runs in a process of its own. The corpus stays in the folder, so that the next call goes on from there; a
line with the counts is appended to its ``fuzz.jsonl``. The status is 1 if there was a finding.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from fedcl_distill.errors import DependencyError, FedclDistillError, SettingsError
from fedcl_distill.files import append_line
from simulations.running.processes import child_environment, python_module

_NAMES = (
    *("sets", "statistics", "answers", "requests", "updates", "settings", "names"),
    *("idx", "npz", "csv", "images", "checkpoints", "experts", "results"),
)
_COVERAGE = re.compile(rb"cov: (\d+)")


def main(arguments: list[str]) -> int:
    """Fuzz what the command line asks for; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m simulations.dev.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"default: all of {', '.join(_NAMES)}")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/fuzz"), help="folder of corpus, findings and logs")
    given = parser.parse_args(arguments)
    unknown = sorted(set(given.targets) - set(_NAMES))
    if unknown:
        raise SettingsError(f"unknown target {', '.join(unknown)}; known: {', '.join(_NAMES)}")
    if importlib.util.find_spec("atheris") is None:
        raise DependencyError("fuzzing needs atheris: pip install 'fedcl-distill[all,fuzz]'")
    records = [fuzz(name, given.out, given.seconds, given.seed) for name in given.targets or _NAMES]
    return int(any(record["findings"] or record["status"] for record in records))


def fuzz(name: str, folder: Path, seconds: int, seed: int) -> dict[str, Any]:
    """Fuzz one target and return the counts: executions, accepted inputs, findings, coverage at start and end."""
    folder.mkdir(parents=True, exist_ok=True)
    counts, log, started = folder / f"{name}.json", folder / f"{name}.log", time.monotonic()
    counts.unlink(missing_ok=True)
    with log.open("wb") as output, _temporary_folder() as scratch:
        command = python_module("simulations.dev.fuzz.fuzzer", name, str(folder), str(seconds), str(seed))
        environment = {**child_environment(), "TMPDIR": scratch}
        status = subprocess.call(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
    covered = [int(number) for number in _COVERAGE.findall(log.read_bytes())] or [0]
    record = {
        "target": name,
        "seed": seed,
        "seconds": round(time.monotonic() - started, 1),
        "status": status,
        **(json.loads(counts.read_text()) if counts.exists() else {"executions": 0, "accepted": 0, "findings": 0}),
        "coverage": [covered[0], covered[-1]],
        "corpus": sum(1 for _ in (folder / "corpus" / name).glob("*")),
    }
    append_line(folder / "fuzz.jsonl", json.dumps(record))
    print(json.dumps(record), flush=True)
    return record


def _temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """For what a session writes; in memory if it can be. libFuzzer ends its process without letting it clean up."""
    memory = Path("/dev/shm")
    return tempfile.TemporaryDirectory(prefix="fuzz-", dir=memory if memory.is_dir() else None)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except FedclDistillError as error:
        sys.exit(str(error))
