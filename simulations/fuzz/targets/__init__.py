"""All targets by name."""

from __future__ import annotations

from simulations.fuzz.target import Target
from simulations.fuzz.targets import data, messages, payloads, settings, states

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        *(payloads.SETS, payloads.STATISTICS),
        *(messages.ANSWERS, messages.REQUESTS, messages.UPDATES),
        *(settings.SETTINGS, settings.NAMES),
        *(data.IDX, data.NPZ, data.CSV, data.IMAGES),
        *(states.CHECKPOINTS, states.EXPERTS, states.RESULTS),
    )
}
