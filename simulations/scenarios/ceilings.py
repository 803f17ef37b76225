"""What federated strategies are measured against: the same data in one place, as if every client had sent its own.

Bytes up are what that would take, once: samples as they are stored (uint8 images, float32 features) and for each label
as few whole bytes as the number of classes needs, without compression. Nothing is sent down.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from flwr.app import ArrayRecord

from fedcl_distill.data import LabelledData
from fedcl_distill.engine import Size, finished
from fedcl_distill.errors import SettingsError
from fedcl_distill.synthetic import SyntheticSet, decode, encode
from fedcl_distill.training import fit
from simulations.flower.app import central_test_data, client_parts
from simulations.settings import FederatedSettings
from strategies.federated import ByteLedger, DistilRequest, FederatedResult, RoundResult
from strategies.federated.answers import weights_of
from strategies.federated.grid import FIRST_NODE, Entry
from strategies.federated.learner import Learner
from strategies.federated.run import OnRound

Stage = tuple[ArrayRecord, SyntheticSet | None]
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


def _stages(settings: FederatedSettings, parts: Sequence[LabelledData], learner: Learner) -> Iterator[Stage]:
    yield weights_of(learner.fresh()), None
    yield from CEILINGS[settings.strategy](settings, parts, learner)


def _centralised(settings: FederatedSettings, parts: Sequence[LabelledData], learner: Learner) -> Iterator[Stage]:
    """FedAvg with a single client that holds everything: ``local_epochs`` a round, by the clients' train_config."""
    test = central_test_data(settings)
    request = settings.local.request(test, settings.seed, learner.architecture_text)
    data = request.with_normalisation(pooled(parts))
    network, train_config = learner.fresh(), request.train_config_for(data)
    for server_round in range(1, settings.rounds + 1):
        fit(network, data.inputs(), data.labels, train_config, seed=request.seed_for(server_round, 0))
        yield weights_of(network), None


def _pooled_distillation(
    settings: FederatedSettings, parts: Sequence[LabelledData], learner: Learner
) -> Iterator[Stage]:
    """Distil everything at once by the clients' method and budget, to as many samples as their union would hold."""
    if settings.rounds != 1:
        raise SettingsError(f"pooled-distillation has one round, {settings.rounds} were asked for")
    whole = pooled(parts)
    request = _for_all(settings.distillation.request(central_test_data(settings), settings.seed), len(parts)).fitted_to(
        whole
    )
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


CEILINGS: dict[str, Callable[[FederatedSettings, Sequence[LabelledData], Learner], Iterator[Stage]]] = {
    "centralised": _centralised,
    "pooled-distillation": _pooled_distillation,
}
"""By the name that ``FederatedSettings.strategy`` takes for them, though no Flower strategy has it."""
