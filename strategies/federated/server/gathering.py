"""Synthetic sets from all nodes become one: checked, united or merged, and weighted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from flwr.app import Message, MetricRecord, RecordDict
from torch import Tensor

from fedcl_distill.merging import MergeTree, WeightedSet, weighted_union
from fedcl_distill.synthetic import Expectation, Limits, SyntheticSet
from strategies.federated.messages.answers import unpack_set
from strategies.federated.server.collector import Answer, ReplyCollector
from strategies.federated.server.defence import Defence, capped_by_class
from strategies.federated.server.state import State, set_as_state, set_from_state


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
    """

    expectation: Expectation
    limits: Limits
    size_exponent: float = 0.0
    merging: MergeTree | None = None
    defence: Defence | None = None
    client_share: float = 1.0

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
        whole = weighted_union(self._weigh(answers))
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
