"""A grid without processes: it calls the real ClientApp, node by node. The fast default for tests and sweeps."""

from __future__ import annotations

import itertools
import secrets
import traceback
from collections.abc import Callable, Collection, Iterable
from contextlib import ExitStack
from types import TracebackType

from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Error,
    Message,
    MetricRecord,
    RecordDict,
    UserConfig,
)
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from fedcl_distill.errors import SettingsError
from strategies.federated.grids.internals import (
    NUM_PARTITIONS_KEY,
    PARTITION_ID_KEY,
    ErrorCode,
    Run,
    name_message,
    run_identity,
)
from strategies.federated.server.state import State, arrays_of, tensors_of

FIRST_NODE = 1000
"""Node id of partition 0; partition 1 has the next one, and so on."""


class InProcessGrid(Grid):
    """Nodes ``FIRST_NODE``, … each holding the partition 0, …; used in a ``with`` block, as a run of its own.

    Messages are copied on their way, so that neither side sees what the other does to its records. A node keeps its
    ``Context.state`` over the rounds; one that raises answers with an error and loses what it did to the state, as
    under Flower's other engines. Replies come in the order of the messages.

    The nodes end with the server, so that a server's checkpoint holds what they keep (:meth:`node_state`).

    Args:
        client_app: what every node runs.
        nodes: how many.
        run_config: the run's configuration, as nodes see it.
        node_config: added to each node's ``partition-id`` and ``num-partitions``.
        unavailable: partitions whose node is registered but dead: it answers "node unavailable".
        on_reply: called with the number of replies so far and of messages, after each node's work.
    """

    def __init__(
        self,
        client_app: ClientApp,
        nodes: int,
        run_config: UserConfig | None = None,
        *,
        node_config: UserConfig | None = None,
        unavailable: Collection[int] = (),
        on_reply: Callable[[int, int], None] | None = None,
    ) -> None:
        self._client_app = client_app
        self._unavailable = {FIRST_NODE + partition for partition in unavailable}
        self._on_reply = on_reply
        run_id = secrets.randbits(62)  # nodes' states are those of one run: a checkpoint must know it from others
        self._run = Run.create_empty(run_id)
        self._ids = itertools.count(1)
        self._replies: dict[str, Message] = {}
        self._entered = ExitStack()
        self._contexts = {
            FIRST_NODE + partition: Context(
                run_id=run_id,
                node_id=FIRST_NODE + partition,
                node_config={**(node_config or {}), PARTITION_ID_KEY: partition, NUM_PARTITIONS_KEY: nodes},
                state=RecordDict(),
                run_config=dict(run_config or {}),
            )
            for partition in range(nodes)
        }

    def __enter__(self) -> InProcessGrid:
        self._entered.enter_context(run_identity(self._run.run_id))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered.close()

    def get_node_ids(self) -> Iterable[int]:
        return list(self._contexts)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Replies to ``messages``, one by one: a node works when its reply is asked for, and none is kept.

        A node works for as long as it takes, whatever ``timeout`` says.
        """
        sent = self._named(messages)
        return (self._reported(message, done, len(sent)) for done, message in enumerate(sent, start=1))

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Let the nodes work; their replies wait to be pulled."""
        sent = self._named(messages)
        for done, message in enumerate(sent, start=1):
            self._replies[message.metadata.message_id] = self._reported(message, done, len(sent))
        return [message.metadata.message_id for message in sent]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [self._replies.pop(one) for one in message_ids if one in self._replies]

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    @property
    def run(self) -> Run:
        return self._run

    def set_run(self, run: Run) -> None:
        self._run = run

    def node_state(self) -> State:
        """The arrays that nodes keep from one round to the next; node ids are the same in any run."""
        return {
            str(node): {name: tensors_of(kept) for name, kept in context.state.items() if isinstance(kept, ArrayRecord)}
            for node, context in self._contexts.items()
        }

    def restore_nodes(self, state: State) -> None:
        """Let nodes go on from what :meth:`node_state` gave, also of another grid with as many nodes."""
        for node, context in self._contexts.items():
            context.state = RecordDict({name: arrays_of(kept) for name, kept in state[str(node)].items()})

    def _named(self, messages: Iterable[Message]) -> list[Message]:
        sent = list(messages)
        for message in sent:
            if message.metadata.dst_node_id not in self._contexts:
                raise SettingsError(f"there is no node {message.metadata.dst_node_id}")
            name_message(message, f"message-{next(self._ids)}")
        return sent

    def _reported(self, message: Message, done: int, asked: int) -> Message:
        reply = self._answer(message)
        if self._on_reply is not None:
            self._on_reply(done, asked)
        return reply

    def _answer(self, message: Message) -> Message:
        context = self._contexts[message.metadata.dst_node_id]
        if context.node_id in self._unavailable:
            return Message(Error(ErrorCode.NODE_UNAVAILABLE, "Node Unavailable"), reply_to=message)
        working = Context(
            context.run_id,
            context.node_id,
            dict(context.node_config),
            _copied(context.state),
            dict(context.run_config),
        )
        try:
            reply = self._client_app(_delivered(message), working)
        except Exception as error:  # as Flower does: the server learns of it from the reply
            reason = "".join(traceback.format_exception(error))
            return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, reason), reply_to=message)
        context.state = working.state
        return _delivered(reply)


def _delivered(message: Message) -> Message:
    """What arrives: the same envelope, and a copy of the content."""
    if message.has_error():
        return message
    return Message(metadata=message.metadata, content=_copied(message.content))  # type: ignore[call-overload,no-any-return]


def _copied(content: RecordDict) -> RecordDict:
    copies: dict[str, ArrayRecord | MetricRecord | ConfigRecord] = {}
    for key, record in content.items():
        if isinstance(record, ArrayRecord):
            arrays = {name: Array(a.dtype, tuple(a.shape), a.stype, a.data) for name, a in record.items()}
            copies[key] = ArrayRecord(arrays)
        elif isinstance(record, MetricRecord):
            copies[key] = MetricRecord(dict(record))
        else:
            copies[key] = ConfigRecord(dict(record))
    return RecordDict(copies)
