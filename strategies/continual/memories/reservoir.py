"""A memory of randomly chosen real samples under a byte budget."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedcl_distill.data import LabelledData
from fedcl_distill.seeding import generator_for
from fedcl_distill.synthetic import SyntheticSet, encoded_bytes, union
from strategies.continual.memories.base import EncodedMemory


@dataclass
class ReservoirMemory(EncodedMemory):
    """A uniform random sample of everything seen (Vitter 1985), the baseline of replay.

    Every sample seen draws a random key, and the smallest keys stay: no sample is favoured, whatever the order.
    Keys are bookkeeping and not counted: Vitter's algorithm R would choose as uniformly without them.

    Attributes:
        seed: fixes the keys.
    """

    seed: int = field(default=0, kw_only=True)
    _keys: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64), repr=False)
    _experiences: int = field(default=0, repr=False)

    def add(self, data: LabelledData) -> None:
        generator = generator_for(self.seed, "reservoir", self._experiences)
        keys = torch.rand(len(data), generator=generator, dtype=torch.float64)
        keys, rows = keys.sort()
        room = self.byte_budget * 8 // self.bits + 1  # values: more samples than fit, whatever their size
        keys, rows = keys[:room], rows[:room]
        newcomers = SyntheticSet.of_real(data.subset(rows))
        held = self.recall()
        everyone = newcomers if held is None else union([held, newcomers], provenance={})
        keys = torch.cat([self._keys, keys])
        chosen = self._fitting(everyone, keys.argsort()[: sum(self._share(data, _all_of_one_class(data, len(keys))))])
        self._keys = keys[chosen]
        self._keep(everyone.subset(chosen))
        self._experiences += 1

    def _fitting(self, everyone: SyntheticSet, chosen: Tensor) -> Tensor:
        """As many of ``chosen`` as fit, in order of class: how many digits their counts take is seen only here."""
        while True:
            ordered = chosen[everyone.hard_labels[chosen].argsort(stable=True)]
            if encoded_bytes(everyone.subset(ordered), self.bits, provenance=False) <= self.byte_budget:
                return ordered
            chosen = chosen[:-1]


def _all_of_one_class(data: LabelledData, count: int) -> list[int]:
    return [count] + [0] * (data.num_classes - 1)
