"""The subcommands: functions of modules that are imported only when they are called.

The help of the program is made from the table below alone, so that it appears at once. To add a subcommand, write a
function for typer and name it there.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any


@dataclass(frozen=True)
class Command:
    """One subcommand.

    Attributes:
        place: its function, as ``module:function``.
        help: one line.
    """

    place: str
    help: str

    def load(self) -> Any:
        """The function."""
        module, _, function = self.place.partition(":")
        return getattr(import_module(module), function)


_HERE, _DEV = "simulations.commands", "simulations.dev"

COMMANDS = {
    "advise": Command(f"{_HERE}.advise:advise", "Try every way to send your data in few bytes, and recommend one."),
    "distil": Command(f"{_HERE}.distil:distil", "Distil a data set with one or more methods and judge the result."),
    "distil-table": Command(
        f"{_HERE}.distil:distil_table", "Compare all methods at one budget, each run in a process of its own."
    ),
    "bytes": Command(
        f"{_HERE}.bytes:bytes_curve", "Accuracy against true bytes: distilled sets beside compressed real samples."
    ),
    "cross-architecture": Command(
        f"{_HERE}.saved_sets:cross_architecture",
        "Judge saved sets with several kinds of networks, and by DD-Ranking's scores.",
    ),
    "judge": Command(f"{_HERE}.saved_sets:judge", "Judge anybody's sets beside real samples of as many bytes."),
    "robustness": Command(
        f"{_HERE}.saved_sets:robustness",
        "Attack networks trained on saved sets by PGD, beside networks trained on real data.",
    ),
    "federated": Command(
        f"{_HERE}.federated:federated",
        "Simulate federated learning: synthetic sets or models sent, accuracy against bytes.",
    ),
    "continual": Command(
        f"{_HERE}.continual:continual",
        "Simulate continual learning: what a memory of synthetic or real samples prevents of forgetting.",
    ),
    "federated-continual": Command(
        f"{_HERE}.federated:federated_continual",
        "Simulate both at once: clients live through streams, the server remembers for all.",
    ),
    "privacy": Command(f"{_HERE}.privacy:privacy", "Accuracy against ε: what noise that hides every record costs."),
    "audit": Command(
        f"{_HERE}.privacy:audit",
        "Attack releases: who was a member, what is a copy, how much privacy is lost at least.",
    ),
    "report": Command(
        f"{_HERE}.report:report", "Write results as one HTML page with tables, plots and synthetic images."
    ),
    "methods": Command(
        f"{_HERE}.methods:methods", "List the methods of distillation and selection, and when to choose which."
    ),
}
"""Subcommands by name."""

_DEV_COMMANDS = {
    "advise": Command(f"{_HERE}.advise:advise", "Try every way to send your data in few bytes, and recommend one."),
    "bench": Command(
        f"{_DEV}.commands:bench", "Measure the library beside plain implementations of the published loops."
    ),
    "time-to-accuracy": Command(
        f"{_DEV}.commands:time_to_accuracy", "How long the library takes to the accuracy of a published loop."
    ),
    "profile": Command(
        f"{_DEV}.commands:profile", "Tell where the time goes: convolutions, norms, augmentation, Python."
    ),
    "scaling": Command(
        f"{_DEV}.commands:scaling",
        "Measure how time and memory grow with samples, classes, image size, width and clients.",
    ),
}

if find_spec(_DEV) is not None:  # a checkout; the wheel has none of it
    COMMANDS |= _DEV_COMMANDS
