"""A memory that sees each experience through one noisy release of its statistics."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from fedcl_distill.data import LabelledData, Normalisation
from fedcl_distill.engine import Budget, Size
from fedcl_distill.engine.size import AbsentClasses
from fedcl_distill.labels import HardLabels, Labels
from fedcl_distill.methods.private_statistics import PrivateStatistics
from fedcl_distill.parameterizations import Parameterization, Pixels
from fedcl_distill.privacy import Guarantee, NoiseSource, publicly_scaled
from fedcl_distill.privacy.accounting import weakest
from fedcl_distill.seeding import derive_seed
from fedcl_distill.statistics import NoisyStatistics
from fedcl_distill.synthetic import SyntheticSet
from strategies.continual.memories.distilled import DistilledMemory


@dataclass
class PrivateMemory:
    """Keeps samples distilled from noisy statistics: every record is looked at once, in its own experience.

    Each experience is released once and distilled; old classes shrink by dropping samples, which looks at no record.
    Experiences hold different records, so that the memory as a whole has the guarantee of one release. It protects
    what is *kept*: the model that trains on an experience sees its records as they are.

    Attributes:
        byte_budget, bits: as of :class:`DistilledMemory`.
        method: what is released, how private, and from which ledger it is paid (a part of it for each experience).
        budget: of each distillation.
        seed: fixes every draw but the noise.
    """

    byte_budget: int
    bits: int = 8
    method: PrivateStatistics = field(kw_only=True)
    budget: Budget | None = field(default=None, kw_only=True)
    seed: int = field(default=0, kw_only=True)
    _guarantees: list[Guarantee | None] = field(default_factory=list, repr=False)
    _scale: Normalisation | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self._source = _FromRelease(self.method)
        self._held = DistilledMemory(
            self.byte_budget, self.bits, distiller=self._source, budget=self.budget, seed=self.seed, redistil=False
        )

    @property
    def guarantee(self) -> Guarantee | None:
        """Of all that is kept; None before the first experience, and without noise."""
        return weakest(self._guarantees)

    @property
    def bytes_kept(self) -> int:
        return self._held.bytes_kept

    def add(self, data: LabelledData) -> None:
        """Release and distil one experience.

        Raises:
            SettingsError: the byte budget does not hold a single sample, or the data have no public scale.
            PrivacyError: the ledger does not cover the release; nothing was looked at.
        """
        number = len(self._guarantees)
        public = publicly_scaled(data, value_range=self.method.public_range)
        seed = self.method.noise_seed
        noise = NoiseSource.fresh() if seed is None else NoiseSource.seeded(derive_seed(seed, "experience", number))
        released = self.method.release(public, noise, part=f"experience {number}")
        self._source.released = released
        blank = released.as_statistics().as_blank_data()
        if len(blank):  # noise can hide that a few records were there at all
            self._held.add(blank)
        self._guarantees.append(released.guarantee)
        self._scale = data.normalisation

    def recall(self) -> SyntheticSet | None:
        """What is remembered, on the scale of the stream: what is kept has a public one."""
        held = self._held.recall()
        if held is None or self._scale is None:
            return held
        inputs = self._scale.apply(held.samples())
        return replace(
            held,
            arrays={"pixels": inputs},
            parameterization=Pixels(),
            spec=replace(held.spec, normalisation=self._scale),
        )

    def state(self) -> dict[str, Any]:
        known = [None if one is None else one.as_record() for one in self._guarantees]
        scale = None if self._scale is None else [list(self._scale.mean), list(self._scale.std)]
        return {"held": self._held.state(), "guarantees": known, "scale": scale}

    def restore(self, state: dict[str, Any]) -> None:
        self._held.restore(state["held"])
        self._guarantees = [None if one is None else Guarantee.of(one) for one in state["guarantees"]]
        self._scale = None if state["scale"] is None else Normalisation(*map(tuple, state["scale"]))


@dataclass
class _FromRelease:
    """Distils what was released last, whatever data it is given: those are blank."""

    method: PrivateStatistics
    released: NoisyStatistics | None = None
    labels: Labels = field(default_factory=HardLabels)

    @property
    def name(self) -> str:
        return self.method.name

    @property
    def parameterization(self) -> Parameterization:
        return self.method.parameterization

    def distil(
        self,
        real: LabelledData,
        size: Size,
        *,
        seed: int,
        budget: Budget | None = None,
        device: Any = "cpu",
        callbacks: Any = (),
        checkpoint: Any = None,
        absent_classes: AbsentClasses = "error",
    ) -> SyntheticSet:
        assert self.released is not None
        return self.method.distil_noisy(
            self.released, size, seed=seed, budget=budget, device=device, absent_classes=absent_classes
        )
