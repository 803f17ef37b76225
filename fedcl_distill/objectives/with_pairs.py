"""Any objective, and each synthetic sample kept near the sample that it started from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from fedcl_distill.chunks import chunked
from fedcl_distill.errors import SettingsError
from fedcl_distill.objectives.base import Learned, Objective, View
from fedcl_distill.sides import RealSide, SyntheticSide


@dataclass(frozen=True)
class WithPairs(Objective[Any]):
    """Adds that features of each synthetic sample must stay near those of the sample it started from.

    The sum over classes of the mean ‖f(sample) − f(start)‖² in the view's embedding, both augmented alike: the pairwise
    regulariser of IT-GAN (Zhao and Bilen 2022), which keeps generated samples diverse where class means alone would
    not. The paper's weight could not be looked up; the default is ours.

    Attributes:
        inner: the objective that it is added to.
        weight: of the pairs.

    Raises:
        SettingsError: on construction, if the weight is not positive or the inner objective looks through no network.
    """

    reads_labels: ClassVar[bool] = False
    inner: Objective[Any]
    weight: float = 0.1

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise SettingsError(f"pairs need a positive weight, got {self.weight}")
        if not self.inner.needs_network:
            raise SettingsError("pairs are compared through networks; they cannot be added to a closed form")

    def settings(self) -> dict[str, Any]:
        inner = self.inner.settings()
        return {**inner, "objective": f"{inner['objective']} with pairs", "pair_weight": self.weight}

    def learned(self) -> dict[str, Learned]:
        return self.inner.learned()

    def target(self, view: View, real: RealSide) -> Any:
        return self.inner.target(view, real)

    def losses(self, view: View, target: Any, synthetic: SyntheticSide) -> Iterator[Tensor]:
        yield from self.inner.losses(view, target, synthetic)
        weights = self.weight / torch.bincount(synthetic.classes)[synthetic.classes].to(synthetic.inputs.dtype)
        for inputs, starts, classes, weight in chunked(synthetic.inputs, synthetic.starts, synthetic.classes, weights):
            with torch.no_grad():
                wanted = view.network.embed(view.augment(starts, classes))
            given = view.network.embed(view.augment(inputs, classes))
            yield (weight * (given - wanted).square().sum(dim=1)).sum()
