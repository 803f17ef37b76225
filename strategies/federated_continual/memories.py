"""What a federated continual server keeps beside the model, how large that is, and the register of its strategies."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field
from typing import Any, Protocol

import torch
from torch import Tensor

from fedcl_distill.data import DataSpec, LabelledData
from fedcl_distill.engine import ByteBudget
from fedcl_distill.engine.size import bytes_of_counts, counts_within_bytes
from fedcl_distill.errors import SettingsError
from fedcl_distill.merging import WeightedSet, weighted_union
from fedcl_distill.seeding import derive_seed
from fedcl_distill.settings import Count, settings
from fedcl_distill.statistics import (
    ClassStatistics,
    StatisticsExpectation,
    StatisticsSpec,
    add_up,
    decode_statistics,
    encode_statistics,
)
from fedcl_distill.statistics.sums import Sums, shapes_of
from fedcl_distill.synthetic import SyntheticSet
from fedcl_distill.synthetic.quantise import Bits
from strategies.continual.distilled_memory import DistilledMemory
from strategies.continual.memory import as_bytes, as_tensor
from strategies.federated.aggregation import AggregatedSets
from strategies.federated.fedavg import FedAvg
from strategies.federated.strategy import FederatedStrategy, StrategyRegistry

STRATEGIES = StrategyRegistry(
    "federated continual strategy", "fedcl_distill.federated_continual_strategies", FederatedStrategy
)
"""All federated continual strategies by name. Their servers may have a ``keeper``: what is kept beside the model."""

register_strategy = STRATEGIES.register
register_strategy("fedavg")(FedAvg)


@settings
class MemorySize:
    """How large a memory is.

    Attributes:
        memory_images_per_class: as samples for each of all classes; the bytes that these take are its budget from the
            first stage on.
        memory_bytes: its budget, in place of ``memory_images_per_class``.
    """

    memory_images_per_class: Count = 10
    memory_bytes: Count | None = None

    def memory_budget(self, like: LabelledData, bits: int) -> int:
        """Bytes of the memory, where a value takes ``bits``."""
        if self.memory_bytes is not None:
            return self.memory_bytes
        return bytes_of_counts([self.memory_images_per_class] * like.num_classes, like, bits)


class ServerMemory(Protocol):
    """Something that is kept, and counted."""

    @property
    def bytes_kept(self) -> int: ...

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold: tensors, numbers, texts, and lists and dictionaries of these."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from another one's :meth:`state`, made with the same settings."""
        ...


class NoMemory:
    """The model is all there is."""

    bytes_kept = 0

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        pass


