"""Statistics of data: one pass, no gradients, no optimisation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fedcl_distill.chunks import chunk_size
from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.statistics.domain import Domain
from fedcl_distill.statistics.features import coarse, coarse_shape, feature_map, products
from fedcl_distill.statistics.shares import looked_at, sample_hashes
from fedcl_distill.statistics.spec import StatisticsSpec
from fedcl_distill.statistics.sums import FEATURES, MOMENTS, SAMPLES, ClassStatistics, Sums, no_statistics

Features = Callable[[Tensor, Tensor], Tensor]


@torch.no_grad()
def class_statistics(
    data: LabelledData, spec: StatisticsSpec, *, device: str | torch.device = "cpu"
) -> ClassStatistics:
    """Sums of features of ``data``, class by class; classes without samples have count 0 and sum 0.

    Args:
        data: images or feature vectors; all parties need the same normalisation, for features are of network inputs.
        spec: which features.
        device: where to compute; the result is on the CPU.

    Raises:
        SettingsError: the specification does not suit such data.
    """
    domain, where = Domain.of(data), torch.device(device)
    sums = dict(no_statistics(spec, domain).sums)
    everything = torch.arange(len(data))
    _add(sums[SAMPLES], 0, data, everything, where, lambda inputs, _: inputs.flatten(1))
    small = coarse_shape(spec, domain)
    if small is not None:
        _add(sums[MOMENTS], 0, data, everything, where, lambda inputs, _: products(coarse(inputs, small)))
    hashes = sample_hashes(data, spec.seed)
    for view in range(spec.views):
        rows = looked_at(hashes, spec.share, spec.seed, view)
        _add(sums[FEATURES], view, data, rows, where, feature_map(spec, domain, view, where))
    return ClassStatistics(spec, domain, sums)


def _add(sums: Sums, view: int, data: LabelledData, rows: Tensor, device: torch.device, features: Features) -> None:
    """Add the features of some ``rows`` of ``data`` to one view, in place."""
    classes = data.labels[rows]
    sums.counts[view] += torch.bincount(classes, minlength=data.num_classes)
    size = chunk_size(data.samples[:1].to(device)) if device.type == "cpu" else 1024
    for chosen in torch.split(rows, size):
        labels = data.labels[chosen]
        values = features(data.inputs(chosen).to(device), labels.to(device))
        sums.values[view].index_add_(0, labels, values.double().cpu())
