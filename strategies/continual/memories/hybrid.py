"""Several memories as one, such as real exemplars beside distilled samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fedcl_distill.data import LabelledData
from fedcl_distill.synthetic import SyntheticSet, union
from strategies.continual.memories.base import Memory


@dataclass
class HybridMemory:
    """Every part takes in every experience; what is remembered is all that they hold. Bytes are their sum.

    Attributes:
        parts: each within a byte budget of its own.
    """

    parts: tuple[Memory, ...]

    @property
    def bytes_kept(self) -> int:
        return sum(part.bytes_kept for part in self.parts)

    def add(self, data: LabelledData) -> None:
        for part in self.parts:
            part.add(data)

    def recall(self) -> SyntheticSet | None:
        held = [one for one in (part.recall() for part in self.parts) if one is not None]
        return union(held, provenance={}) if held else None

    def state(self) -> dict[str, Any]:
        return {"parts": [part.state() for part in self.parts]}

    def restore(self, state: dict[str, Any]) -> None:
        for part, one in zip(self.parts, state["parts"], strict=True):
            part.restore(one)
