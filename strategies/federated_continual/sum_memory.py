"""The server's memory of sums: they add up over stages as they do over clients."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch

from fedcl_distill.data import DataSpec
from fedcl_distill.errors import SettingsError
from fedcl_distill.statistics import (
    ClassStatistics,
    StatisticsExpectation,
    StatisticsSpec,
    add_up,
    decode_statistics,
    encode_statistics,
)
from fedcl_distill.statistics.sums import Sums, shapes_of
from strategies.continual.memories.base import as_bytes, as_tensor

_MAX_COUNT = 2**32 - 1


@dataclass
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
    byte_budget: int
    bits: int = 32
    _payload: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        spec, domain = self.expectation.spec, self.expectation.domain
        needed = bytes_of_sums(spec, domain, self.bits)
        if needed > self.byte_budget:
            raise SettingsError(
                f"sums of {domain.num_classes} classes in {spec.views} views take {needed} bytes at {self.bits} bits, "
                f"the memory has {self.byte_budget}; take fewer views, dimensions or moments, or more memory_bytes"
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
