"""Maximally interfered retrieval (Aljundi et al. 2019): replay what the current batch is about to spoil."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from strategies.continual.replay.plugin import Batch, Replay


@dataclass(frozen=True)
class MIR:
    """Of more samples than needed, those whose loss a step on the current batch alone would raise most.

    Unlike Avalanche's plugin it leaves no class out, draws from any memory, soft labels too, and works however few
    samples are held. Candidates are distinct; where they are fewer than needed, all are replayed, the worst ones again.

    Attributes:
        candidates: samples looked at for each that is replayed (the paper: 50 for 10).
    """

    candidates: int = 5

    def __call__(self, strategy: Any, replay: Replay, count: int) -> Batch:
        drawn = replay.draw_distinct(self.candidates * count)
        gain = interference(
            strategy.model,
            strategy.mbatch[0],
            strategy.mbatch[1],
            drawn.inputs,
            drawn.labels,
            rate=strategy.optimizer.param_groups[0]["lr"],
        )
        order = gain.argsort(descending=True, stable=True)
        return drawn[order[torch.arange(count) % len(order)]]


def interference(
    network: nn.Module, inputs: Tensor, labels: Tensor, others: Tensor, other_labels: Tensor, *, rate: float
) -> Tensor:
    """float32 (m,): how much the cross entropy of each of ``others`` grows by a step of plain SGD on the batch.

    Args:
        network: unchanged afterwards.
        inputs, labels: the current batch.
        others, other_labels: (m, …) what might be replayed.
        rate: of the step.
    """
    weights = dict(network.named_parameters())
    loss = F.cross_entropy(network(inputs), labels)
    gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    with torch.no_grad():
        moved = {
            name: one if gradient is None else one - rate * gradient
            for (name, one), gradient in zip(weights.items(), gradients, strict=True)
        }
        before = F.cross_entropy(network(others), other_labels, reduction="none")
        after = F.cross_entropy(functional_call(network, moved, (others,)), other_labels, reduction="none")
    return after - before
