"""A patch that turns any image into the target."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import torch
from torch import Tensor

from fedcl_distill.data import LabelledData
from fedcl_distill.seeding import generator_for
from fedcl_distill.settings import Count, Natural, Range, settings
from simulations.attacks.base import Attack, Goal, require, require_class


@settings(kw_only=True)
class Backdoor(Attack):
    """The class of the target holds images of other classes with a bright patch in a corner (Gu et al. 2017, BadNets).

    Everything else is honest, so that the model is good where there is no patch. The attacker's own samples of the
    target's class make way, for then all it sends of that class carries the patch.

    Attributes:
        target: what patched images shall be called.
        size: of the square patch in pixels, in the corner at the lower right.
        share: of the samples of other classes, in (0, 1], of which a patched copy is made.

    Raises:
        SettingsError: where the data are no images, or smaller than the patch.
    """

    target: Natural = 0
    size: Count = 3
    share: Annotated[float, Range(gt=0, le=1)] = 0.5

    def poison(self, data: LabelledData, seed: int) -> LabelledData:
        require_class(self.target, data)
        others = torch.nonzero(data.labels != self.target).flatten()
        if len(others) == 0:
            return data
        order = others[torch.randperm(len(others), generator=generator_for(seed, "backdoor"))]
        patched = data.subset(order[: max(1, round(self.share * len(order)))])
        honest = data.subset(others)
        return replace(
            honest,
            samples=torch.cat([honest.samples, self._stamp(patched)]),
            labels=torch.cat([honest.labels, torch.full_like(patched.labels, self.target)]),
            groups=None,
            group_names=(),
        )

    def goal(self, test: LabelledData) -> Goal | None:
        others = test.subset(torch.nonzero(test.labels != self.target).flatten())
        return Goal(replace(others, samples=self._stamp(others)), self.target)

    def _stamp(self, data: LabelledData) -> Tensor:
        require(
            data.is_image and self.size <= min(data.sample_shape[1:]), f"no patch of size {self.size} fits these data"
        )
        stamped = data.samples.clone()
        stamped[:, :, -self.size :, -self.size :] = 255 if stamped.dtype == torch.uint8 else data.value_range[1]
        return stamped
