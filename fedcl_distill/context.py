"""What the parts of a method work with: the two sides, and what is there before the first step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.seeding import generator_for


@dataclass(frozen=True)
class SyntheticBatch:
    """The synthetic samples in one step.

    Attributes:
        inputs: float32 (n, …) decoded network inputs, in order of class; a leaf whose gradient is asked for.
        classes: int64 (n,): the class each sample stands for.
        labels: int64 (n,), or float32 (n, classes) probabilities where labels are soft; a leaf where they are learned.
        learned: what else the objective learns, such as a learning rate, by name (see :meth:`Objective.learned`).
        given_starts: float32 (n, …): the samples that these were meant to be before the first step; see ``starts``.
    """

    inputs: Tensor
    classes: Tensor
    labels: Tensor
    learned: Mapping[str, Tensor] = field(default_factory=dict)
    given_starts: Tensor | None = None

    @property
    def starts(self) -> Tensor:
        """float32 (n, …): what these samples started from; without a start, what they are now."""
        return self.inputs.detach() if self.given_starts is None else self.given_starts

    def probabilities(self, num_classes: int) -> Tensor:
        """float (n, num_classes): the labels, one-hot where they are hard; in the dtype of ``inputs``."""
        labels = self.labels if self.labels.ndim == 2 else F.one_hot(self.labels, num_classes)
        return labels.to(self.inputs.dtype)

    def detached(self) -> SyntheticBatch:
        """The same values without a graph, for training networks on them."""
        return replace(self, inputs=self.inputs.detach(), labels=self.labels.detach())


class RealSampler:
    """The real data as objectives draw from them."""

    def __init__(self, data: LabelledData, device: torch.device) -> None:
        self.data = data
        self.device = device
        self._rows = [data.indices_of(label) for label in range(data.num_classes)]

    def draw(self, per_class: int, seed: int) -> tuple[Tensor, Tensor]:
        """``per_class`` samples of every class without replacement, all of them where a class has fewer.

        Returns:
            float32 (n, …) network inputs and int64 (n,) labels, in order of class.
        """
        generator = generator_for(seed, "real batch")
        picks = [rows[_choose(len(rows), per_class, generator)] for rows in self._rows]
        return self._take(torch.cat(picks))

    def batch(self, size: int, seed: int) -> tuple[Tensor, Tensor]:
        """``size`` samples of all classes together without replacement, all of them where there are fewer.

        Returns:
            float32 (n, …) network inputs and int64 (n,) labels, in random order.
        """
        return self._take(_choose(len(self.data), size, generator_for(seed, "real batch")))

    def _take(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        return self.data.inputs(chosen).to(self.device), self.data.labels[chosen].to(self.device)


def _choose(available: int, wanted: int, generator: torch.Generator) -> Tensor:
    """int64 (min(available, wanted),): distinct positions below ``available``."""
    if wanted >= available:
        return torch.arange(available)
    if wanted * 20 < available:  # few of many: rejecting doubles is cheaper than permuting all
        picks: Tensor = torch.unique(torch.randint(available, (wanted * 2,), generator=generator))
        if len(picks) >= wanted:
            return picks[torch.randperm(len(picks), generator=generator)[:wanted]]
    return torch.randperm(available, generator=generator)[:wanted]


@dataclass(frozen=True)
class SetupContext:
    """One distillation to be done, as its parts see it when they prepare themselves.

    Attributes:
        real: the data to distil.
        seed: names every draw below it; the same problem prepares the same things.
        device: where to compute.
        report: told of preparation as it goes on: what is done, of how much, and what it is ("networks").
        has_time: whether an expensive preparation (teachers, pools, experts, generators) may go on, so that a budget in
            seconds leaves time to distil; always True for a budget in steps. Each must do the least that is usable even
            where it may not.
    """

    real: LabelledData
    seed: int
    device: torch.device
    has_time: Callable[[], bool] = lambda: True
    report: Callable[[int, int, str], None] = lambda done, total, what: None

    def counting(self, total: int, what: str) -> Callable[[], bool]:
        """To be called after every step of a training that prepares ``what``, of about ``total`` steps.

        It reports the step and says whether there is time to go on, as ``keep_going`` of
        :func:`~fedcl_distill.training.fit` should.
        """
        done = 0

        def keep_going() -> bool:
            nonlocal done
            done += 1
            self.report(done, max(total, done), what)
            return self.has_time()

        return keep_going
