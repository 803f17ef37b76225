"""Any objective plus the cross entropy of the synthetic samples under networks trained on the real data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from fedcl_distill.chunks import chunked
from fedcl_distill.errors import SettingsError
from fedcl_distill.objectives.base import Learned, Objective, View
from fedcl_distill.sides import RealSide, SyntheticSide


@dataclass(frozen=True)
class WithCrossEntropy(Objective[Any]):
    """Adds that a network trained on the real data must see each synthetic sample's label in it.

    The sum over classes of the mean cross entropy under the view's ``goal``: the calibration of NCFM (Wang et al. 2025,
    section 3.3), the class loss of IDM (Zhao et al. 2023, equation 6).

    Attributes:
        inner: the objective that it is added to.
        weight: of the cross entropy.

    Raises:
        SettingsError: on construction, if the weight is not positive or the inner objective looks through no network.
    """

    needs_goal: ClassVar[bool] = True
    reads_labels: ClassVar[bool] = True
    inner: Objective[Any]
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise SettingsError(f"the cross entropy needs a positive weight, got {self.weight}")
        if not self.inner.needs_network:
            raise SettingsError("cross entropy looks through networks; it cannot be added to a closed form")

    def settings(self) -> dict[str, Any]:
        inner = self.inner.settings()
        return {**inner, "objective": f"{inner['objective']} with cross entropy", "cross_entropy_weight": self.weight}

    def learned(self) -> dict[str, Learned]:
        return self.inner.learned()

    def target(self, view: View, real: RealSide) -> Any:
        return self.inner.target(view, real)

    def losses(self, view: View, target: Any, synthetic: SyntheticSide) -> Iterator[Tensor]:
        yield from self.inner.losses(view, target, synthetic)
        if view.goal is None:
            raise SettingsError("cross entropy needs networks that were trained on the real data")
        counts = torch.bincount(synthetic.classes)
        weights = self.weight / counts[synthetic.classes].to(synthetic.inputs.dtype)
        for inputs, classes, labels, weight in chunked(synthetic.inputs, synthetic.classes, synthetic.labels, weights):
            scores = view.goal(view.augment(inputs, classes))
            yield (weight * F.cross_entropy(scores, labels, reduction="none")).sum()
