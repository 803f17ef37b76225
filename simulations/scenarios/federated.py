"""Federated runs in process; settings chosen before strategies are compared; and ceilings.

Tuning gives each strategy the same effort, on held-out training data. Settings are cells of a grid. Those that differ
in nothing but tuned settings and the seed are candidates of one contest. Every candidate runs once, with its first
seed, on training data of which a share is held out and judged on; the one with the best accuracy there runs on all
training data, with all seeds. Test data are not looked at before.

Ceilings are the same data in one place, as if every client had sent its own. Bytes up are what that would take, once:
samples as they are stored (uint8 images, float32 features) and for each label as few whole bytes as the number of
classes needs, without compression. Nothing is sent down.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from flwr.app import ArrayRecord

from fedcl_distill.data import LabelledData, conform
from fedcl_distill.engine import Size, finished
from fedcl_distill.errors import DivergenceError, SettingsError
from fedcl_distill.synthetic import SyntheticSet, decode, encode
from fedcl_distill.training import fit
from simulations.attacks import AttackedSettings, dropped_samples, success_rate
from simulations.data import tell_notes
from simulations.flower.app import central_test_data, client_app, client_parts, prepare
from simulations.running.compare import compare
from simulations.running.progress import Silent, Stage, Watcher
from simulations.running.runs import Kind, Record, Run, append_record, make_record, read_records
from simulations.settings import FederatedSettings
from strategies.federated import (
    ByteLedger,
    DistilRequest,
    FederatedResult,
    InProcessGrid,
    RoundResult,
    list_strategies,
    run_server,
)
from strategies.federated.aggregation import QuorumError
from strategies.federated.answers import weights_of
from strategies.federated.grid import FIRST_NODE, Entry
from strategies.federated.learner import Learner
from strategies.federated.run import OnRound

_Stage = tuple[ArrayRecord, SyntheticSet | None]
"""Weights after a round and, where there is one, the synthetic set they were trained on."""


def run_ceiling(settings: FederatedSettings, on_round: OnRound) -> FederatedResult:
    """Do what ``settings.strategy``, one of ``CEILINGS``, names, on the data of all clients together.

    Raises:
        SettingsError, DataError: settings that do not fit each other or the data.
        DivergenceError: training diverged.
    """
    parts, test = client_parts(settings), central_test_data(settings)
    learner, ledger = settings.learner(test), raw_bytes(parts)
    rounds: list[RoundResult] = []
    started = time.monotonic()
    for number, stage in enumerate(_stages(settings, parts, learner)):
        seconds = time.monotonic() - started
        accuracy, class_accuracies = learner.class_accuracies(stage[0], test)
        rounds.append(
            RoundResult(
                server_round=number,
                accuracy=accuracy,
                class_accuracies=class_accuracies,
                bytes_up=ledger.total("up", up_to_round=number),
                answers=len(parts) if number == 1 else 0,
                server_seconds=seconds,
            )
        )
        on_round(rounds[-1])
        started = time.monotonic()
    return FederatedResult(tuple(rounds), (), ledger, *stage)


def raw_bytes(parts: Sequence[LabelledData]) -> ByteLedger:
    """A ledger with one message of each client: its data as they are."""
    ledger = ByteLedger(partitions={FIRST_NODE + partition: partition for partition in range(len(parts))})
    for node, part in zip(ledger.partitions, parts, strict=True):
        size = len(part) * part.sample_bytes
        ledger.entries.append(Entry(1, node, "up", "raw data", size, size))
    return ledger


def _stages(settings: FederatedSettings, parts: Sequence[LabelledData], learner: Learner) -> Iterator[_Stage]:
    yield weights_of(learner.fresh()), None
    yield from CEILINGS[settings.strategy](settings, parts, learner)


def _centralised(settings: FederatedSettings, parts: Sequence[LabelledData], learner: Learner) -> Iterator[_Stage]:
    """FedAvg with a single client that holds everything: ``local_epochs`` a round, by the clients' train_config."""
    test = central_test_data(settings)
    request = settings.local.request(settings.seed, learner.architecture_text)
    data = conform(pooled(parts), test.spec)
    network, train_config = learner.fresh(), request.train_config_for(data)
    for server_round in range(1, settings.rounds + 1):
        fit(network, data.inputs(), data.labels, train_config, seed=request.seed_for(server_round, 0))
        yield weights_of(network), None


def _pooled_distillation(
    settings: FederatedSettings, parts: Sequence[LabelledData], learner: Learner
) -> Iterator[_Stage]:
    """Distil everything at once by the clients' method and budget, to as many samples as their union would hold."""
    if settings.rounds != 1:
        raise SettingsError(f"pooled-distillation has one round, {settings.rounds} were asked for")
    whole = conform(pooled(parts), central_test_data(settings).spec)
    request = _for_all(settings.distillation.request(settings.seed), len(parts)).fitted_to(whole)
    size = _size_of_union(settings, parts) if request.byte_budget is None else request.size
    distilled = finished(request.distil(whole, seed=request.seed_for(1, 0), device=settings.device, size=size))
    synthetic = decode(encode(distilled, request.bits, provenance=False))  # rounded as what clients send
    yield learner.learn(synthetic, 1), synthetic


def _for_all(request: DistilRequest, clients: int) -> DistilRequest:
    """``request`` with the bytes of all clients, where it counts bytes."""
    return request if request.byte_budget is None else replace(request, byte_budget=request.byte_budget * clients)


