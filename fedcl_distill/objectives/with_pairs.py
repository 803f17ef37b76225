"""Any objective, and each synthetic sample kept near the sample that it started from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fedcl_distill.chunks import chunked
from fedcl_distill.objectives.base import View
from fedcl_distill.objectives.with_addend import WithAddend, share_of_class
from fedcl_distill.sides import SyntheticSide


@dataclass(frozen=True)
class WithPairs(WithAddend):
    """Adds that features of each synthetic sample must stay near those of the sample it started from.

    The sum over classes of the mean ‖f(sample) − f(start)‖² in the view's embedding, both augmented alike: the pairwise
    regulariser of IT-GAN (Zhao and Bilen 2022), which keeps generated samples diverse where class means alone would
    not. The paper's weight could not be looked up; the default is ours.
    """

    addend: ClassVar[str] = "pairs"
    weight: float = 0.1

    def _addends(self, view: View, synthetic: SyntheticSide) -> Iterator[Tensor]:
        shares = share_of_class(synthetic)
        for inputs, starts, classes, share in chunked(synthetic.inputs, synthetic.starts, synthetic.classes, shares):
            with torch.no_grad():
                wanted = view.network.embed(view.augment(starts, classes))
            given = view.network.embed(view.augment(inputs, classes))
            yield (share * (given - wanted).square().sum(dim=1)).sum()
