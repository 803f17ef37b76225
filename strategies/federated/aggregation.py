"""How a server hears its nodes, and makes one synthetic set of theirs: checked, judged, united or merged, weighted."""

from __future__ import annotations

import itertools
import math
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Generic, TypeVar

import torch
from flwr.app import Message, Metadata, MetricRecord, RecordDict
from flwr.serverapp import Grid
from torch import Tensor

from fedcl_distill.engine import Distiller
from fedcl_distill.errors import FedclDistillError, PayloadError, SettingsError
from fedcl_distill.merging import MergeTree, WeightedSet, weighted_union
from fedcl_distill.parameterizations import Parameterization, Pixels, Shape
from fedcl_distill.robust import Judge, Verdict, capped
from fedcl_distill.synthetic import Expectation, Limits, SyntheticSet
from strategies.federated.answers import ClientReport, State, set_as_state, set_from_state, unpack_set
from strategies.federated.distillation import DistilRequest
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
        nodes: how many are to take part.
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
        for (facts, node), (next_facts, next_node) in itertools.pairwise(heard):
            if facts.partition == next_facts.partition:
                log.warning(
                    "round %d: nodes %d and %d both say that they hold partition %d; if they hold the same data, "
                    "these count twice",
                    *(server_round, node, next_node, facts.partition),
                )
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
        except Exception:  # an error reply, or a hostile one: it is rejected where it is read
            return math.inf, node


_SLACK = 2  # a node whose classes hold fewer samples than were asked for may share storage out in another way


@dataclass(frozen=True)
class AnswerLimits:
    """What a set may hold.

    Attributes:
        samples: decoded, of all classes together; None for no bound but that on bytes.
        samples_per_class: decoded, of any class; None where storage is shared, or labels are soft.
        payload_bytes: encoded, at 32 bits a value.
    """

    samples: int | None
    samples_per_class: int | None
    payload_bytes: int

    @property
    def limits(self) -> Limits:
        """What a decoder may read."""
        if self.samples is None:
            return Limits(max_payload_bytes=self.payload_bytes)
        return Limits(max_payload_bytes=self.payload_bytes, max_samples=self.samples)


def room_for(request: DistilRequest, distiller: Distiller, sample_shape: Shape, classes: int) -> AnswerLimits:
    """The most that a node of any class counts may honestly answer to ``request``, which ``distiller`` fulfils.

    Raises:
        SettingsError: the distiller cannot store samples of this shape.
    """
    if request.byte_budget is not None:
        return AnswerLimits(None, None, request.byte_budget)
    how, ipc = distiller.parameterization, request.images_per_class
    samples = _max_decoded(how, ipc, classes, sample_shape)
    stored = sum(math.prod(shape) for shape in how.shapes([ipc] * classes, sample_shape).values())
    values = stored + samples * classes  # labels may be soft
    plain = isinstance(how, Pixels) and not distiller.labels.soft
    return AnswerLimits(samples, ipc if plain else None, 4 * values + Limits.max_metadata_bytes)


def _max_decoded(how: Parameterization, ipc: int, classes: int, sample_shape: Shape) -> int:
    """Decoded samples of a node that holds 1, 2, … or all classes: the largest of these."""
    if isinstance(how, Pixels):
        return ipc * classes
    most = []
    for present in range(1, classes + 1):
        try:
            most.append(sum(how.decoded_counts([ipc] * present + [0] * (classes - present), sample_shape)))
        except SettingsError:  # too few samples for this way to store them; the node will say so
            if present == classes:
                raise
    return _SLACK * max(most)


@dataclass(frozen=True)
class Defence:
    """A judge of the sets of one round.

    Attributes:
        judge: says which samples are used.
        seed: of the run.
        device: where to compute.
    """

    judge: Judge
    seed: int
    device: str = "cpu"

    def sift(
        self, collector: ReplyCollector, server_round: int, answers: list[Answer[SyntheticSet]]
    ) -> list[Answer[SyntheticSet]]:
        """The answers that are left, with what is left of their sets; the rest is counted among the rejections.

        Raises:
            QuorumError: too few answers are left.
        """
        verdicts = self.judge.judge([answer.value for answer in answers], seed=self.seed, device=self.device)
        left = []
        for answer, verdict in zip(answers, verdicts, strict=True):
            for drop in verdict.drops:
                collector.reject(server_round, answer, drop.reason, label=drop.label, samples=drop.samples)
            if verdict.kept.any():
                left.append(_what_is_kept(answer, verdict))
        collector.require_quorum(server_round, len(left))
        return left


def capped_by_class(weights: Tensor, labels: Tensor, owners: Tensor, share: float) -> Tensor:
    """float64 (n,): ``weights`` of samples, where no owner has more than ``share`` of a class's weight.

    Args:
        weights: float (n,), positive.
        labels, owners: int64 (n,): the class of each sample, and whose it is.
        share: in (0, 1]. A class of so few owners that all of them exceed it is shared among them evenly.
    """
    result = weights.double().clone()
    for label in range(int(labels.max()) + 1):
        rows = torch.nonzero(labels == label).flatten()
        held = torch.bincount(owners[rows], weights=result[rows])
        factors = capped(held, share) / held.clamp(min=torch.finfo(held.dtype).tiny)
        result[rows] *= factors[owners[rows]]
    return result