def _size_of_union(settings: FederatedSettings, parts: Sequence[LabelledData]) -> Size:
    """For each class, what all clients together give."""
    counts = torch.stack([part.class_counts for part in parts])
    total: list[int] = counts.clamp(max=settings.images_per_class).sum(dim=0).tolist()
    return total


def pooled(parts: Sequence[LabelledData]) -> LabelledData:
    """All samples of ``parts``, at least one, in their order."""
    samples, labels = (torch.cat([getattr(part, name) for part in parts]) for name in ("samples", "labels"))
    return replace(parts[0], samples=samples, labels=labels, groups=None, group_names=())


CEILINGS: dict[str, Callable[[FederatedSettings, Sequence[LabelledData], Learner], Iterator[_Stage]]] = {
    "centralised": _centralised,
    "pooled-distillation": _pooled_distillation,
}
"""By the name that ``FederatedSettings.strategy`` takes for them, though no Flower strategy has it."""


KIND = "federated"


def run_federated(
    settings: AttackedSettings | FederatedSettings,
    watcher: Watcher | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
) -> Record:
    """Run server and clients in this process and return the result line; ``checkpoint`` as for ``run_server``.

    The result's seconds are those of the last sitting; those of clients and server are of all rounds.

    Raises:
        SettingsError, DataError: settings that do not fit each other or the data.
        QuorumError: too few valid answers in some round.
    """
    started, watcher = time.monotonic(), watcher or Silent()
    prepare(settings, watcher)
    notes = tell_notes(central_test_data(settings).notes, watcher)
    result = simulate(settings, watcher, checkpoint)
    metrics = {**result.as_record(), **_of_attack(settings, result), **notes}
    return make_record(KIND, settings.as_record(), metrics, time.monotonic() - started)


def _of_attack(settings: FederatedSettings, result: FederatedResult) -> dict[str, Any]:
    """Who attacked, how often what they wanted came about, and what a defence dropped of whom."""
    malicious: tuple[int, ...] = ()
    found: dict[str, Any] = {}
    if isinstance(settings, AttackedSettings) and settings.chosen_attack is not None:
        test, malicious = central_test_data(settings), settings.malicious
        network = settings.learner(test).with_weights(result.weights)
        found = {"malicious": list(malicious), "success_rate": success_rate(settings.chosen_attack, network, test)}
    return {**found, **dropped_samples(result.rejections, malicious)}


def simulate(
    settings: FederatedSettings,
    watcher: Watcher | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
) -> FederatedResult:
    """:func:`run_federated`'s run with everything it left behind: weights, synthetic union, ledger."""
    watcher = watcher or Silent()
    client_parts(settings)  # what is wrong with the data is reported here, not by every client
    with quiet_flower(), watcher.stage(_describe(settings)) as stage:
        result = _run(settings, _Steps(stage, settings.rounds), checkpoint)
    watcher.note(f"{_describe(settings)}: {_outcome(result)}")
    return result


def list_variants() -> list[str]:
    """What ``strategy`` can name here: Flower strategies, and what they are measured against."""
    return [*list_strategies(), *CEILINGS]


def _run(settings: FederatedSettings, steps: _Steps, checkpoint: str | os.PathLike[str] | None) -> FederatedResult:
    if settings.strategy in CEILINGS:
        return run_ceiling(settings, steps.on_round)
    with InProcessGrid(client_app, settings.clients, settings.to_run_config(), on_reply=steps.on_reply) as grid:
        return run_server(
            grid,
            settings.build_strategy(),
            test=central_test_data(settings),
            on_round=steps.on_round,
            checkpoint=checkpoint,
            **settings.options,
        )


class _Steps:
    """Turns replies and rounds into the progress of one stage."""

    def __init__(self, stage: Stage, rounds: int) -> None:
        self._stage, self._rounds, self._done = stage, rounds, 0

    def on_reply(self, replies: int, asked: int) -> None:
        fraction = (self._done + replies / asked) / self._rounds
        self._stage.update(fraction, f"round {self._done + 1} of {self._rounds}: {replies} of {asked} clients")

    def on_round(self, result: RoundResult) -> None:
        self._done = result.server_round
        self._stage.update(self._done / self._rounds, f"accuracy {100 * result.accuracy:.1f} %")


def _describe(settings: FederatedSettings) -> str:
    parts = [settings.strategy, settings.data, f"{settings.clients} clients", settings.partition]
    if isinstance(settings, AttackedSettings) and settings.attack:
        parts.append(f"{settings.attackers} × {settings.attack}")
    return " · ".join(parts)


def _outcome(result: FederatedResult) -> str:
    last = result.rounds[-1]
    rejected = f"{len(result.rejections)} ANSWERS REJECTED, " if result.rejections else ""
    return f"{rejected}accuracy {100 * last.accuracy:.1f} %, {last.bytes_up:,} bytes up, {last.bytes_down:,} down"


@contextmanager
def quiet_flower() -> Iterator[None]:
    """Flower tells about every round on standard error; here the watcher does."""
    logger = logging.getLogger("flwr")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


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
            raise SettingsError(f"{name} is to be tuned, but has a single value; give the values to choose from")
    groups: dict[str, list[AttackedSettings]] = {}
    for cell in cells:
        rest = {name: value for name, value in cell.as_record().items() if name not in (*names, "seed")}
        groups.setdefault(_text(rest), []).append(cell)
    return [Contest(names, tuple(group)) for group in groups.values()]


def choose_settings(
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
