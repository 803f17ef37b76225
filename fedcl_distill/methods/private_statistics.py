"""Statistics first, privately: one noisy release of class-wise sums, from which samples are distilled."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch

from fedcl_distill.data.dataset import DataLike, as_labelled
from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.engine import Budget, Callback, Size
from fedcl_distill.engine.size import AbsentClasses
from fedcl_distill.files import remove
from fedcl_distill.labels import HardLabels, Labels
from fedcl_distill.methods.private import beside, checked_range, checked_target
from fedcl_distill.methods.registry import register_method
from fedcl_distill.networks import ArchitectureLike
from fedcl_distill.parameterizations import PARAMETERIZATIONS, Parameterization
from fedcl_distill.privacy import NoiseSource, PrivacyBudget, PrivacyTarget, publicly_scaled
from fedcl_distill.privacy.accounting import KEY
from fedcl_distill.registry import Plain
from fedcl_distill.settings import Count, Natural, NonNegative, Positive, Range, checked, settings
from fedcl_distill.statistics import NoisyStatistics, Shares, StatisticsDistiller, StatisticsSpec, release
from fedcl_distill.statistics.noisy import kept_release, release_origin
from fedcl_distill.synthetic import SyntheticSet


@settings
class PrivateStatistics:
    """Releases noisy statistics once and distils those: after the release the data are not looked at.

    Attributes:
        spec, shares: what is released.
        distiller: what follows; post-processing.
        target: ε and δ; None for no noise and no guarantee.
        ledger: what the data may release.
        public_range: of values that are no pixels of 8 bits, known without the data; they are clamped to it.
        noise_seed: draw the noise from this seed, which guarantees nothing; None takes the operating system.
    """

    name: ClassVar[str] = "private-statistics"
    spec: StatisticsSpec
    shares: Shares
    distiller: StatisticsDistiller
    target: PrivacyTarget | None
    ledger: PrivacyBudget | None = None
    noise_seed: Natural | None = None
    public_range: tuple[float, float] | None = None
    labels: Labels = field(default_factory=HardLabels)

    def with_bits(self, bits: int) -> PrivateStatistics:
        """This method for a payload of ``bits``; rounding is post-processing, so that the guarantee stays."""
        return replace(self, distiller=replace(self.distiller, bits=bits))

    @property
    def parameterization(self) -> Parameterization:
        return PARAMETERIZATIONS.build(self.distiller.parameterization)

    @checked
    def distil(
        self,
        real: DataLike,
        size: Size,
        *,
        seed: int = 0,
        budget: Budget | None = None,
        device: str | torch.device = "cpu",
        callbacks: Sequence[Callback] = (),
        checkpoint: str | os.PathLike[str] | None = None,
        absent_classes: AbsentClasses = "error",
    ) -> SyntheticSet:
        """See :meth:`~fedcl_distill.engine.Distiller.distil`; ``seed`` fixes all but the noise.

        A run with a checkpoint keeps what it released beside it (``.release``, readable by its owner alone), and goes
        on with that where it resumes: records are asked once. The file goes with the checkpoint. Classes and counts
        are what the noisy release says of them.
        """
        real = as_labelled(real)
        data = publicly_scaled(real, value_range=self.public_range)
        keeps = checkpoint is not None and self.target is not None and self.noise_seed is None
        kept = beside(checkpoint, ".release") if checkpoint is not None and keeps else None
        noisy = self._released(data, kept, device)
        synthetic = self.distil_noisy(
            noisy,
            size,
            seed=seed,
            budget=budget,
            device=device,
            callbacks=callbacks,
            checkpoint=checkpoint,
            absent_classes=absent_classes,
        )
        if kept is not None and not synthetic.provenance["interrupted"]:
            remove(kept)
        return replace(synthetic, provenance={**synthetic.provenance, "data": real.name})

    def _released(self, data: LabelledData, kept: Path | None, device: str | torch.device) -> NoisyStatistics:
        """A new release, or the one in the file ``kept``."""
        noise = NoiseSource.fresh() if self.noise_seed is None else NoiseSource.seeded(self.noise_seed)
        if kept is None:
            return self.release(data, noise, device=device)
        origin = release_origin(data, self.spec, self.target, self.shares, device)
        make = partial(self.release, data, noise, device=device)
        return kept_release(kept, origin, self.spec, data.spec, self.shares, make)

    def release(
        self, data: LabelledData, noise: NoiseSource, *, part: str = "", device: str | torch.device = "cpu"
    ) -> NoisyStatistics:
        """The noisy statistics of ``data``, publicly scaled; paid from the ledger, if there is one."""
        return release(
            data, self.spec, self.target, shares=self.shares, noise=noise, budget=self.ledger, part=part, device=device
        )

    def distil_noisy(
        self,
        noisy: NoisyStatistics,
        size: Size,
        *,
        seed: int,
        budget: Budget | None = None,
        device: str | torch.device = "cpu",
        callbacks: Sequence[Callback] = (),
        checkpoint: str | os.PathLike[str] | None = None,
        absent_classes: AbsentClasses = "error",
    ) -> SyntheticSet:
        """Samples from ``noisy`` statistics, with their guarantee."""
        synthetic = self.distiller.distil(
            noisy.as_statistics(),
            size,
            seed=seed,
            budget=budget,
            device=device,
            callbacks=callbacks,
            checkpoint=checkpoint,
            absent_classes=absent_classes,
        )
        guarantee = {} if noisy.guarantee is None else {KEY: noisy.guarantee.as_record()}
        return replace(synthetic, provenance={**synthetic.provenance, "method": self.name, **guarantee})


@register_method(
    "private-statistics",
    family="differentially private",
    paper="distribution matching (Zhao and Bilen 2023) on one noisy release (Dwork et al. 2006)",
    choose_when="records must be protected and classes have thousands of them: one noisy sum, then anything you like",
)
def private_statistics(
    *,
    epsilon: NonNegative | None = 1.0,
    delta: Annotated[float, Range(gt=0, lt=1)] = 1e-5,
    views: Annotated[int, Range(ge=2)] = 20,
    dimensions: Natural = 64,
    kind: Literal["mean", "direction", "characteristic"] = "direction",
    frequency: Positive = 4.0,
    architecture: ArchitectureLike | None = None,
    augment: bool = True,
    moments: Natural = 4,
    shares: Shares | None = None,
    init: Literal["moments", "noise"] = "moments",
    parameterization: Parameterization | Plain = "pixels",
    learning_rate: Positive = 30.0,
    steps_per_network: Count = 1,
    statistics_seed: Natural = 0,
    public_range: Sequence[float] | None = None,
    noise_seed: Natural | None = None,
    ledger: PrivacyBudget | None = None,
) -> PrivateStatistics:
    """Class-wise sums and counts with Gaussian noise, once; then distribution matching with these sums.

    Each record is hidden in a sum over its class, so that the more records, the better: noise costs little from some
    thousand records a class on. See :class:`~fedcl_distill.statistics.StatisticsSpec` for what is summed.

    Args:
        epsilon, delta: of the guarantee, for a record added or removed; None or 0 adds no noise.
        views, dimensions, kind, frequency, architecture, augment, moments: of the statistics. Noise in each number
            grows with the root of all numbers' norm: more views are better only up to a point.
        shares: how precision is divided over features, mean samples, moments and counts.
        init, parameterization, learning_rate, steps_per_network: see
            :class:`~fedcl_distill.statistics.StatisticsDistiller`. Directions have length 1, embeddings of ConvNets
            many times that: losses are as much smaller, and the rate larger.
        statistics_seed: of the random networks; public.
        public_range: of values that are no pixels of 8 bits, known without the data; they are clamped to it.
        noise_seed: draws the noise from this seed, and so guarantees nothing; for tests.
        ledger: from which the release is paid.
    """
    return PrivateStatistics(
        StatisticsSpec(
            seed=statistics_seed,
            views=views,
            architecture=architecture,
            kind=kind,
            dimensions=dimensions,
            frequency=frequency,
            moments=moments,
            augment=augment,
        ),
        shares or Shares(),
        StatisticsDistiller(
            init=init,
            parameterization=parameterization,
            learning_rate=learning_rate,
            steps_per_network=steps_per_network,
        ),
        checked_target(epsilon, delta),
        ledger,
        noise_seed,
        checked_range(public_range),
    )
