"""The server's memory of the synthetic sets that clients send."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fedcl_distill.data import LabelledData
from fedcl_distill.engine import ByteBudget
from fedcl_distill.engine.size import bytes_of_counts, counts_within_bytes
from fedcl_distill.merging import WeightedSet, weighted_union
from fedcl_distill.seeding import derive_seed
from fedcl_distill.synthetic import SyntheticSet
from strategies.continual.memories.distilled import DistilledMemory
from strategies.federated.server.gathering import AggregatedSets


@dataclass
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
    _stages: int = field(default=0, repr=False)
    _whole: int = field(init=False, repr=False)

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