@settings(frozen=False)
class SetMemory:
    """One set for everything that was ever sent, under a byte budget; see :class:`DistilledMemory`.

    Attributes:
        memory: empty, with the whole byte budget.
        like: data of the kind that the sets stand for.
        reserve: give each class the size from the start that it has once all are known, so that no class is distilled
            again because others come. False lets a few classes share all bytes, and shrinks them when more come.
        seed: of draws by weight.
    """

    memory: DistilledMemory
    like: LabelledData
    reserve: bool = True
    seed: int = 0
    _stages: int = field(default=0, init=False, repr=False)
    _whole: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        self._whole = self.memory.byte_budget
        self.memory.value_range = self.like.value_range

    @property
    def bytes_kept(self) -> int:
        return self.memory.bytes_kept

    def recall(self) -> SyntheticSet | None:
        """What is remembered; None before the first stage."""
        return self.memory.recall()

    def beside(self, gathered: AggregatedSets) -> WeightedSet:
        """What to learn from: the newest sets as they came, and all that is remembered of earlier stages."""
        parts = [_weighted(gathered)]
        if (held := self.recall()) is not None:
            parts.insert(0, WeightedSet.standing_for(held, len(held)))
        return weighted_union(parts)

    def add(self, gathered: AggregatedSets) -> None:
        """Take in the newest sets, distilled to their share of the budget.

        Raises:
            SettingsError: the budget does not hold a single sample of each class.
            DivergenceError: the distiller's loss stopped being finite.
        """
        data = _weighted(gathered).as_labelled_data(derive_seed(self.seed, "sets", self._stages))
        if self.reserve:
            self.memory.byte_budget = self._reserved(data)
        self.memory.add(data)
        self._stages += 1

    def state(self) -> dict[str, Any]:
        return {"memory": self.memory.state(), "stages": self._stages}

    def restore(self, state: dict[str, Any]) -> None:
        self.memory.restore(state["memory"])
        self._stages = state["stages"]

    def _reserved(self, data: LabelledData) -> int:
        """Bytes of the classes known by now, if each has its final size."""
        how, soft = self.memory.distiller.parameterization, self.memory.distiller.labels.soft
        budget = ByteBudget(self._whole, self.memory.bits)
        plenty = [self._whole * 8 // (self.memory.bits * data.unit(slice(0, 1)).numel()) + 1] * data.num_classes
        final = counts_within_bytes(budget, self.like, how, plenty, soft_labels=soft)
        held = self.recall()
        seen = data.class_counts + (0 if held is None else held.class_counts) > 0
        counts = [count if known else 0 for count, known in zip(final, seen.tolist(), strict=True)]
        return bytes_of_counts(counts, self.like, self.memory.bits, how, soft_labels=soft)


def balanced(whole: WeightedSet) -> Tensor:
    """float64 (n,): the weights of ``whole``, changed so that all its classes weigh the same together."""
    return whole.weights / whole.class_weights[whole.synthetic.hard_labels]


def _weighted(gathered: AggregatedSets) -> WeightedSet:
    synthetic = gathered.synthetic
    weights = torch.ones(len(synthetic), dtype=torch.float64) if gathered.weights is None else gathered.weights
    return WeightedSet(synthetic, weights)


_MAX_COUNT = 2**32 - 1


@settings(frozen=False)
class SumMemory:
    """The total of all sums that were ever sent, encoded: what is distilled is what its bytes hold.

    A class that does not come back keeps its means as they are. Nothing is ever distilled from distilled samples.

    Attributes:
        expectation: of the sums.
        byte_budget: most bytes to keep.
        bits: of a kept value: 8, 16 or 32.

    Raises:
        SettingsError: on construction, if the sums of all classes take more.
    """

    expectation: StatisticsExpectation
    byte_budget: Count
    bits: Bits = 32
    _payload: bytes = field(default=b"", init=False, repr=False)

    def __post_init__(self) -> None:
        spec, domain = self.expectation.spec, self.expectation.domain
        needed = bytes_of_sums(spec, domain, self.bits)
        if needed > self.byte_budget:
            raise SettingsError(
                f"sums of {domain.num_classes} classes in {spec.views} views take {needed} bytes at {self.bits} bits, "
                f"byte_budget is {self.byte_budget}; take fewer views, dimensions or moments, or more memory_bytes"
            )

    @property
    def bytes_kept(self) -> int:
        return len(self._payload)

    def add(self, new: Iterable[ClassStatistics]) -> ClassStatistics:
        """Take in the sums of a stage; the total as it is kept.

        Raises:
            DataError: there is nothing to add, or it cannot be added.
        """
        held = [decode_statistics(self._payload, self.expectation.limits)] if self._payload else []
        self._payload = encode_statistics(add_up([*held, *new]), self.bits)
        return decode_statistics(self._payload, self.expectation.limits)

    def state(self) -> dict[str, Any]:
        return {"payload": as_tensor(self._payload)}

    def restore(self, state: dict[str, Any]) -> None:
        self._payload = as_bytes(state["payload"])


def bytes_of_sums(spec: StatisticsSpec, domain: DataSpec, bits: int) -> int:
    """The most that encoded sums of every class take.

    Raises:
        SettingsError: the specification does not suit such data, or sums are not kept in so many bits.
    """
    classes = domain.num_classes
    sums = {
        name: Sums(
            torch.full((views, classes), _MAX_COUNT), torch.full((views, classes, size), 1 / 3, dtype=torch.float64)
        )
        for name, (views, size) in shapes_of(spec, domain).items()
    }
    return len(encode_statistics(ClassStatistics(spec, domain, sums), bits)) + _LONGEST_RANGES * len(sums)


_LONGEST_RANGES = 64  # bytes: the two ends of a range, as text
