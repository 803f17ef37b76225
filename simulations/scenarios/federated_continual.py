"""Federated continual runs, and the ceilings that take all data seen so far as they are."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from flwr.app import ArrayRecord

from fedcl_distill.data import LabelledData, conform
from fedcl_distill.engine import ByteBudget, finished
from fedcl_distill.synthetic import SyntheticSet, decode, encode
from fedcl_distill.training import accuracy, fit
from simulations.data import tell_notes
from simulations.flower.app import central_test_data, prepare
from simulations.flower.federated_continual_app import KIND, client_app, client_streams
from simulations.running.progress import Silent, Watcher
from simulations.running.runs import Record, make_record
from simulations.scenarios.federated import pooled, quiet_flower, raw_bytes
from simulations.settings import FederatedContinualSettings
from strategies.federated import ByteLedger, InProcessGrid
from strategies.federated.answers import weights_of
from strategies.federated.learner import Learner
from strategies.federated_continual import (
    STRATEGIES,
    ClientStream,
    FederatedContinualResult,
    StageResult,
    run_server,
)
from strategies.federated_continual.server import OnStage, classes_of

Learned = tuple[ArrayRecord, SyntheticSet | None]
"""Weights after a stage and, where there is one, the set that they were trained on."""


def run_ceiling(settings: FederatedContinualSettings, on_stage: OnStage) -> FederatedContinualResult:
    """Do what ``settings.strategy``, one of ``CEILINGS``, names, on the data of all clients together.

    Raises:
        SettingsError, DataError: settings that do not fit each other or the data.
        DivergenceError: training or distillation diverged.
    """
    test, streams = central_test_data(settings), client_streams(settings)
    tests, learner = settings.experiences_of(test), settings.learner(test)
    seen: list[LabelledData] = []
    ledger, stages, learned_at = ByteLedger(), list[StageResult](), dict[int, int]()
    learned: Learned = weights_of(learner.fresh()), None
    untrained = _accuracies(learner, learned[0], tests)
    for stage in range(settings.stages):
        started = time.monotonic()
        new = _new(streams, stage)
        seen += new.values()
        if new:
            learned = CEILINGS[settings.strategy](settings, pooled(seen), learner, stage)
        seconds = time.monotonic() - started
        sent = raw_bytes(list(new.values()))
        ledger.entries += [
            one._replace(server_round=stage + 1, node=number) for one, number in zip(sent.entries, new, strict=True)
        ]
        for number in new:
            ledger.partitions[number] = number
            learned_at.setdefault(streams[number].itinerary.order[_position(streams[number], stage)], stage)
        held = learned[1]
        stages.append(
            StageResult(
                stage=stage,
                accuracies=_accuracies(learner, learned[0], tests),
                asked=len(new),
                bytes_up=ledger.total("up"),
                server_bytes=ledger.total("up"),
                server_seconds=seconds,
            )
        )
        on_stage(stages[-1])
    return FederatedContinualResult(
        stages=tuple(stages),
        learned_at=tuple(learned_at.get(one, len(stages)) for one in range(len(tests))),
        untrained=untrained,
        classes=tuple(map(classes_of, tests)),
        rejections=(),
        ledger=ledger,
        weights=learned[0],
        memory_counts=() if held is None else tuple(held.class_counts.tolist()),
    )


def _joint(settings: FederatedContinualSettings, seen: LabelledData, learner: Learner, stage: int) -> Learned:
    """Fresh weights, trained by the clients' train_config for as many epochs as clients train in a stage."""
    request = settings.local.request(settings.seed, learner.architecture_text)
    data = conform(seen, central_test_data(settings).spec)
    train_config = request.train_config_for(seen)
    network, seed = learner.fresh(), request.seed_for(stage + 1, 0)
    fit(
        network,
        data.inputs(),
        data.labels,
        replace(train_config, epochs=train_config.epochs * settings.rounds),
        seed=seed,
    )
    return weights_of(network), None


def _joint_distilled(settings: FederatedContinualSettings, seen: LabelledData, learner: Learner, stage: int) -> Learned:
    """Everything so far distilled at once, by the clients' method and budget, to the size of the server's memory."""
    test = central_test_data(settings)
    request = settings.distillation.request(settings.seed)
    size = settings.memory_images_per_class
    whole = ByteBudget(settings.memory_budget(test), settings.bits)
    made = finished(
        request.distil(
            conform(seen, test.spec),
            seed=request.seed_for(stage + 1, 0),
            device=settings.device,
            size=size if settings.memory_bytes is None else whole,
        )
    )
    synthetic = decode(encode(made, request.bits, provenance=False))  # rounded as what clients send
    return learner.learn(synthetic, stage + 1), synthetic


CEILINGS: dict[str, Callable[[FederatedContinualSettings, LabelledData, Learner, int], Learned]] = {
    "joint": _joint,
    "joint-distilled": _joint_distilled,
}
"""By the name that ``FederatedContinualSettings.strategy`` takes for them, though no Flower strategy has it."""


def _new(streams: Sequence[ClientStream], stage: int) -> dict[int, LabelledData]:
    """What clients have at ``stage``, by partition."""
    found = {number: stream.position_at(stage) for number, stream in enumerate(streams)}
    return {number: streams[number].experiences[one] for number, one in found.items() if one is not None}


def _position(stream: ClientStream, stage: int) -> int:
    position = stream.position_at(stage)
    assert position is not None
    return position


def _accuracies(learner: Learner, weights: ArrayRecord, tests: Sequence[LabelledData]) -> tuple[float, ...]:
    network = learner.with_weights(weights)
    return tuple(accuracy(network, test) for test in tests)


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
    client_streams(settings)  # what is wrong with the data is reported here, not by every client
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
