"""Sums of features as what is learned of a stream: nothing is trained, and nothing that was exact is forgotten.

Behind a frozen backbone a linear head follows from counts, class means and second moments, and these add up over
experiences: class means alone (NCM), one running covariance (Deep SLDA, Hayes and Kanan 2020), ridge regression on
accumulated sums, and the same behind a random projection with ReLU (RanPAC, McDonnell et al. 2023). Under a byte
budget, a few directions of the scatter, or cluster centres of each class, take their place.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn

from fedcl_distill.data import LabelledData
from fedcl_distill.errors import SettingsError
from fedcl_distill.features import (
    ClusterCentres,
    FeatureSums,
    Head,
    LowRank,
    RandomFeatures,
    Storage,
    SumHead,
    decode_sums,
    encode_sums,
    encoded_size,
    fewer_centres,
    measure,
    row_bytes,
)
from fedcl_distill.features.sums import Centres, Factor
from strategies.continual.benchmarks import labelled_data
from strategies.continual.memory import as_bytes, as_tensor


@dataclass
class FeatureSumMemory:
    """The sums of all that was seen, as a payload: what is known is what its bytes hold.

    Attributes:
        storage: of second moments. ``LowRank`` and ``ClusterCentres`` fill ``byte_budget``, whatever their own size is;
            all others add up exactly and take what they take.
        bits: of a class mean.
        second_bits: of second moments. Directions are rounded anew in each experience, so that they need 16.
        byte_budget: of directions and centres.
        features: what is summed of network inputs; None for the inputs themselves.

    Raises:
        SettingsError: from :meth:`add`, if the budget does not hold class means, or a centre of each class.
    """

    storage: Storage
    bits: int = 32
    second_bits: int = 32
    byte_budget: int | None = None
    features: RandomFeatures | None = None
    _payload: bytes = field(default=b"", init=False, repr=False)
    _known: tuple[tuple[str, ...], int, str] = field(default=((), 0, ""), init=False, repr=False)

    @property
    def bytes_kept(self) -> int:
        """Of the payload."""
        return len(self._payload)

    @property
    def sums(self) -> FeatureSums | None:
        """What is known; None before the first experience."""
        return decode_sums(self._payload, *self._known) if self._payload else None

    def add(self, data: LabelledData) -> None:
        """Add what ``data`` sum up to."""
        rows, before = self.seen(data.inputs()), self.sums
        present = (data.class_counts > 0) | (before is not None and before.counts > 0)
        storage = self._storage(len(present), int(present.sum()), rows.shape[1])
        sums = measure(rows, data.labels, data.class_names, storage, backbone=data.spec.backbone)
        if before is not None:
            sums = before + sums
        if isinstance(storage, LowRank):
            sums = sums.truncated(storage.rank)
        elif isinstance(storage, ClusterCentres):
            sums = fewer_centres(sums, storage)
        self._known = data.class_names, rows.shape[1], data.spec.backbone
        self._payload = encode_sums(sums, self.bits, second_bits=self.second_bits)

    def seen(self, inputs: Tensor) -> Tensor:
        """float (n, d): what is summed of network inputs (n, …)."""
        flat = inputs.flatten(1)
        return flat if self.features is None else self.features(flat)

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {"payload": as_tensor(self._payload), "known": list(self._known)}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from another one's :meth:`state`."""
        names, size, backbone = state["known"]
        self._payload, self._known = as_bytes(state["payload"]), (tuple(names), size, backbone)

    def _storage(self, classes: int, present: int, size: int) -> Storage:
        """The storage, of the size that the budget has room for once ``present`` of ``classes`` are there."""
        if self.byte_budget is None or not isinstance(self.storage, LowRank | ClusterCentres):
            return self.storage
        row = row_bytes(size, self.second_bits)
        if isinstance(self.storage, LowRank):
            least = encoded_size(classes, size, Factor, self.bits, self.second_bits, present=present) + row
            found = 1 + (self.byte_budget - least) // row
        else:
            header = encoded_size(classes, 0)
            row = encoded_size(classes, size, Centres, self.bits, self.second_bits, rows=1) - header
            least = header + present * row
            found = (self.byte_budget - header) // (row * present)
        if found < 1:
            raise SettingsError(f"byte_budget: {present} classes of {size} features need {least:,} bytes at least")
        return LowRank(found) if isinstance(self.storage, LowRank) else ClusterCentres(found, self.storage.seed)


class SumClassifier(nn.Module):
    """A head on what a memory sees of network inputs."""

    def __init__(self, memory: FeatureSumMemory, head: Head) -> None:
        super().__init__()
        self._memory, self._head = [memory], head
        self.weight = nn.Parameter(head.weight, requires_grad=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """float32 (n, classes): minus infinity for a class that was not seen yet."""
        return self._head.logits(self._memory[0].seen(inputs).cpu())


class SumLearner(SupervisedPlugin):  # type: ignore[misc]
    """Adds each experience to a memory of sums.

    Args:
        memory: of sums.
        head: what follows from them.
        like: what the data look like.
    """

    def __init__(self, memory: FeatureSumMemory, head: SumHead, like: LabelledData) -> None:
        super().__init__()
        self.memory, self.head = memory, head
        self._like = like.subset(torch.zeros(0, dtype=torch.int64))

    @property
    def bytes_kept(self) -> int:
        """Of the sums."""
        return self.memory.bytes_kept

    def classifier(self) -> nn.Module:
        """What follows from the sums so far."""
        sums = self.memory.sums
        assert sums is not None, "an experience comes first"
        return SumClassifier(self.memory, self.head.fit(sums))

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Take in the experience."""
        self.memory.add(labelled_data(strategy.experience.dataset, self._like))

    def state(self) -> dict[str, Any]:
        """That of the memory."""
        return self.memory.state()

    def restore(self, state: dict[str, Any], network: nn.Module) -> None:
        """Go on from :meth:`state`."""
        self.memory.restore(state)
