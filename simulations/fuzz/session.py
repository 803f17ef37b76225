"""``python -m simulations.fuzz.session``: one target under Atheris, in a process that libFuzzer ends.

Findings are written down and the search goes on; what ends the process itself (a crash below Python, memory, an input
that hangs) is left by libFuzzer beside them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

_CODE = ("fedcl_distill", "strategies", "simulations")
_MAX_INPUT = 1 << 16
_HANGING_SECONDS = 60
_MAX_PROCESS_MIB = 4096
_COUNTED_EVERY = 500


def main(name: str, folder: Path, seconds: int, seed: int) -> None:
    """Fuzz the target for so many seconds; never returns."""
    import atheris

    logging.disable()
    warnings.simplefilter("ignore")
    with atheris.instrument_imports(include=list(_CODE), exclude=["simulations.fuzz"]):
        from simulations.fuzz.targets import TARGETS

    target = TARGETS[name]
    corpus, findings = folder / "corpus" / name, folder / "findings"
    corpus.mkdir(parents=True, exist_ok=True)
    findings.mkdir(parents=True, exist_ok=True)
    for content in target.seeds():
        (corpus / hashlib.sha1(content).hexdigest()).write_bytes(content)
    log = _Log(name, folder)

    def try_one(data: bytes) -> None:
        from simulations.fuzz.target import Finding, judge

        try:
            log.count(judge(target, data))
        except Finding as finding:
            log.keep(finding, data)

    options = {
        "max_total_time": seconds,
        "seed": seed,
        "max_len": _MAX_INPUT,
        "timeout": _HANGING_SECONDS,
        "rss_limit_mb": _MAX_PROCESS_MIB,
        "artifact_prefix": f"{findings}/{name}-",
        "print_final_stats": 1,
    }
    arguments = [sys.argv[0], str(corpus), *(f"-{key}={value}" for key, value in options.items())]
    atheris.Setup(arguments, try_one, custom_mutator=_mutator(target.mutate))
    atheris.Fuzz()


def _mutator(of_target: Callable[[bytes, Random], bytes]) -> Callable[..., bytes]:
    """The target's own three times out of four, else one that knows of no form."""

    def mutate(data: bytes, largest: int, seed: int) -> bytes:
        from simulations.fuzz.mutation import mutate_bytes

        random = Random(seed)
        return (of_target if random.randrange(4) else mutate_bytes)(data, random)[:largest]

    return mutate


class _Log:
    """Counts inputs, and keeps one input for each place in the code where something came out that should not."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name, self._folder = name, folder
        self._counts = {"executions": 0, "accepted": 0, "findings": 0}
        self._places = set[str]()

    def count(self, accepted: bool) -> None:
        self._counts["executions"] += 1
        self._counts["accepted"] += accepted
        if self._counts["executions"] % _COUNTED_EVERY == 0:
            self._write()

    def keep(self, finding: Exception, data: bytes) -> None:
        self.count(False)
        place = _place(finding)
        if place in self._places:
            return
        self._places.add(place)
        self._counts["findings"] = len(self._places)
        stem = self._folder / "findings" / f"{self._name}-{hashlib.sha1(place.encode()).hexdigest()[:12]}"
        stem.with_suffix(".input").write_bytes(data)
        stem.with_suffix(".txt").write_text("".join(traceback.format_exception(finding)), errors="replace")
        self._write()

    def _write(self) -> None:
        (self._folder / f"{self._name}.json").write_text(json.dumps(self._counts))


def _place(finding: Exception) -> str:
    """The exception and the innermost line of our own code on its way: one finding each."""
    error: Any = finding.__cause__ or finding
    ours = [
        f"{frame.filename}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if any(f"/{package}/" in frame.filename for package in _CODE)
    ]
    return f"{type(error).__name__} at {ours[-1] if ours else '?'}"


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
