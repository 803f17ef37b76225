"""Synthetic sets from all nodes become one: checked, judged, united or merged, and weighted."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from flwr.app import Message, MetricRecord, RecordDict
from torch import Tensor

from fedcl_distill.engine import Distiller
from fedcl_distill.errors import SettingsError
from fedcl_distill.merging import MergeTree, WeightedSet, weighted_union
from fedcl_distill.parameterizations import Parameterization, Pixels, Shape
from fedcl_distill.robust import Judge, Verdict, capped
from fedcl_distill.synthetic import Expectation, Limits, SyntheticSet
from strategies.federated.answers import unpack_set
from strategies.federated.collector import Answer, ReplyCollector
from strategies.federated.distillation import DistilRequest
from strategies.federated.state import State, set_as_state, set_from_state

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
        merging: a new, empty tree for sets that shall not all be held; None keeps every sample.
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
