"""What a method is made of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fedcl_distill.augmentation import Augmentation
from fedcl_distill.engine.budget import Budget
from fedcl_distill.engine.fit_together import check_parts
from fedcl_distill.engine.initial import Initial
from fedcl_distill.engine.optimiser import SGD, Optimiser
from fedcl_distill.errors import SettingsError
from fedcl_distill.labels import HardLabels, Labels
from fedcl_distill.network_sources import NetworkSource
from fedcl_distill.objectives import Objective
from fedcl_distill.parameterizations import Parameterization, Pixels
from fedcl_distill.synthetic.quantise import check_bits


@dataclass(frozen=True)
class Parts:
    """The interchangeable parts of a method, and what belongs to the engine.

    Attributes:
        name: of the method.
        objective: what must agree between real and synthetic.
        networks: which networks the objective looks through.
        initial: what the synthetic samples are before the first step.
        budget: the method's own, where a call gives none.
        augmentation: what is done alike to both sides; None takes what suits the data.
        parameterization: how the synthetic data are stored and decoded.
        labels: what the samples are labelled with.
        optimiser: of everything learned.
        steps_per_view: synthetic steps for each network, augmentation and real batch; the real side, which costs
            most, is computed once a view. 1 is the published loop.
        clamp: keep stored pixels inside the real data's value range.
        average_from: fraction of the budget from which on the result is the mean of all steps' samples (and learned
            labels) instead of the last ones: a rate that stays high then costs no accuracy. 1 takes the last.
        bits: depth in which the result will be sent: below 32, every step sees the stored arrays rounded as the codec
            will round them, and so is the result.

    Raises:
        SettingsError: on construction, if the parts cannot work together; the message says why.
    """

    name: str
    objective: Objective[Any]
    networks: NetworkSource
    initial: Initial
    budget: Budget
    augmentation: Augmentation | None = None
    parameterization: Parameterization = field(default_factory=Pixels)
    labels: Labels = field(default_factory=HardLabels)
    optimiser: Optimiser = field(default_factory=SGD)
    steps_per_view: int = 1
    clamp: bool = False
    average_from: float = 1.0
    bits: int = 32

    def __post_init__(self) -> None:
        check_bits(self.bits)
        if not 0 <= self.average_from <= 1:
            raise SettingsError(f"average_from must be a fraction of the budget, in [0, 1], got {self.average_from}")
        check_parts(
            self.objective, self.networks, self.parameterization, self.labels, self.steps_per_view, clamp=self.clamp
        )

    def settings(self) -> dict[str, Any]:
        """Every setting of the method, as JSON values."""
        merged: dict[str, Any] = {}
        for part in (
            self._own_settings(),
            self.objective.settings(),
            self.networks.settings(),
            {} if self.augmentation is None else self.augmentation.settings(),
            {"parameterization": self.parameterization.name, **self.parameterization.settings()},
            self.labels.settings(),
            self.initial.settings(),
            self.optimiser.settings(),
        ):
            assert not set(merged) & set(part), f"two parts have a setting called {set(merged) & set(part)}"
            merged |= part
        return merged

    def _own_settings(self) -> dict[str, Any]:
        return {
            "method": self.name,
            "steps_per_view": self.steps_per_view,
            "clamp": self.clamp,
            "average_from": self.average_from,
            "bits": self.bits,
        }
