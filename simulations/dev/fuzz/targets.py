"""All targets by name."""

from __future__ import annotations

from simulations.dev.fuzz import files, messages
from simulations.dev.fuzz.fuzzer import Target

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        *(files.SETS, files.STATISTICS),
        *(messages.ANSWERS, messages.REQUESTS, messages.UPDATES),
        *(files.SETTINGS, files.NAMES),
        *(files.IDX, files.NPZ, files.CSV, files.IMAGES),
        *(files.CHECKPOINTS, files.EXPERTS, files.RESULTS),
    )
}
