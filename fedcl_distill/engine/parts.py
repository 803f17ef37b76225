"""What a method is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fedcl_distill.augmentation import Augmentation
from fedcl_distill.engine.budget import Budget
from fedcl_distill.engine.initial import Initial
from fedcl_distill.engine.optimiser import SGD
from fedcl_distill.networks import NetworkSource
from fedcl_distill.objectives import Objective
from fedcl_distill.parameterizations import Parameterization, Pixels


@dataclass(frozen=True)
class Parts:
    """The four interchangeable parts of a method, and what belongs to the engine.

    Attributes:
        name: of the method.
        objective: what must agree between real and synthetic.
        networks: which networks the objective looks through.
        initial: what the synthetic samples are before the first step.
        budget: the method's own, where a call gives none.
        augmentation: what is done alike to both sides; None takes what suits the data.
        parameterization: how the synthetic data are stored and decoded.
        optimiser: of the stored arrays.
        steps_per_view: synthetic steps for each network, augmentation and real batch; the real side, which costs
            most, is computed once a view. 1 is the published loop.
        clamp: keep stored values inside the real data's value range.
    """

    name: str
    objective: Objective[Any]
    networks: NetworkSource
    initial: Initial
    budget: Budget
    augmentation: Augmentation | None = None
    parameterization: Parameterization = field(default_factory=Pixels)
    optimiser: SGD = field(default_factory=SGD)
    steps_per_view: int = 1
    clamp: bool = False

    def settings(self) -> dict[str, Any]:
        """Every setting of the method, as JSON values."""
        return {
            "method": self.name,
            **self.objective.settings(),
            **self.networks.settings(),
            **({} if self.augmentation is None else self.augmentation.settings()),
            "parameterization": self.parameterization.name,
            **self.parameterization.settings(),
            **self.initial.settings(),
            **self.optimiser.settings(),
            "steps_per_view": self.steps_per_view,
            "clamp": self.clamp,
        }
