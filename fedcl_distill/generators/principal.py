"""First guesses of codes: where real images lie along the principal axes of their deviations from the class mean."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.seeding import generator_for

_SIDE = 16  # axes of more pixels would cost time and describe details that no short code can hold
_SAMPLES = 10_000


@dataclass(frozen=True)
class Principal:
    """Linear map from images to vectors that are, over each class, of mean 0 and about unit variance.

    Attributes:
        means: (classes, pixels) of the coarse images; of absent classes 0.
        axes: (pixels, length), each divided by the deviation along it.
    """

    means: Tensor
    axes: Tensor

    @classmethod
    def of(cls, data: LabelledData, length: int, seed: int) -> Principal:
        """Measure ``data``; ``length`` may exceed the number of pixels, further entries are 0."""
        rows = torch.randperm(len(data), generator=generator_for(seed, "principal axes"))[:_SAMPLES]
        coarse, labels = _coarse(data.inputs(rows)).double(), data.labels[rows]
        counts = torch.bincount(labels, minlength=data.num_classes).clamp(min=1)[:, None]
        means = coarse.new_zeros(data.num_classes, coarse.shape[1]).index_add(0, labels, coarse) / counts
        centred = coarse - means[labels]
        variances, axes = torch.linalg.eigh(centred.T @ centred / len(centred))
        variances, axes = variances.flip(0)[:length], axes.flip(1)[:, :length]
        used = variances > variances[0] * 1e-6
        axes = axes * torch.where(used, variances.clamp(min=1e-30).rsqrt(), 0)
        return cls(means.float(), F.pad(axes, (0, length - axes.shape[1])).float())

    def codes(self, images: Tensor, labels: Tensor) -> Tensor:
        """float32 (n, length) of ``images`` (n, channels, height, width) of these classes."""
        return (_coarse(images) - self.means[labels]) @ self.axes

    def to(self, device: torch.device) -> Principal:
        return Principal(self.means.to(device), self.axes.to(device))


def _coarse(images: Tensor) -> Tensor:
    height, width = images.shape[2:]
    return F.adaptive_avg_pool2d(images, (min(height, _SIDE), min(width, _SIDE))).flatten(1)
