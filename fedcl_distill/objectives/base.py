"""What an objective is, and terms that may be added to one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from fedcl_distill.augmentation import Draw
from fedcl_distill.context import RealSampler, SyntheticBatch
from fedcl_distill.errors import SettingsError
from fedcl_distill.networks.base import Network, micro_batches
from fedcl_distill.registry import Registry
from fedcl_distill.settings import Positive, settings

TargetT = TypeVar("TargetT")


@dataclass(frozen=True)
class MatchContext:
    """One way to look at both sides: a network and one draw of the augmentation (a group of parameters a class).

    Attributes:
        network: where both sides are looked at. It belongs to its source: an objective leaves its weights alone.
        augment: the augmentation, drawn; the groups are the classes.
        seed: names every further draw of this view, such as the real batch.
        goal: the same network after (more) training on the real data, from sources that know it.
        index: number of the view in its run, from 0.
    """

    network: Network
    augment: Draw
    seed: int
    target_network: Network | None = None
    index: int = 0


@dataclass(frozen=True)
class Learned:
    """Something an objective learns beside the samples, such as a learning rate.

    Attributes:
        start: its first value.
        learning_rate: of the optimiser that learns the samples, for this.
    """

    start: Tensor
    learning_rate: float


class Objective(ABC, Generic[TargetT]):
    """Split in two, so that the costly real side is computed once and serves several synthetic steps.

    Objectives with settings are dataclasses: provenance records their fields (see
    :func:`~fedcl_distill.registry.describe`).

    Attributes:
        needs_network: it looks through the view's network; False for a closed-form kernel.
        needs_target_network: it compares with the view's ``goal``, which only some sources of networks give.
        reads_labels: its loss depends differentiably on ``SyntheticBatch.labels``, so that they can be soft or learned.
            One that does not goes by ``SyntheticBatch.classes``.
    """

    needs_network: ClassVar[bool] = True
    needs_target_network: ClassVar[bool] = False
    reads_labels: ClassVar[bool] = False

    @abstractmethod
    def target(self, view: MatchContext, real: RealSampler) -> TargetT:
        """What the real data look like in this view; constant, without a graph."""

    @abstractmethod
    def losses(self, view: MatchContext, target: TargetT, synthetic: SyntheticBatch) -> Iterator[Tensor]:
        """Disagreement of the synthetic side with the target: scalars that add up to it.

        Each is differentiated before the next is asked for, so that its activations are still in the processor's
        caches and never have to be held all at once. An objective that does not fall into addends yields one.
        """

    def learned(self) -> dict[str, Learned]:
        """What it learns beside the samples, by name; nothing unless overridden."""
        return {}


OBJECTIVES: Registry[Objective[Any]] = Registry("objective", "fedcl_distill.objectives", Objective)
register_objective = OBJECTIVES.register


@settings
class WithAddend(Objective[Any]):
    """An objective, and beside it an addend that depends on the synthetic side and the view's networks alone.

    Attributes:
        inner: the objective that it is added to.
        weight: of the addend.
        addend: what it is called.
        addend_needs_goal, addend_reads_labels: as ``needs_target_network`` and ``reads_labels``, for the addend alone.

    Raises:
        SettingsError: on construction, if the weight is not positive or the inner objective looks through no network.
    """

    addend: ClassVar[str]
    addend_needs_goal: ClassVar[bool] = False
    addend_reads_labels: ClassVar[bool] = False
    inner: Annotated[Objective[Any], OBJECTIVES]
    weight: Positive = 1.0

    def __post_init__(self) -> None:
        if not self.inner.needs_network:
            raise SettingsError(f"{self.addend} looks through networks; it cannot be added to a closed form")

    @abstractmethod
    def _addends(self, view: MatchContext, synthetic: SyntheticBatch) -> Iterator[Tensor]:
        """Scalars that add up to the addend, unweighted."""

    @property
    def needs_target_network(self) -> bool:  # type: ignore[override]
        return self.addend_needs_goal or self.inner.needs_target_network

    @property
    def reads_labels(self) -> bool:  # type: ignore[override]
        return self.addend_reads_labels or self.inner.reads_labels

    def learned(self) -> dict[str, Learned]:
        return self.inner.learned()

    def target(self, view: MatchContext, real: RealSampler) -> Any:
        return self.inner.target(view, real)

    def losses(self, view: MatchContext, target: Any, synthetic: SyntheticBatch) -> Iterator[Tensor]:
        yield from self.inner.losses(view, target, synthetic)
        for one in self._addends(view, synthetic):
            yield self.weight * one


def share_of_class(synthetic: SyntheticBatch) -> Tensor:
    """float (n,): one over the number of samples of each one's class, so that sums become sums of class means."""
    return 1 / synthetic.classes.bincount()[synthetic.classes].to(synthetic.inputs.dtype)


@register_objective("with-cross-entropy")
@settings
class WithCrossEntropy(WithAddend):
    """Adds that a network trained on the real data must see each synthetic sample's label in it.

    The sum over classes of the mean cross entropy under the view's ``goal``: the calibration of NCFM (Wang et al.
    2025), the class loss of IDM (Zhao et al. 2023).
    """

    addend: ClassVar[str] = "cross entropy"
    addend_needs_goal: ClassVar[bool] = True
    addend_reads_labels: ClassVar[bool] = True

    def _addends(self, view: MatchContext, synthetic: SyntheticBatch) -> Iterator[Tensor]:
        if view.target_network is None:
            raise SettingsError("cross entropy needs networks that were trained on the real data")
        weights = share_of_class(synthetic)
        for inputs, classes, labels, weight in micro_batches(
            synthetic.inputs, synthetic.classes, synthetic.labels, weights
        ):
            scores = view.target_network(view.augment(inputs, classes))
            yield (weight * F.cross_entropy(scores, labels, reduction="none")).sum()


@register_objective("with-pairs")
@settings
class WithPairs(WithAddend):
    """Adds that features of each synthetic sample must stay near those of the sample it started from.

    The sum over classes of the mean ‖f(sample) − f(start)‖² in the view's embedding, both augmented alike: the pairwise
    regulariser of IT-GAN (Zhao and Bilen 2022), which keeps generated samples diverse where class means alone would
    not. The paper's weight could not be looked up; the default is ours.
    """

    addend: ClassVar[str] = "pairs"
    weight: Positive = 0.1

    def _addends(self, view: MatchContext, synthetic: SyntheticBatch) -> Iterator[Tensor]:
        shares = share_of_class(synthetic)
        for inputs, starts, classes, share in micro_batches(
            synthetic.inputs, synthetic.starts, synthetic.classes, shares
        ):
            with torch.no_grad():
                wanted = view.network.embed(view.augment(starts, classes))
            given = view.network.embed(view.augment(inputs, classes))
            yield (share * (given - wanted).square().sum(dim=1)).sum()
