"""The ClientApp: what a node does when it is asked to distil, or to train."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedcl_distill.data import LabelledData
from fedcl_distill.errors import SettingsError
from fedcl_distill.networks import DEFAULT_NETWORK_LIMITS, NetworkLimits
from fedcl_distill.privacy import PrivacyBudget
from strategies.federated.answers import METRICS, ClientReport
from strategies.federated.internals import PARTITION_ID_KEY
from strategies.federated.node import Task
from strategies.federated.secure.node import PRIVATE_EXCHANGES, SECURE_EXCHANGES
from strategies.federated.work import (
    Work,
    distil,
    distil_around,
    sum_features,
    sum_privately,
    train,
    train_and_distil,
    train_compressed,
    train_with_control,
)

LoadData = Callable[[Context], LabelledData]
Mod = Callable[[Message, Context, Callable[[Message, Context], Message]], Message]
LoadBudget = Callable[[Context], PrivacyBudget]


def make_client_app(
    load_data: LoadData,
    mods: Sequence[Mod] = (),
    *,
    load_budget: LoadBudget | None = None,
    network_limits: NetworkLimits = DEFAULT_NETWORK_LIMITS,
) -> ClientApp:
    """A ClientApp that answers every kind of request with the data that ``load_data`` finds for a node.

    ``load_data`` gets the node's context; its node configuration names the ``partition-id``. The node configuration
    may also name the ``device`` to compute on, as the run configuration may; "cpu" otherwise.

    ``mods`` are Flower's: they see every message on its way in and every answer on its way out.

    A node with a privacy budget, which ``load_budget`` finds as data are found, answers requests for private statistics
    alone: all others would tell what the budget is there to protect. Without one, such requests are answered as asked.

    Whatever a server asks for, no network beyond ``network_limits`` is built.

    An error on a node goes back as an error reply, as always in Flower.
    """

    def answer(work: Work, **settings: Any) -> _Answer:
        return _Answer(load_data, work, network_limits=network_limits, **settings)

    app = ClientApp(mods=list(mods))
    app.train("private")(answer(sum_privately, load_budget=load_budget, discreet=True))
    exchanges = PRIVATE_EXCHANGES if load_budget is not None else {**SECURE_EXCHANGES, **PRIVATE_EXCHANGES}
    for name, exchange in exchanges.items():
        app.train(name)(answer(exchange, load_budget=load_budget, discreet=True))
    if load_budget is not None:
        return app
    app.train()(answer(train))
    app.train("distil")(answer(distil))
    app.train("statistics")(answer(sum_features))
    app.train("surrogate")(answer(distil_around))
    app.train("scaffold")(answer(train_with_control))
    app.train("compressed")(answer(train_compressed))
    app.train("ensemble")(answer(train_and_distil, counts_classes=True))
    return app


@dataclass(frozen=True)
class _Answer:
    """Lets a node do one kind of work and adds the facts to what comes out.

    Attributes:
        load_data, work: whose, and which.
        counts_classes: whether the facts count classes.
        load_budget: finds the node's privacy budget.
        discreet: whether the facts tell neither size nor seconds.
        network_limits: how large a network may be asked for.
    """

    load_data: LoadData
    work: Work
    counts_classes: bool = False
    load_budget: LoadBudget | None = None
    discreet: bool = False
    network_limits: NetworkLimits = DEFAULT_NETWORK_LIMITS

    def __call__(self, message: Message, context: Context) -> Message:
        return respond(
            message,
            context,
            self.load_data,
            self.work,
            counts_classes=self.counts_classes,
            load_budget=self.load_budget,
            discreet=self.discreet,
            network_limits=self.network_limits,
        )


def respond(
    message: Message,
    context: Context,
    load_data: LoadData,
    work: Work,
    *,
    counts_classes: bool = False,
    load_budget: LoadBudget | None = None,
    discreet: bool = False,
    network_limits: NetworkLimits = DEFAULT_NETWORK_LIMITS,
) -> Message:
    """The reply with what ``work`` makes of the node's data, and the facts about them.

    Args:
        message: the request.
        context: of the node.
        load_data: gives the data to work on.
        work: does what is asked.
        counts_classes: whether the facts tell how many samples each class has.
        load_budget: finds the node's privacy budget.
        discreet: whether the facts tell neither size nor seconds.
        network_limits: how large a network may be asked for.
    """
    started = time.monotonic()
    data, partition = load_data(context), partition_of(context)
    budget = None if load_budget is None else load_budget(context)
    answer = work(Task(message.content, data, partition, device_of(context), context.state, budget, network_limits))
    counts = tuple(data.class_counts.tolist()) if counts_classes else ()
    size, seconds = (1, 0.0) if discreet else (len(data), time.monotonic() - started)
    answer[METRICS] = ClientReport(partition, size, seconds, counts).to_record()
    return Message(answer, reply_to=message)


def partition_of(context: Context) -> int:
    """The node's ``partition-id``.

    Raises:
        SettingsError: the node configuration names none.
    """
    partition = context.node_config.get(PARTITION_ID_KEY)
    if type(partition) is not int or partition < 0:
        raise SettingsError(f"node configuration needs {PARTITION_ID_KEY} ≥ 0, got {partition!r}")
    return partition


def device_of(context: Context) -> str:
    """Where the node computes."""
    return str(context.node_config.get("device", context.run_config.get("device", "cpu")))
