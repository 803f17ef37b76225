"""The ClientApp: what a node does when it is asked to distil, to train, to sum."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedcl_distill.data import LabelledData, as_labelled, conform
from fedcl_distill.engine import Distiller
from fedcl_distill.errors import SettingsError
from fedcl_distill.networks import DEFAULT_NETWORK_LIMITS, NetworkLimits
from fedcl_distill.privacy import PrivacyBudget
from fedcl_distill.statistics.noisy import errors_kept_back
from strategies.federated.agreement import DESCRIBE
from strategies.federated.answers import METRICS, ClientReport
from strategies.federated.internals import PARTITION_ID_KEY
from strategies.federated.requests import NodeIdentity, Task, spec_in
from strategies.federated.strategy import ClientStep, registered_steps

LoadData = Callable[[Context], Any]
"""From a node's context to its data: ``LabelledData``, or any map-style data set."""
Mod = Callable[[Message, Context, Callable[[Message, Context], Message]], Message]
LoadBudget = Callable[[Context], PrivacyBudget]
LoadIdentity = Callable[[Context], NodeIdentity]

_MAX_PARTITIONS = 2**31


def make_client_app(
    load_data: LoadData,
    mods: Sequence[Mod] = (),
    *,
    methods: Mapping[str, Distiller] | None = None,
    load_budget: LoadBudget | None = None,
    network_limits: NetworkLimits = DEFAULT_NETWORK_LIMITS,
    load_identity: LoadIdentity | None = None,
) -> ClientApp:
    """A ClientApp that answers for every registered strategy with the data that ``load_data`` finds for a node.

    An error on a node goes back as an error reply, as always in Flower.

    Args:
        load_data: gets the node's context and returns its data: :class:`~fedcl_distill.data.LabelledData`, or any
            map-style data set of samples and labels. Where the server says what data look like in its run, they are put
            into its terms (:func:`~fedcl_distill.data.conform`): labels by the names of classes, columns by theirs. The
            node configuration may name a ``partition-id`` (:func:`partition_of`) and the ``device`` to compute on, as
            the run configuration may; "cpu" otherwise.
        mods: Flower's: they see every message on its way in and every answer on its way out.
        methods: distillers of the node's own, by the names that a server asks for them by. Nothing that arrives in a
            message names code to import: a node builds what is registered with it, and uses what it is given here.
        load_budget: finds the node's privacy budget as data are found. A node with one answers requests for private
            statistics alone: all others would tell what the budget is there to protect. Without one, such requests are
            answered as asked.
        network_limits: no larger network is built, whatever a server asks for.
        load_identity: finds what the node signs with under secure aggregation, and the keys of the nodes that it knows
            beforehand. Without one, keys are those that the server passes on.

    Example:
        >>> app = make_client_app(lambda context: my_torch_dataset, methods={"mine": my_distiller})
    """
    app = ClientApp(mods=list(mods))
    node = Node(load_data, methods or {}, load_budget, network_limits, load_identity)
    for step in (DESCRIBE, *registered_steps()):
        if load_budget is None or step.protected:
            (app.train(step.action) if step.action else app.train())(_handler(node, step))
    return app


def add_distilling(
    app: ClientApp,
    load_data: LoadData,
    *,
    methods: Mapping[str, Distiller] | None = None,
    load_budget: LoadBudget | None = None,
    network_limits: NetworkLimits = DEFAULT_NETWORK_LIMITS,
    load_identity: LoadIdentity | None = None,
) -> ClientApp:
    """Let ``app``, which has handlers of its own, also answer for all strategies that ask by a named message.

    Messages of type ``train.distil``, ``train.statistics``, … are answered as :func:`make_client_app` says. What the
    app does with plain ``train``, ``evaluate`` and ``query`` messages is its own, so that its FedAvg goes on as before;
    ours needs an app by :func:`make_client_app`.

    Args:
        app: as its ``@app.train()`` and so on have made it; its mods see these messages, too.
        load_data, methods, load_budget, network_limits, load_identity: as for :func:`make_client_app`.

    Returns:
        ``app`` itself.

    Raises:
        SettingsError: the app has a handler for one of these messages.
    """
    node = Node(load_data, methods or {}, load_budget, network_limits, load_identity)
    for step in (DESCRIBE, *registered_steps()):
        if step.action and (load_budget is None or step.protected):
            try:
                app.train(step.action)(_handler(node, step))
            except ValueError as error:
                raise SettingsError(f"the app answers {step.kind!r} already: {error}") from error
    return app


@dataclass(frozen=True)
class Node:
    """What a node works with, whatever it is asked.

    Attributes:
        load_data: finds its data.
        methods: distillers of its own.
        load_budget: finds its privacy budget; None where it has none.
        network_limits: how large a network may be asked for.
        load_identity: finds what it signs with.
    """

    load_data: LoadData
    methods: Mapping[str, Distiller] = field(default_factory=dict)
    load_budget: LoadBudget | None = None
    network_limits: NetworkLimits = DEFAULT_NETWORK_LIMITS
    load_identity: LoadIdentity | None = None

    def task(self, message: Message, context: Context) -> Task:
        """What ``message`` asks of the node of ``context``, whose data are put into the terms of the run.

        Raises:
            DataError: they are of another kind than the run's; PrivacyError, which does not say why, where there is a
                privacy budget: names of classes and values are among what it protects.
        """
        return Task(
            message.content,
            self.data(message.content, context),
            partition_of(context),
            device_of(context),
            context.state,
            None if self.load_budget is None else self.load_budget(context),
            self.network_limits,
            self.methods,
            None if self.load_identity is None else self.load_identity(context),
        )

    def data(self, content: RecordDict, context: Context) -> LabelledData:
        """The node's data, as data of the run that a request with ``content`` belongs to."""
        own, spec = as_labelled(self.load_data(context)), spec_in(content)
        if spec is None:
            return own
        with nullcontext() if self.load_budget is None else errors_kept_back():
            return conform(own, spec)


def respond(message: Message, started: float, task: Task, step: ClientStep) -> Message:
    """The reply with what ``step`` makes of ``task``, and the report beside it; work began at ``started``."""
    answer = step.work(task)
    counts = tuple(task.data.class_counts.tolist()) if step.counts_classes else ()
    size, seconds = (1, 0.0) if step.discreet else (len(task.data), time.monotonic() - started)
    answer[METRICS] = ClientReport(task.partition, size, seconds, counts).to_record()
    return Message(answer, reply_to=message)


def _handler(node: Node, step: ClientStep) -> Callable[[Message, Context], Message]:
    def answer(message: Message, context: Context) -> Message:
        started = time.monotonic()
        return respond(message, started, node.task(message, context), step)

    return answer


def partition_of(context: Context) -> int:
    """The number by which a node is known: its ``partition-id``, or, where it has none, one made of its node id.

    Seeds and the order of answers follow from it. A node id is drawn anew whenever a node registers: whoever wants the
    same bits from every run gives nodes a ``partition-id``.

    Raises:
        SettingsError: the node configuration has a ``partition-id`` that is no whole number in [0, 2³¹).
    """
    given = context.node_config.get(PARTITION_ID_KEY)
    if given is None:
        return context.node_id % _MAX_PARTITIONS
    partition = int(given) if isinstance(given, str) and given.isdecimal() else given
    if type(partition) is not int or not 0 <= partition < _MAX_PARTITIONS:
        raise SettingsError(f"{PARTITION_ID_KEY} must be a whole number in [0, 2³¹), got {given!r}")
    return partition


def device_of(context: Context) -> str:
    """Where the node computes."""
    return str(context.node_config.get("device", context.run_config.get("device", "cpu")))
