"""How much one record can change statistics: what noise must hide.

Theorem. Let φ(x) be everything that one record x of class c adds to the sums of its class: its features in all views,
its inputs, its products, and 1 to the count. Under a specification of bounded kind and a fixed domain,
‖features in all views‖ ≤ √views · (1, or √(dimensions / 2) for characteristic ones),
‖inputs‖ ≤ √Σ max(low², high²), where low and high bound each input, and
‖products of two of m coarse inputs‖ ≤ √(m (m + 1) / 2) · max(low², high²).

With blocks divided by these radii and multiplied by √share, shares adding up to 1, ‖φ(x)‖² ≤ Σ share = 1. A record
touches the sums of one class alone, so that adding or removing it changes the vector of all classes' scaled sums by at
most 1 in L2. Replacing a record may change it by 2 where the class stays and by √2 where it does not.

Proof: a direction has length 1, and cos² + sin² = 1 for every frequency; coarse inputs are averages of inputs, so that
the same bounds hold for them. A view's network and augmentation are fixed by the seed, and none mixes samples.
"""

from __future__ import annotations

import math

import torch

from fedcl_distill.errors import SettingsError
from fedcl_distill.statistics.domain import Domain
from fedcl_distill.statistics.features import coarse_shape
from fedcl_distill.statistics.spec import BOUNDED, CHARACTERISTIC, StatisticsSpec
from fedcl_distill.statistics.sums import FEATURES, MOMENTS, SAMPLES, shapes_of

_ROUNDING = 1e-4  # relative: what float32 may make of a length of 1, and data of the ends of their range


def radii(spec: StatisticsSpec, domain: Domain) -> dict[str, float]:
    """The largest L2 norm of what one record adds to each kind of sums, all views together.

    Raises:
        SettingsError: the features are not bounded, or views look at a part of the samples only, by which counts of
            views would need noise of their own.
    """
    if spec.kind not in BOUNDED:
        raise SettingsError(f"statistics: features of kind {spec.kind!r} have no bound; take {' or '.join(BOUNDED)}")
    if spec.share != 1:
        raise SettingsError(f"statistics: private ones look at all samples in every view, not at a share {spec.share}")
    shapes = shapes_of(spec, domain)
    views, dimensions = shapes[FEATURES]
    ends = input_ends(domain).square().amax(dim=0).double()  # per channel
    pixels = math.prod(domain.sample_shape[1:])
    found = {
        FEATURES: math.sqrt(views * dimensions / 2 if spec.kind == CHARACTERISTIC else views),
        SAMPLES: math.sqrt(float(ends.sum()) * pixels),
    }
    if coarse_shape(spec, domain) is not None:
        found[MOMENTS] = math.sqrt(shapes[MOMENTS][1]) * float(ends.max())
    return {name: radius * (1 + _ROUNDING) for name, radius in found.items()}


def input_ends(domain: Domain) -> torch.Tensor:
    """float32 (2, channels): the least and the largest network input of each channel."""
    channels = domain.sample_shape[0]
    corners = torch.tensor(domain.value_range)[:, None].expand(2, channels)
    return domain.normalisation.apply(corners)
