"""How private a release shall be."""

from __future__ import annotations

from dataclasses import dataclass

from fedcl_distill.privacy.accounting import accountant_name, noise_multiplier_for
from fedcl_distill.privacy.guarantee import Guarantee, Mechanism, check_target

DELTA = 1e-5


@dataclass(frozen=True)
class PrivacyTarget:
    """(ε, δ), for one record added or removed.

    Attributes:
        epsilon: positive.
        delta: in (0, 1); far less than one over the number of records.

    Raises:
        SettingsError: on construction, if a value is out of range.
    """

    epsilon: float
    delta: float = DELTA

    def __post_init__(self) -> None:
        check_target(self.epsilon, self.delta)

    def guarantee(
        self, bound: float, *, sampling_rate: float = 1.0, queries: int = 1, seeded: bool = False
    ) -> Guarantee:
        """What holds once so many queries of sensitivity ``bound`` were answered with the noise they need.

        Raises:
            SettingsError: a value is out of range.
            DependencyError: dp-accounting is not installed.
        """
        noise = noise_multiplier_for(self.epsilon, self.delta, sampling_rate, queries)
        mechanism = Mechanism(noise, sampling_rate, queries)
        return Guarantee(self.epsilon, self.delta, mechanism, bound, accountant_name(), seeded)
