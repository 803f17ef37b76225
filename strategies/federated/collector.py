"""Where a strategy meets its nodes."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, TypeVar

from flwr.app import Message, Metadata, RecordDict
from flwr.serverapp import Grid

from fedcl_distill.errors import FedclDistillError, PayloadError, SettingsError
from strategies.federated.answers import ClientReport
from strategies.federated.internals import log

_MAX_REASON = 300  # characters: the reason may have been written by the node
_MAX_READ = 100_000  # characters from the end of what a node says
_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


@dataclass(frozen=True)
class Rejection:
    """One answer that was not used, or the part of one that a defence dropped.

    Attributes:
        server_round: of the question.
        node: Flower's node id.
        partition: which partition the node says it holds, None where it never said.
        reason: one line of at most 300 characters.
        label: the class whose samples were dropped, where the rest of the answer was used.
        samples: how many samples were dropped by a defence; None where the answer was never read as far.
    """

    server_round: int
    node: int
    partition: int | None
    reason: str
    label: int | None = None
    samples: int | None = None

    def __str__(self) -> str:
        partition = "" if self.partition is None else f" (partition {self.partition})"
        return f"node {self.node}{partition}: {self.reason}"

    @property
    def order(self) -> tuple[int, float, int]:
        """Sorts by round, partition (an unknown one last), node."""
        partition = float("inf") if self.partition is None else self.partition
        return self.server_round, partition, self.node

    def as_record(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def one_line(text: str) -> str:
    """The last line of ``text`` (where a traceback names its error), plain and clipped."""
    lines = [line.strip() for line in _ANSI.sub("", text[-_MAX_READ:]).splitlines() if line.strip()]
    line = "".join(c if c.isprintable() else "?" for c in lines[-1]) if lines else "no reason given"
    return line if len(line) <= _MAX_REASON else f"{line[:_MAX_REASON]}…"


T = TypeVar("T")
_POLL_SECONDS = 0.5
_MAX_NAMED = 5  # rejections in an error message


class QuorumError(FedclDistillError, RuntimeError):
    """Too few nodes, or too few of their answers could be used, to go on."""


@dataclass(frozen=True)
class Answer(Generic[T]):
    """One answer that was used: who gave it, what it says about itself, what was read from it, and the reply."""

    node: int
    facts: ClientReport
    value: T
    message: Message


@dataclass
class ReplyCollector:
    """Receives the nodes of one run.

    Attributes:
        nodes: how many shall take part.
        quorum: fraction of ``nodes``, in [0, 1], whose answers are needed each round; one is always needed.
        wait_seconds: how long to wait for ``nodes`` nodes to register before a round starts with those that did.
        min_examples: the fewest real samples that an answer may be about.
        rejections: answers, or parts of them, that were not used, so far.
        facts: of the answers that were used, by round, in the order of partitions.
        partitions: which partition a node said it holds.
        used: the last round in which an answer of a node was used.

    Raises:
        SettingsError: on construction, if a number is out of range.
    """

    nodes: int
    quorum: float = 0.0
    wait_seconds: float = 60.0
    min_examples: int = 1
    rejections: list[Rejection] = field(default_factory=list)
    facts: dict[int, list[ClientReport]] = field(default_factory=dict)
    partitions: dict[int, int] = field(default_factory=dict)
    used: dict[int, int] = field(default_factory=dict)
    _asked: list[Metadata] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.nodes < 1 or not 0 <= self.quorum <= 1 or self.wait_seconds < 0:
            raise SettingsError(
                f"expected nodes ≥ 1, quorum in [0, 1] and wait_seconds ≥ 0, "
                f"got {self.nodes}, {self.quorum} and {self.wait_seconds}"
            )

    @property
    def needed(self) -> int:
        """The fewest answers of a round."""
        return max(1, math.ceil(self.quorum * self.nodes - 1e-9))  # 0.7 of 10 is 7.000000000000001 in floats

    def wait_for_nodes(self, grid: Grid) -> list[int]:
        """Ids of all registered nodes, ascending, once there are ``nodes`` of them or the time is up.

        Flower would ask those that happen to be there first: a method with a single round would lose the others.

        Raises:
            QuorumError: too few registered in time.
        """
        deadline = time.monotonic() + self.wait_seconds
        while len(ids := sorted(grid.get_node_ids())) < self.nodes and time.monotonic() < deadline:
            log.info("waiting for nodes: %d of %d are here", len(ids), self.nodes)
            time.sleep(min(_POLL_SECONDS, self.wait_seconds))
        if len(ids) < self.needed:
            raise QuorumError(f"{len(ids)} nodes registered within {self.wait_seconds:g} s, {self.needed} are needed")
        if len(ids) < self.nodes:
            log.warning("going on with %d nodes, %d were expected", len(ids), self.nodes)
        return ids

    def ask(self, grid: Grid, content: RecordDict, kind: str) -> list[Message]:
        """One message of this content and ``kind`` to every registered node, whose silence is noticed, too.

        Raises:
            QuorumError: too few registered in time.
        """
        messages = [Message(content, node, kind) for node in self.wait_for_nodes(grid)]
        self.expect_answers(messages)
        return messages

    def expect_answers(self, messages: Sequence[Message]) -> None:
        """Remember who is asked, so that silence is noticed too."""
        self._asked = [message.metadata for message in messages]

    def iter_replies(
        self, server_round: int, replies: Iterable[Message], read: Callable[[RecordDict], T]
    ) -> list[Answer[T]]:
        """All that :meth:`listen` gives, in the order of partitions, then nodes; QuorumError as there."""
        answers = list(self.listen(server_round, replies, read))
        return sorted(answers, key=lambda answer: (answer.facts.partition, answer.node))

    def listen(
        self, server_round: int, replies: Iterable[Message], read: Callable[[RecordDict], T]
    ) -> Iterator[Answer[T]]:
        """What ``read`` makes of each reply, one by one: none is held here once the next is asked for.

        Replies that are all there (a list) are read in the order of partitions, others as they come.

        A reply that carries an error, that answers nothing that was asked, or that ``read`` refuses with any
        exception, is logged and counted among the rejections, and so is the silence of a node that was asked: one bad
        node never stops a round.

        Raises:
            QuorumError: at the end, if fewer than ``needed`` could be used; the message names reasons.
        """
        silent = {metadata.message_id: metadata.dst_node_id for metadata in self._asked}
        heard: list[tuple[ClientReport, int]] = []
        for reply in sorted(replies, key=self._claimed_partition) if isinstance(replies, list) else replies:
            node = silent.pop(reply.metadata.reply_to_message_id, None)
            if node is None:
                self._reject(server_round, reply.metadata.src_node_id, "answers nothing that was asked")
            elif answer := self._read(server_round, node, reply, read):
                heard.append((answer.facts, node))
                yield answer
        for node in silent.values():
            self._reject(server_round, node, "no reply")
        heard.sort(key=lambda one: (one[0].partition, one[1]))
        self.facts[server_round] = [facts for facts, _ in heard]
        self.used.update((node, server_round) for _, node in heard)
        self.require_quorum(server_round, len(heard))

    def _read(self, server_round: int, node: int, reply: Message, read: Callable[[RecordDict], T]) -> Answer[T] | None:
        try:
            if reply.has_error():
                raise PayloadError(reply.error.reason or f"error {reply.error.code}")
            facts = ClientReport.of(reply.content, self.min_examples)
            self.partitions[node] = facts.partition
            return Answer(node, facts, read(reply.content), reply)
        except PayloadError as error:
            self._reject(server_round, node, str(error))
        except Exception as error:  # whatever a node sends, it must not end the run of all others
            self._reject(server_round, node, f"{type(error).__name__}: {error}")
        return None

    def reject(
        self, server_round: int, answer: Answer[T], reason: str, *, label: int | None = None, samples: int | None = None
    ) -> None:
        """Log and count an answer that was heard but is not used, or the samples of one class of it."""
        if label is None:
            self.facts[server_round].remove(answer.facts)
        self._reject(server_round, answer.node, reason, label, samples)

    def _reject(
        self, server_round: int, node: int, reason: str, label: int | None = None, samples: int | None = None
    ) -> None:
        rejection = Rejection(server_round, node, self.partitions.get(node), one_line(reason), label, samples)
        self.rejections.append(rejection)
        log.warning("round %d, rejected %s", server_round, rejection)

    def require_quorum(self, server_round: int, count: int) -> None:
        """Return if ``count`` answers are enough to go on; QuorumError, which names reasons, otherwise."""
        if count >= self.needed:
            return
        reasons = [str(one) for one in self.rejections if one.server_round == server_round]
        named = "; ".join(reasons[:_MAX_NAMED]) + ("; …" if len(reasons) > _MAX_NAMED else "")
        raise QuorumError(
            f"round {server_round}: {count} valid answers, {self.needed} are needed; rejected: {named or 'none'}"
        )

    def _claimed_partition(self, reply: Message) -> tuple[float, int]:
        """Sorts by the partition that a reply names, then by node; one that names none comes last."""
        node = reply.metadata.src_node_id
        try:
            return ClientReport.of(reply.content, self.min_examples).partition, node
        except Exception:  # an error reply, or a hostile one: it is turned away where it is read
            return math.inf, node