def _what_is_kept(answer: Answer[SyntheticSet], verdict: Verdict) -> Answer[SyntheticSet]:
    if verdict.kept.all():
        return answer
    return replace(answer, value=answer.value.subset(torch.nonzero(verdict.kept).flatten()))


@dataclass(frozen=True)
class AggregatedSets:
    """What the answers of one round make together.

    Attributes:
        synthetic: the set to learn from.
        weights: float64 (n,): how much each of its samples counts; None for all alike.
        partitions: whose sets are in it, in order.
        clients_per_class: how many of them sent a sample of each class; 0 is a class that nobody covers.
    """

    synthetic: SyntheticSet
    weights: Tensor | None
    partitions: tuple[int, ...]
    clients_per_class: tuple[int, ...]

    @property
    def metrics(self) -> MetricRecord:
        """What Flower logs of a round."""
        return MetricRecord({"sets": len(self.partitions), "samples": len(self.synthetic)})

    def state(self) -> State:
        """All of it, for a checkpoint."""
        return {
            "synthetic": set_as_state(self.synthetic),
            "weights": self.weights,
            "partitions": list(self.partitions),
            "clients_per_class": list(self.clients_per_class),
        }

    @classmethod
    def of_state(cls, state: State) -> AggregatedSets:
        """The inverse of :meth:`state`."""
        synthetic = set_from_state(state["synthetic"])
        assert synthetic is not None
        return cls(synthetic, state["weights"], tuple(state["partitions"]), tuple(state["clients_per_class"]))


@dataclass(frozen=True)
class SetAggregator:
    """How the sets of a round are read and put together.

    Attributes:
        expectation: what a set must look like.
        limits: of a payload.
        size_exponent: a client's samples count together as much as the number of its real samples to this power: 1 in
            proportion to its size, 0 as much as it sent samples. The number is what the client says.
        merging: a new, empty tree for sets that are not all held at once; None keeps every sample.
        defence: judges the sets, all of which it must hold at once; None believes every valid one.
        client_share: the most, in (0, 1], that one client's samples may weigh of a class; 1 for no bound.
        disjoint: whether no real record is at two clients; privacy guarantees add up otherwise.
    """

    expectation: Expectation
    limits: Limits
    size_exponent: float = 0.0
    merging: MergeTree | None = None
    defence: Defence | None = None
    client_share: float = 1.0
    disjoint: bool = False

    def gather(self, collector: ReplyCollector, server_round: int, replies: Iterable[Message]) -> AggregatedSets:
        """One set of all answers that are valid and believed, in the order of partitions.

        With merging, each is dropped once it is in, unless a defence or a bound needs to see all of them first.

        Raises:
            QuorumError: too few answers could be used.
        """
        if self.merging is None or self.defence is not None or self.client_share < 1:
            answers = collector.iter_replies(server_round, replies, self.read)
            if self.defence is not None:
                answers = self.defence.sift(collector, server_round, answers)
            if self.merging is None:
                return self.unite(answers)
            return self._merge(zip(answers, self._weigh(answers), strict=True))
        heard = collector.listen(server_round, replies, self.read)
        return self._merge((answer, self._weighted(answer)) for answer in heard)

    def unite(self, answers: list[Answer[SyntheticSet]]) -> AggregatedSets:
        """All samples of ``answers``, at least one, in their order."""
        whole = weighted_union(self._weigh(answers), disjoint=self.disjoint)
        present = torch.stack([answer.value.class_counts > 0 for answer in answers]).sum(dim=0)
        return AggregatedSets(
            whole.synthetic,
            whole.weights if self.size_exponent or self.client_share < 1 else None,
            tuple(answer.facts.partition for answer in answers),
            tuple(present.tolist()),
        )

    def _merge(self, weighted: Iterable[tuple[Answer[SyntheticSet], WeightedSet]]) -> AggregatedSets:
        assert self.merging is not None
        partitions, present = list[int](), torch.zeros(len(self.expectation.spec.class_names), dtype=torch.int64)
        for answer, one in weighted:
            self.merging.add(one)
            partitions.append(answer.facts.partition)
            present += answer.value.class_counts > 0
        merged = self.merging.result()
        return AggregatedSets(merged.synthetic, merged.weights, tuple(partitions), tuple(present.tolist()))

    def _weigh(self, answers: list[Answer[SyntheticSet]]) -> list[WeightedSet]:
        """Every answer's set, none of them counting for more of a class than it may."""
        sets = [self._weighted(answer) for answer in answers]
        if self.client_share == 1:
            return sets
        sizes = [len(one.synthetic) for one in sets]
        bounded = capped_by_class(
            torch.cat([one.weights for one in sets]),
            torch.cat([one.synthetic.hard_labels for one in sets]),
            torch.repeat_interleave(torch.arange(len(sets)), torch.tensor(sizes)),
            self.client_share,
        )
        return [replace(one, weights=own) for one, own in zip(sets, torch.split(bounded, sizes), strict=True)]

    def _weighted(self, answer: Answer[SyntheticSet]) -> WeightedSet:
        if self.size_exponent == 0:
            return WeightedSet.standing_for(answer.value, len(answer.value))
        return WeightedSet.standing_for(answer.value, answer.facts.examples**self.size_exponent)

    def read(self, content: RecordDict) -> SyntheticSet:
        """The set in an answer; PayloadError if it is not as expected."""
        return unpack_set(content, self.limits, self.expectation)
