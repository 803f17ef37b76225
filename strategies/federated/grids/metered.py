"""A grid that counts what goes through it, for any strategy: ours, Flower's own, or a user's."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

from flwr.app import ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from strategies.federated.grids.internals import Run, sent_bytes
from strategies.federated.grids.ledger import ByteLedger, Direction, Entry

_ROUND_KEY = "server-round"  # every Flower strategy puts it into the configuration it sends


class MeteredGrid(Grid):
    """Passes everything on to ``grid`` and writes each message into a ledger.

    Args:
        grid: what really sends.
        ledger: where entries go; a new one by default.

    Attributes:
        ledger: the entries so far.
        returned_at: ``time.monotonic()`` of the last reply, by round: what happens after is the server's own work.
        held: seconds between replies that the server took for itself, by round.
    """

    def __init__(self, grid: Grid, ledger: ByteLedger | None = None) -> None:
        self._grid = grid
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
