"""Any objective plus the cross entropy of the synthetic samples under networks trained on the real data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.nn import functional as F

from fedcl_distill.chunks import chunked
from fedcl_distill.errors import SettingsError
from fedcl_distill.objectives.base import View
from fedcl_distill.objectives.with_addend import WithAddend, share_of_class
from fedcl_distill.sides import SyntheticSide


@dataclass(frozen=True)
class WithCrossEntropy(WithAddend):
    """Adds that a network trained on the real data must see each synthetic sample's label in it.

    The sum over classes of the mean cross entropy under the view's ``goal``: the calibration of NCFM (Wang et al.
    2025), the class loss of IDM (Zhao et al. 2023).
    """

    addend: ClassVar[str] = "cross entropy"
    addend_needs_goal: ClassVar[bool] = True
    addend_reads_labels: ClassVar[bool] = True

    def _addends(self, view: View, synthetic: SyntheticSide) -> Iterator[Tensor]:
        if view.goal is None:
            raise SettingsError("cross entropy needs networks that were trained on the real data")
        weights = share_of_class(synthetic)
        for inputs, classes, labels, weight in chunked(synthetic.inputs, synthetic.classes, synthetic.labels, weights):
            scores = view.goal(view.augment(inputs, classes))
            yield (weight * F.cross_entropy(scores, labels, reduction="none")).sum()
