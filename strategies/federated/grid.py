"""How nodes are reached, and what that costs: a grid in this process, and one that counts bytes."""

from __future__ import annotations

import itertools
import secrets
import time
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from types import TracebackType
from typing import Literal, NamedTuple

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

from fedcl_distill.data import DataSpec
from fedcl_distill.errors import SettingsError
from strategies.federated.answers import State, arrays_of, tensors_of
from strategies.federated.internals import (
    NUM_PARTITIONS_KEY,
    PARTITION_ID_KEY,
    SUPERLINK_NODE_ID,
    ErrorCode,
    Run,
    TaskIdentity,
    get_all_nested_objects,
)
from strategies.federated.requests import SPEC, spec_record

Direction = Literal["up", "down"]


class Entry(NamedTuple):
    """One message: its round, node, direction (down to the node or up to the server), Flower message type and bytes.

    ``sent`` is the whole content as Flower sends it; ``arrays`` the part of it that is array data. An error counts
    with its reason. Message ids, transport headers, encryption and retries are not in it.
    """

    server_round: int
    node: int
    direction: Direction
    kind: str
    sent: int
    arrays: int


@dataclass
class ByteLedger:
    """The entries of a run, in the order in which the server sent and received.

    Attributes:
        entries: one a message.
        partitions: which partition a node says it holds, for those that said so.
    """

    entries: list[Entry] = field(default_factory=list)
    partitions: dict[int, int] = field(default_factory=dict)

    def total(self, direction: Direction, *, up_to_round: int | None = None) -> int:
        """Bytes sent in one direction, in all rounds or in those up to and with ``up_to_round``."""
        return sum(
            entry.sent
            for entry in self.entries
            if entry.direction == direction and (up_to_round is None or entry.server_round <= up_to_round)
        )

    def by_node(self, direction: Direction) -> dict[int, int]:
        """Bytes sent in one direction by node id, in the order of partitions; nodes without partition come last."""
        sums: dict[int, int] = {}
        for entry in self.entries:
            sums[entry.node] = sums.get(entry.node, 0) + (entry.sent if entry.direction == direction else 0)
        return {node: sums[node] for node in self._ordered(sums)}

    def as_record(self) -> list[dict[str, int | None]]:
        """One JSON object a client: partition (None if unknown), bytes up, bytes down.

        Nodes of one partition count as one client: a client that comes back, say to a server that was started anew,
        gets another node id.
        """
        up, down = self.by_node("up"), self.by_node("down")
        clients = [list(nodes) for _, nodes in groupby(up, self._client_of)]  # by_node is in the order of partitions
        return [
            {
                "partition": self.partitions.get(nodes[0]),
                "up": sum(up[node] for node in nodes),
                "down": sum(down[node] for node in nodes),
            }
            for nodes in clients
        ]

    def _client_of(self, node: int) -> tuple[str, int]:
        return ("partition", self.partitions[node]) if node in self.partitions else ("node", node)

    def _ordered(self, nodes: Iterable[int]) -> list[int]:
        last = max(self.partitions.values(), default=0) + 1
        return sorted(nodes, key=lambda node: (self.partitions.get(node, last), node))


_ROUND_KEY = "server-round"  # every Flower strategy puts it into the configuration it sends


