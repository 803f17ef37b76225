"""Small federations that tests build: tiny data, few nodes, and nodes that misbehave on purpose."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from builders import blobs
from fedcl_distill.data import LabelledData, partition
from simulations.settings import FederatedSettings
from strategies.federated import FederatedResult, InProcessGrid, make_client_app, run_server
from strategies.federated.client import partition_of

Tamper = Callable[[Message], Message]

CLASSES = 3
QUICK: dict[str, Any] = {
    "method": "random",
    "images_per_class": 2,
    "clients": 4,
    "partition": "iid",
    "architecture": "mlp:width=8",
    "wait_seconds": 0.0,
}


def quick(**changes: Any) -> FederatedSettings:
    """Settings of a run that takes a moment."""
    return FederatedSettings(**{**QUICK, **changes})


def data_and_test(shape: tuple[int, ...] = (6,)) -> tuple[LabelledData, LabelledData]:
    train = blobs(shape, classes=CLASSES, per_class=40)
    test = blobs(
        shape,
        classes=CLASSES,
        per_class=10,
        seed=1,
        normalisation=train.normalisation,
        value_range=train.value_range if len(shape) == 3 else (-2.0, 3.0),
    )
    if len(shape) == 1:
        train = blobs(shape, classes=CLASSES, per_class=40, value_range=(-2.0, 3.0))
    return train, test


def honest_app(settings: FederatedSettings, train: LabelledData) -> ClientApp:
    parts = partition(train, settings.partition, settings.clients, seed=settings.seed)
    return make_client_app(lambda context: parts[partition_of(context)])


def tampered(app: ClientApp, tampers: Mapping[int, Tamper]) -> ClientApp:
    """``app``, but what the partitions in ``tampers`` reply is changed on its way."""

    def call(message: Message, context: Context) -> Message:
        reply = app(message, context)
        tamper = tampers.get(partition_of(context))
        return reply if tamper is None else tamper(reply)

    return call  # type: ignore[return-value]


def serve(nodes: InProcessGrid, settings: FederatedSettings, test: LabelledData, **more: Any) -> FederatedResult:
    """The server's side of a run."""
    return run_server(nodes, settings.build_strategy(), test=test, **settings.options, **more)


def run(
    settings: FederatedSettings,
    tampers: Mapping[int, Tamper] | None = None,
    shape: tuple[int, ...] = (6,),
    **grid: Any,
) -> FederatedResult:
    """A whole run in process."""
    train, test = data_and_test(shape)
    app = tampered(honest_app(settings, train), tampers or {})
    with InProcessGrid(app, settings.clients, settings.to_run_config(), **grid) as nodes:
        return serve(nodes, settings, test)
