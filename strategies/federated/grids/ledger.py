"""Every byte sent between server and nodes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal, NamedTuple

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
