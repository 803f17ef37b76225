"""Several networks that answer together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fedcl_distill.errors import SettingsError
from fedcl_distill.micro_batches import micro_batches
from fedcl_distill.networks import Network

WEIGHTINGS = ("classes", "samples", "uniform")
_SMALLEST = 1e-12  # probability


@dataclass(frozen=True)
class Ensemble:
    """Networks and how much each counts for each class.

    Attributes:
        members: at least one.
        weights: float32 (members, classes), not negative; each member has a positive one.
    """

    members: Sequence[Network]
    weights: Tensor

    @torch.no_grad()
    def probabilities(self, inputs: Tensor) -> Tensor:
        """float32 (n, classes) on the CPU: the members' weighted probabilities of ``inputs`` (n, …), scaled to 1.

        A member whose scores are not finite has no say there; without any say, all classes are equally probable.
        """
        total = torch.zeros(len(inputs), self.weights.shape[1])
        for member, weights in zip(self.members, self.weights, strict=True):
            total += weights * scores(member, inputs).softmax(dim=1).nan_to_num(0.0)
        total = total.clamp(min=_SMALLEST)
        return total / total.sum(dim=1, keepdim=True)


def ensemble_weights(class_counts: Tensor, weighting: str) -> Tensor:
    """float32 (members, classes) for int64 (members, classes) numbers of samples, each member having one at least.

    "classes": a member counts for a class by its share of all samples of that class, so that those decide who have
    seen it; "samples": for all classes alike by its share of all samples; "uniform": all members count alike.

    Raises:
        SettingsError: the weighting is unknown.
    """
    counts = class_counts.double()
    if weighting == "classes":
        return (counts / counts.sum(dim=0).clamp(min=1)).float()
    if weighting == "samples":
        return (counts.sum(dim=1, keepdim=True) / counts.sum()).expand_as(counts).float()
    if weighting == "uniform":
        return torch.full_like(counts, 1 / len(counts)).float()
    raise SettingsError(f"unknown weighting {weighting!r}; known: {', '.join(WEIGHTINGS)}")


@torch.no_grad()
def scores(network: Network, inputs: Tensor) -> Tensor:
    """float32 (n, classes) on the CPU: what ``network`` says about ``inputs`` (n, …)."""
    device = next(network.parameters()).device
    network.eval()
    return torch.cat([network(part.to(device)).cpu() for (part,) in micro_batches(inputs)])
