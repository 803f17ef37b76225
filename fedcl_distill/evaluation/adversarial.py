"""Accuracy under attack by projected gradient descent: how far a small, deliberate change of the input leads astray."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.errors import DataError, SettingsError
from fedcl_distill.networks.base import micro_batches
from fedcl_distill.seeding import generator_for


@dataclass(frozen=True)
class PGD:
    """L∞ projected gradient ascent of the cross entropy with random starts (Madry et al. 2018).

    Attributes:
        epsilon: the most that any value may change, in unit values: 8 / 255 of a pixel, say.
        steps: of each start.
        step_size: of a step, in unit values; None takes 2.5 ε / steps, as that paper does.
        restarts: random starts; a sample counts as right only if it is after every one of them.

    Raises:
        SettingsError: on construction, if a number is out of range.
    """

    epsilon: float = 8 / 255
    steps: int = 20
    step_size: float | None = None
    restarts: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.epsilon < float("inf") or self.steps < 1 or self.restarts < 1:
            raise SettingsError("PGD needs a finite epsilon ≥ 0 and at least one step and one start")
        if self.step_size is not None and not 0 < self.step_size < float("inf"):
            raise SettingsError(f"PGD needs a positive step_size or None, got {self.step_size}")

    @property
    def stride(self) -> float:
        return 2.5 * self.epsilon / self.steps if self.step_size is None else self.step_size

    def attack(self, network: nn.Module, data: LabelledData, *, seed: int) -> Attacked:
        """Attack ``network`` on every sample of ``data``, with full knowledge of it.

        Values stay within the data's range. ``network`` is not changed; its parameters get no gradients.

        Raises:
            DataError: there are no samples.
        """
        if len(data) == 0:
            raise DataError(f"{data.name}: there are no samples to attack")
        network.eval()
        unit = data.unit().clone()
        survived = torch.ones(len(data), dtype=torch.bool)
        found, losses = unit.clone(), []
        for restart in range(self.restarts):
            noise = torch.rand(unit.shape, generator=generator_for(seed, "pgd", restart)) * 2 - 1
            parts = []
            for x, y, start in micro_batches(unit, data.labels, noise):
                parts.append(self._ascend(network, data, x, y, self._within(data, x, x + self.epsilon * start)))
            reached = torch.cat([part for part, _ in parts])
            losses.append(torch.stack([trace for _, trace in parts]).sum(dim=0) / len(data))
            right = _scores(network, data, reached).argmax(dim=1) == data.labels
            found[survived] = reached[survived]
            survived &= right
        return Attacked(found, survived, tuple(torch.stack(losses).mean(dim=0).tolist()))

    def _ascend(
        self, network: nn.Module, data: LabelledData, unit: Tensor, labels: Tensor, reached: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Where ascent from ``reached`` ends; float64 (steps + 1,): summed losses before each step and after all."""
        device = next(network.parameters()).device
        trace = []
        for _ in range(self.steps):
            moving = reached.detach().requires_grad_()
            scores = network(data.normalisation.apply(moving).to(device))
            loss = F.cross_entropy(scores, labels.to(device), reduction="sum")
            (gradient,) = torch.autograd.grad(loss, moving)
            trace.append(float(loss.detach()))
            reached = self._within(data, unit, reached + self.stride * gradient.sign())
        final = _scores(network, data, reached)
        trace.append(float(F.cross_entropy(final, labels, reduction="sum")))
        return reached, torch.tensor(trace, dtype=torch.float64)

    def _within(self, data: LabelledData, unit: Tensor, reached: Tensor) -> Tensor:
        low, high = data.value_range
        near = torch.minimum(torch.maximum(reached, unit - self.epsilon), unit + self.epsilon)
        return near.clamp(low, high)


@dataclass(frozen=True)
class Attacked:
    """What an attack found.

    Attributes:
        unit: float32 (n, …): samples changed, in unit values; of the first start that led astray, or of the last.
        survived: bool (n,): classified rightly after every start.
        losses: mean loss before each step and after the last, mean over starts. Where it does not rise, gradients are
            masked, and the accuracy says nothing (Athalye et al. 2018).
    """

    unit: Tensor
    survived: Tensor
    losses: tuple[float, ...]

    @property
    def accuracy(self) -> float:
        """In [0, 1]."""
        return float(self.survived.double().mean())


@torch.no_grad()
def _scores(network: nn.Module, data: LabelledData, unit: Tensor) -> Tensor:
    device = next(network.parameters()).device
    return torch.cat([network(data.normalisation.apply(part).to(device)).cpu() for (part,) in micro_batches(unit)])
