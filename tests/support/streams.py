"""Small federations that live through streams."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from flwr.clientapp import ClientApp

from builders import blobs
from fedcl_distill.data import LabelledData, partition
from federations import Tamper, tampered
from simulations.settings import FederatedContinualSettings
from strategies.federated import InProcessGrid
from strategies.federated.client import partition_of
from strategies.federated_continual import FederatedContinualResult, make_client_app, run_server

CLASSES = 6
QUICK: dict[str, Any] = {
    "method": "random",
    "images_per_class": 3,
    "memory_images_per_class": 2,
    "clients": 3,
    "experiences": 3,
    "partition": "iid",
    "architecture": "mlp:width=32",
    "protocol": "brief",
    "wait_seconds": 0.0,
}


def quick(**changes: Any) -> FederatedContinualSettings:
    """Settings of a run that takes a moment."""
    return FederatedContinualSettings(**{**QUICK, **changes})


def train_and_test() -> tuple[LabelledData, LabelledData]:
    """Six classes of feature vectors that a small network tells apart."""
    both = blobs((8,), classes=CLASSES, per_class=40, value_range=(-2.0, 3.0))
    held_out = torch.arange(len(both)) % 4 == 0
    return both.subset((~held_out).nonzero().flatten()), both.subset(held_out.nonzero().flatten())


def app_of(settings: FederatedContinualSettings, train: LabelledData) -> ClientApp:
    """The client app of an honest federation that shares ``train``."""
    parts = partition(train, settings.partition, settings.clients, seed=settings.seed, min_size=0)
    return make_client_app(lambda context: settings.stream_of(parts[partition_of(context)], partition_of(context)))


def live(
    settings: FederatedContinualSettings,
    tampers: Mapping[int, Tamper] | None = None,
    *,
    app: ClientApp | None = None,
    grid: Mapping[str, Any] | None = None,
    **server: Any,
) -> FederatedContinualResult:
    """A whole run in process."""
    train, test = train_and_test()
    app = tampered(app or app_of(settings, train), tampers or {})
    with InProcessGrid(app, settings.clients, settings.to_run_config(), **(grid or {})) as nodes:
        return run_server(
            nodes,
            settings.build_strategy(),
            tests=settings.experiences_of(test),
            stages=settings.stages,
            **settings.options,
            **server,
        )
