"""Any objective plus an addend of its own weight: what regularisers and calibrations share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from fedcl_distill.errors import SettingsError
from fedcl_distill.objectives.base import Learned, Objective, View
from fedcl_distill.sides import RealSide, SyntheticSide


@dataclass(frozen=True)
class WithAddend(Objective[Any]):
    """An objective, and beside it an addend that hangs on the synthetic side and the view's networks alone.

    Attributes:
        inner: the objective that it is added to.
        weight: of the addend.
        addend: what it is called.
        addend_needs_goal, addend_reads_labels: as ``needs_goal`` and ``reads_labels``, for the addend alone.

    Raises:
        SettingsError: on construction, if the weight is not positive or the inner objective looks through no network.
    """

    addend: ClassVar[str]
    addend_needs_goal: ClassVar[bool] = False
    addend_reads_labels: ClassVar[bool] = False
    inner: Objective[Any]
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not self.weight > 0:
            raise SettingsError(f"{self.addend} needs a positive weight, got {self.weight}")
        if not self.inner.needs_network:
            raise SettingsError(f"{self.addend} looks through networks; it cannot be added to a closed form")

    @abstractmethod
    def _addends(self, view: View, synthetic: SyntheticSide) -> Iterator[Tensor]:
        """Scalars that add up to the addend, unweighted."""

    @property
    def needs_goal(self) -> bool:  # type: ignore[override]
        return self.addend_needs_goal or self.inner.needs_goal

    @property
    def reads_labels(self) -> bool:  # type: ignore[override]
        return self.addend_reads_labels or self.inner.reads_labels

    def settings(self) -> dict[str, Any]:
        inner = self.inner.settings()
        name = self.addend.replace(" ", "_")
        return {**inner, "objective": f"{inner['objective']} with {self.addend}", f"{name}_weight": self.weight}

    def learned(self) -> dict[str, Learned]:
        return self.inner.learned()

    def target(self, view: View, real: RealSide) -> Any:
        return self.inner.target(view, real)

    def losses(self, view: View, target: Any, synthetic: SyntheticSide) -> Iterator[Tensor]:
        yield from self.inner.losses(view, target, synthetic)
        for one in self._addends(view, synthetic):
            yield self.weight * one


def share_of_class(synthetic: SyntheticSide) -> Tensor:
    """float (n,): one over the number of samples of each one's class, so that sums become sums of class means."""
    return 1 / synthetic.classes.bincount()[synthetic.classes].to(synthetic.inputs.dtype)
