"""The subcommands: one module each, imported only when it is called.

A module holds a typer application called ``app`` with the one command. To add a subcommand, write such a module and
name it here; the help of the program is made from this table alone, so that it appears at once.
"""

from __future__ import annotations

COMMANDS = {
    "distil": "Distil a data set with one or more methods and judge the result.",
    "distil-table": "Compare all methods at one budget, each run in a process of its own.",
    "cross-architecture": "Judge saved sets with several kinds of networks, and by DD-Ranking's scores.",
    "robustness": "Attack networks trained on saved sets by PGD, beside networks trained on real data.",
    "federated": "Simulate federated learning: synthetic sets or models sent, accuracy against bytes.",
    "continual": "Simulate continual learning: what a memory of synthetic or real samples saves from oblivion.",
    "federated-continual": "Simulate both at once: clients live through streams, the server remembers for all.",
    "privacy": "Accuracy against ε: what noise that hides every record costs.",
    "audit": "Attack releases: who was a member, what is a copy, how much privacy is lost at least.",
    "bench": "Measure the library beside plain implementations of the published loops.",
    "race": "How long the library takes to the accuracy of a published loop.",
    "profile": "Tell where the time goes: convolutions, norms, augmentation, Python.",
    "scaling": "Measure how time and memory grow with samples, classes, image size, width and clients.",
    "report": "Write results as one HTML page with tables, plots and synthetic images.",
    "methods": "List the methods of distillation and selection, and when to choose which.",
}
"""Subcommand to the line that explains it; its module is ``simulations.commands.<name>``, hyphens as underscores."""