class MeteredGrid(Grid):
    """Passes everything on to ``grid`` and writes each message into a ledger.

    Args:
        grid: what really sends.
        ledger: where entries go; a new one by default.
        spec: what data look like in the run, which every message that goes down says; None adds nothing.

    Attributes:
        ledger: the entries so far.
        returned_at: ``time.monotonic()`` of the last reply, by round: what happens after is the server's own work.
        held: seconds between replies that the server took for itself, by round.
    """

    def __init__(self, grid: Grid, ledger: ByteLedger | None = None, spec: DataSpec | None = None) -> None:
        self._grid = grid
        self._spec = None if spec is None else spec_record(spec)
        self.ledger = ByteLedger() if ledger is None else ledger
        self.returned_at: dict[int, float] = {}
        self.held: dict[int, float] = {}
        self._round = 0
        self._sent_in: dict[str, int] = {}  # round by id of the message

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        sent = list(messages)
        if not sent:
            return []
        self._note_sent(sent)
        replies = self._grid.send_and_receive(sent, timeout=timeout)
        sent_in = dict.fromkeys((message.metadata.message_id for message in sent), self._round)
        noted = self._noting(replies, sent_in, self._round)
        return list(noted) if isinstance(replies, list) else noted

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        sent = list(messages)
        self._note_sent(sent)
        ids = list(self._grid.push_messages(sent))
        self._sent_in.update(dict.fromkeys(ids, self._round))
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return list(self._noting(self._grid.pull_messages(message_ids), self._sent_in, self._round))

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        return self._grid.create_message(content, message_type, dst_node_id, group_id, ttl)

    def get_node_ids(self) -> Iterable[int]:
        return self._grid.get_node_ids()

    @property
    def run(self) -> Run:
        return self._grid.run

    def set_run(self, run: Run) -> None:
        self._grid.set_run(run)

    def _note_sent(self, messages: list[Message]) -> None:
        sizes: dict[int, tuple[int, int]] = {}  # strategies send one content to many nodes: measure it once
        for message in messages:
            content = message.content
            if self._spec is not None:
                content[SPEC] = self._spec
            self._round = _round_of(content, self._round)
            if id(content) not in sizes:
                sizes[id(content)] = sent_bytes(content)
            self._enter("down", self._round, message.metadata.dst_node_id, message, sizes[id(content)])

    def _noting(self, replies: Iterable[Message], sent_in: dict[str, int], otherwise: int) -> Iterator[Message]:
        """``replies`` as they come, each written down."""
        for reply in replies:
            server_round = sent_in.get(reply.metadata.reply_to_message_id, otherwise)
            self._enter("up", server_round, reply.metadata.src_node_id, reply, _reply_bytes(reply))
            self.returned_at[server_round] = given = time.monotonic()
            yield reply
            self.held[server_round] = self.held.get(server_round, 0.0) + time.monotonic() - given

    def _enter(
        self, direction: Direction, server_round: int, node: int, message: Message, size: tuple[int, int]
    ) -> None:
        entry = Entry(server_round, node, direction, message.metadata.message_type, *size)
        self.ledger.entries.append(entry)


def _round_of(content: RecordDict, otherwise: int) -> int:
    for record in content.values():
        if isinstance(record, ConfigRecord) and isinstance(record.get(_ROUND_KEY), int):
            return int(str(record[_ROUND_KEY]))
    return otherwise


def _reply_bytes(reply: Message) -> tuple[int, int]:
    if reply.has_error():
        return len((reply.error.reason or "").encode()), 0
    return sent_bytes(reply.content)


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


@contextmanager
def run_identity(run_id: int) -> Iterator[None]:
    """Let ``Message(...)`` be called as on a server inside run ``run_id``; Flower's processes are born with that."""
    names = ("_task_id", "_run_id", "_node_id")
    before = {name: getattr(TaskIdentity, name) for name in names}
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = run_id, run_id, SUPERLINK_NODE_ID
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(TaskIdentity, name, value)


def name_message(message: Message, message_id: str) -> None:
    """Give ``message`` the id that a SuperLink would give it."""
    message.metadata.__dict__["_message_id"] = message_id


def sent_bytes(content: RecordDict) -> tuple[int, int]:
    """What Flower sends for ``content``: bytes of all its objects, and the part of them that is array data.

    A SuperLink and its nodes exchange content as a tree of objects (the record dictionary, its records, their arrays,
    pieces of array data), each named by the hash of its bytes, an object that occurs twice only once. Array data are
    ``.npy`` files: 128 bytes of header for an array, then its values.
    """
    total = sum(len(one.deflate()) for one in get_all_nested_objects(content).values())
    records = [record for record in content.values() if isinstance(record, ArrayRecord)]
    return total, sum(len(array.data) for record in records for array in record.values())
