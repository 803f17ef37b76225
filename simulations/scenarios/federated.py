"""Federated scenarios in process: one run."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from simulations.attacks import AttackedSettings
from simulations.attacks.success import dropped_samples, success_rate
from simulations.data import tell_notes
from simulations.flower.app import central_test_data, client_app, client_parts, prepare
from simulations.running.progress import Silent, Stage, Watcher
from simulations.running.runs import Record, make_record
from simulations.scenarios.ceilings import CEILINGS, run_ceiling
from simulations.settings import FederatedSettings
from strategies.federated import (
    FederatedResult,
    InProcessGrid,
    RoundResult,
    list_strategies,
    run_server,
)

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
    client_parts(settings)  # what is wrong with the data shall be told here, not by every client
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
    rejected = f", {len(result.rejections)} answers rejected" if result.rejections else ""
    return f"accuracy {100 * last.accuracy:.1f} %, {last.bytes_up:,} bytes up, {last.bytes_down:,} down{rejected}"


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
