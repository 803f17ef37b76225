"""Synthetic samples that are near copies of real ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fedcl_distill.audit.nearest import nearest
from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.errors import SettingsError
from fedcl_distill.synthetic import SyntheticSet

_WINDOW, _SIGMA = 11, 1.5
_STABILISERS = (0.01**2, 0.03**2)


@dataclass(frozen=True)
class NearCopies:
    """The nearest real sample of each synthetic one.

    Attributes:
        positions: int64 (n,) of the nearest real sample of the class; −1 where the class has none.
        distances: float32 (n,) to it. Images are compared after :func:`standardised`: 0 for a copy whatever its
            brightness and contrast, √2 for unrelated ones, 2 for a negative. Feature vectors are compared normalised.
        limits: float32 (n,): below which a distance is that of a near copy; 0 where no held-out sample tells.
    """

    positions: Tensor
    distances: Tensor
    limits: Tensor

    @property
    def flagged(self) -> Tensor:
        """bool (n,): whether a sample is a near copy."""
        return self.distances < self.limits

    @property
    def count(self) -> int:
        return int(self.flagged.sum())


def near_copies(
    synthetic: SyntheticSet, real: LabelledData, held_out: LabelledData, quantile: float = 0.01
) -> NearCopies:
    """Flag synthetic samples that lie closer to a sample of ``real`` than real samples that it never saw do.

    A sample is a near copy if it is closer than the given quantile of the distances that held-out samples of its class
    have to theirs: about that fraction of genuinely new samples would be flagged, too.

    Args:
        synthetic: what is released.
        real: what it was made from.
        held_out: of the same distribution, no sample of it in ``real``.
        quantile: in (0, 1).
    """
    if not 0 < quantile < 1:
        raise SettingsError(f"the quantile must be between 0 and 1, got {quantile}")
    labels, images = synthetic.hard_labels, real.is_image
    released = standardised(synthetic.samples()) if images else synthetic.inputs()
    references, unseen = (standardised(data.unit()) if images else data.inputs() for data in (real, held_out))
    distances, positions = nearest(released, labels, references, real.labels)
    usual, _ = nearest(unseen, held_out.labels, references, real.labels)
    limits = torch.zeros(len(labels))
    for label in torch.unique(labels).tolist():
        of_class = usual[held_out.labels == label]
        if len(of_class):
            limits[labels == label] = of_class.quantile(quantile)
    return NearCopies(positions, distances, limits)


def standardised(samples: Tensor) -> Tensor:
    """``samples`` (n, …) flattened, each with mean 0 and norm 1: brightness and contrast are gone."""
    flat = samples.flatten(1)
    return F.normalize(flat - flat.mean(dim=1, keepdim=True), dim=1)


def structural_similarity(left: Tensor, right: Tensor) -> Tensor:
    """float32 (n,) in [−1, 1]: SSIM of image pairs (n, channels, height, width) in [0, 1] (Wang et al. 2004).

    Gaussian window of 11×11 pixels, deviation 1.5, smaller where images are; without padding; mean over channels.
    """
    channels, smallest = left.shape[1], min(left.shape[2:])
    size = min(_WINDOW, smallest - (smallest + 1) % 2)
    window = _window(size, channels)

    def average(values: Tensor) -> Tensor:
        return F.conv2d(values, window, groups=channels)

    means = average(left), average(right)
    variances = average(left * left) - means[0] ** 2, average(right * right) - means[1] ** 2
    covariance = average(left * right) - means[0] * means[1]
    light = (2 * means[0] * means[1] + _STABILISERS[0]) / (means[0] ** 2 + means[1] ** 2 + _STABILISERS[0])
    shape = (2 * covariance + _STABILISERS[1]) / (variances[0] + variances[1] + _STABILISERS[1])
    return (light * shape).flatten(1).mean(dim=1)


def _window(size: int, channels: int) -> Tensor:
    places = torch.arange(size) - (size - 1) / 2
    line = torch.exp(-(places**2) / (2 * _SIGMA**2))
    line = line / line.sum()
    return torch.outer(line, line).expand(channels, 1, size, size)
