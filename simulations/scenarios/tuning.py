"""Settings chosen before strategies are compared: the same effort for each, on held-out training data.

Settings are cells of a grid. Those that differ in nothing but tuned settings and the seed are candidates of one
contest. Every candidate runs once, with its first seed, on training data of which a share is held out and judged on;
the one with the best accuracy there runs on all training data, with all seeds. Test data are not looked at before.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from fedcl_distill.errors import DivergenceError, SettingsError
from simulations.attacks import AttackedSettings
from simulations.running.compare import compare
from simulations.running.progress import Watcher
from simulations.running.runs import Kind, Record, Run, append_record, make_record, read_records
from simulations.scenarios.federated import run_federated
from strategies.federated.aggregation import QuorumError


def run_trial(
    settings: AttackedSettings, watcher: Watcher | None = None, checkpoint: str | os.PathLike[str] | None = None
) -> Record:
    """One candidate's result line; a candidate under which training breaks down has accuracy 0 and a ``failure``.

    Raises:
        SettingsError, DataError: settings that do not fit each other or the data.
    """
    try:
        record = run_federated(settings, watcher, checkpoint)
    except (DivergenceError, QuorumError) as error:
        metrics = {"accuracy": 0.0, "failure": " ".join(str(error).split())}
        return make_record(Kind.FEDERATED_TRIAL, settings.as_record(), metrics, 0.0)
    return make_record(Kind.FEDERATED_TRIAL, settings.as_record(), record["metrics"], record["seconds"])


DEFAULT_SHARE = 0.2


@dataclass(frozen=True)
class Contest:
    """Candidates of which one is chosen.

    Attributes:
        tuned: names of the settings in which candidates may differ.
        cells: every candidate with every seed, at least one.
    """

    tuned: tuple[str, ...]
    cells: tuple[AttackedSettings, ...]

    @property
    def candidates(self) -> list[AttackedSettings]:
        """Each candidate with its first seed, in the order of cells."""
        found: dict[str, AttackedSettings] = {}
        for cell in self.cells:
            found.setdefault(_text(self._values(cell)), cell)
        return list(found.values())

    @property
    def trials(self) -> list[Run]:
        """What has to be run to choose: nothing where there is a single candidate."""
        candidates = self.candidates
        return [Run(Kind.FEDERATED_TRIAL, _on_held_out(one)) for one in candidates] if len(candidates) > 1 else []

    def chosen(self, records: Iterable[Record]) -> list[AttackedSettings]:
        """The cells of the best candidate, of equals the first; ``records`` hold the results of all trials."""
        best = self._best(records)[0] if self.trials else self.cells[0]
        found = [cell for cell in self.cells if self._values(cell) == self._values(best)]
        return [replace(cell, validation_share=0.0) for cell in found]

    def summary(self, records: Iterable[Record]) -> Record:
        """The result line that says what was chosen from what; ``records`` hold the results of all trials."""
        pairs = self._with_results(records)
        best, result = self._best(record for _, record in pairs)
        metrics = {
            "chosen": self._values(best),
            "accuracy": result["metrics"]["accuracy"],
            "accuracies": [record["metrics"]["accuracy"] for _, record in pairs],
            "synthetic_samples": result["metrics"].get("synthetic_samples"),
        }
        shared = {name: value for name, value in _on_held_out(best).as_record().items() if name not in self.tuned}
        settings = {**shared, "candidates": [self._values(one) for one, _ in pairs]}
        return make_record(Kind.FEDERATED_TUNING, settings, metrics, sum(record["seconds"] for _, record in pairs))

    def _best(self, records: Iterable[Record]) -> tuple[AttackedSettings, Record]:
        return max(self._with_results(records), key=lambda pair: float(pair[1]["metrics"]["accuracy"]))

    def _with_results(self, records: Iterable[Record]) -> list[tuple[AttackedSettings, Record]]:
        by_key = {record["key"]: record for record in records}
        return [(one, by_key[Run(Kind.FEDERATED_TRIAL, _on_held_out(one)).key]) for one in self.candidates]

    def _values(self, cell: AttackedSettings) -> dict[str, Any]:
        return {name: getattr(cell, name) for name in self.tuned}


def contests(cells: Sequence[AttackedSettings], tuned: Sequence[str]) -> list[Contest]:
    """``cells`` divided into contests, in the order of their first cells.

    Args:
        cells: combinations of settings and seeds.
        tuned: names of settings, with hyphens or underscores.

    Raises:
        SettingsError: there is no such setting, it cannot be tuned, or it has one value everywhere.
    """
    names = tuple(dict.fromkeys(name.replace("-", "_") for name in tuned))
    known = {one.name for one in fields(AttackedSettings)} - {"seed", "data_root", "validation_share"}
    if unknown := sorted(set(names) - known):
        raise SettingsError(f"cannot tune {', '.join(unknown)}; known: {', '.join(sorted(known))}")
    for name in names:
        if len({_text(getattr(cell, name)) for cell in cells}) < 2:
            raise SettingsError(f"{name} shall be tuned, but has a single value; give the values to choose from")
    groups: dict[str, list[AttackedSettings]] = {}
    for cell in cells:
        rest = {name: value for name, value in cell.as_record().items() if name not in (*names, "seed")}
        groups.setdefault(_text(rest), []).append(cell)
    return [Contest(names, tuple(group)) for group in groups.values()]


def tune(
    cells: Sequence[AttackedSettings],
    tuned: Sequence[str],
    results_path: str | os.PathLike[str],
    watcher: Watcher | None = None,
    workers: int = 1,
) -> tuple[list[AttackedSettings], list[Record]]:
    """The cells that are chosen from ``cells``, and a result line for each choice among several.

    Args:
        cells, tuned: as for :func:`contests`.
        results_path, watcher, workers: as for ``compare``. Trials that the file holds are not run again.

    Raises:
        SettingsError: nothing can be tuned so.
        FedclDistillError: a trial could not be run.
    """
    found = contests(cells, tuned)
    compare([trial for contest in found for trial in contest.trials], results_path, watcher, workers)
    known = {record["key"]: record for record in read_records(results_path)}
    chosen, lines = list[AttackedSettings](), list[Record]()
    for contest in found:
        results = [known[trial.key] for trial in contest.trials]
        chosen += contest.chosen(results)
        lines += [contest.summary(results)] if results else []
    for line in lines:
        if line["key"] not in known:
            append_record(results_path, line)
    return chosen, lines


def _on_held_out(cell: AttackedSettings) -> AttackedSettings:
    return replace(cell, validation_share=cell.validation_share or DEFAULT_SHARE)


def _text(values: Mapping[str, Any]) -> str:
    return json.dumps(values, sort_keys=True)
