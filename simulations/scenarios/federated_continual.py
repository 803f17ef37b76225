"""Federated continual scenarios in process: one run."""

from __future__ import annotations

import os
import time

from simulations.data import tell_notes
from simulations.flower.app import central_test_data, prepare
from simulations.flower.federated_continual_app import KIND, client_app, client_streams
from simulations.running.progress import Silent, Watcher
from simulations.running.runs import Record, make_record
from simulations.scenarios.federated import quiet_flower
from simulations.scenarios.federated_continual_ceilings import CEILINGS, run_ceiling
from simulations.settings import FederatedContinualSettings
from strategies.federated import InProcessGrid
from strategies.federated_continual import (
    STRATEGIES,
    FederatedContinualResult,
    StageResult,
    run_server,
)
from strategies.federated_continual.server import OnStage


def list_variants() -> list[str]:
    """What ``strategy`` can name here: strategies, and what they are measured against."""
    return [*STRATEGIES.names(), *CEILINGS]


def run_federated_continual(
    settings: FederatedContinualSettings,
    watcher: Watcher | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
) -> Record:
    """Run server and clients in this process and return the result line; ``checkpoint`` as for ``run_server``.

    Raises:
        SettingsError, DataError: settings that do not fit each other or the data.
        QuorumError: too few valid answers in some round.
    """
    started, watcher = time.monotonic(), watcher or Silent()
    prepare(settings, watcher)
    notes = tell_notes(central_test_data(settings).notes, watcher)
    result = simulate(settings, watcher, checkpoint)
    return make_record(KIND, settings.as_record(), {**result.as_record(), **notes}, time.monotonic() - started)


def simulate(
    settings: FederatedContinualSettings,
    watcher: Watcher | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
) -> FederatedContinualResult:
    """:func:`run_federated_continual`'s run with everything it left behind."""
    watcher = watcher or Silent()
    client_streams(settings)  # what is wrong with the data shall be told here, not by every client
    with quiet_flower(), watcher.stage(_describe(settings)) as stage:

        def on_stage(result: StageResult) -> None:
            stage.update((result.stage + 1) / settings.stages, f"stage {result.stage + 1} of {settings.stages}")

        result = _run(settings, on_stage, checkpoint)
    watcher.note(f"{_describe(settings)}: {_outcome(result)}")
    return result


def _run(
    settings: FederatedContinualSettings, on_stage: OnStage, checkpoint: str | os.PathLike[str] | None
) -> FederatedContinualResult:
    if settings.strategy in CEILINGS:
        return run_ceiling(settings, on_stage)
    with InProcessGrid(client_app, settings.clients, settings.to_run_config()) as grid:
        return run_server(
            grid,
            settings.build_strategy(),
            tests=settings.experiences_of(central_test_data(settings)),
            stages=settings.stages,
            on_stage=on_stage,
            checkpoint=checkpoint,
            **settings.options,
        )


def _describe(settings: FederatedContinualSettings) -> str:
    return f"{settings.strategy} · {settings.data} · {settings.clients} clients · {settings.stream}"


def _outcome(result: FederatedContinualResult) -> str:
    matrix, last = result.matrix, result.stages[-1]
    rejected = f", {len(result.rejections)} answers rejected" if result.rejections else ""
    return (
        f"average accuracy {100 * matrix.average_accuracy:.1f} %, forgetting {100 * matrix.forgetting:.1f} %, "
        f"{last.bytes_up:,} bytes up, {last.bytes_down:,} down, {last.server_bytes:,} kept{rejected}"
    )
