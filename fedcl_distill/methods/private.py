"""Private methods: PSG (Chen, Kerkouche and Fritz 2022), noisy statistics, and what they have in common."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import torch

from fedcl_distill.augmentation import Augmentation, Transform, as_augmentation
from fedcl_distill.checkpoint import fingerprint
from fedcl_distill.data.dataset import DataLike
from fedcl_distill.data.labelled import LabelledData, as_labelled
from fedcl_distill.engine import Budget, ByteBudget, Callback, Engine, Noise, Size
from fedcl_distill.engine.size import AbsentClasses
from fedcl_distill.errors import CheckpointError, SettingsError
from fedcl_distill.files import remove
from fedcl_distill.labels import HardLabels, Labels
from fedcl_distill.methods.registry import SECOND_DERIVATIVES, register_method, takes_optimiser
from fedcl_distill.network_sources import FreshRandom, TrainedOnSynthetic
from fedcl_distill.networks import ArchitectureLike, as_architecture
from fedcl_distill.networks.base import as_device
from fedcl_distill.objectives import DISTANCES, Distance, GradientMatching
from fedcl_distill.objectives.private_gradients import PrivateGradientMatching
from fedcl_distill.optimisers import SGD, Optimiser, as_optimiser
from fedcl_distill.parameterizations import PARAMETERIZATIONS, GeneratorLatents, Parameterization
from fedcl_distill.privacy import Guarantee, NoiseSource, PrivacyBudget, PrivacyTarget, Release, publicly_scaled
from fedcl_distill.privacy.accounting import KEY
from fedcl_distill.registry import Plain
from fedcl_distill.settings import Count, Fraction, Momentum, Natural, NonNegative, Positive, Range, checked, settings
from fedcl_distill.statistics import NoisyStatistics, Shares, StatisticsDistiller, StatisticsSpec, release
from fedcl_distill.statistics.noisy import kept_release, release_origin
from fedcl_distill.synthetic import SyntheticSet


def checked_target(epsilon: float | None, delta: float) -> PrivacyTarget | None:
    """The target of a method's settings; None for no noise, which settings files write as 0.

    Raises:
        SettingsError: a value is out of range.
    """
    target = PrivacyTarget(epsilon or 1.0, delta)
    return target if epsilon else None


def checked_range(given: Sequence[float] | None) -> tuple[float, float] | None:
    """A public range of a method's settings; None for images of 8 bits, which have one.

    Raises:
        SettingsError: it is not two numbers that ascend.
    """
    if given is None:
        return None
    if len(given) != 2 or not all(type(one) in (int, float) for one in given) or not given[0] < given[1]:
        raise SettingsError(f"public_range must be two numbers that ascend, got {given!r}")
    return float(given[0]), float(given[1])


def beside(checkpoint: str | os.PathLike[str], suffix: str) -> Path:
    """Where a run keeps, beside its checkpoint, what makes sure that it asks its records nothing twice.

    Raises:
        CheckpointError: the checkpoint is there without it: what was released before is not known.
    """
    path = Path(f"{os.fspath(checkpoint)}{suffix}")
    if Path(checkpoint).exists() and not path.exists():
        raise CheckpointError(f"checkpoint {checkpoint} is there without {path}; remove it to release anew")
    return path


def noise_for(seed: int | None, checkpoint: str | os.PathLike[str] | None, origin: str) -> NoiseSource:
    """Noise from ``seed``, below the key kept beside ``checkpoint`` for the releases ``origin``, or fresh."""
    if seed is not None:
        return NoiseSource.seeded(seed)
    return NoiseSource.fresh() if checkpoint is None else NoiseSource.kept(beside(checkpoint, NOISE), origin)


NOISE = ".noise"
"""What the file with a key has after the name of the checkpoint."""


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


@settings
class PrivateSetGeneration:
    """Runs gradient matching on blank data; the real ones are seen through a sampled Gaussian mechanism alone.

    Attributes:
        engine: all parts; its objective says how gradients are compared.
        target: ε and δ; None for clipping without noise, which guarantees nothing.
        expected_batch: records in a query, in the mean.
        clip: L2 norm of one record's gradient, at most.
        ledger: what the data may release.
        public_range: of values that are no pixels of 8 bits, known without the data; they are clamped to it.
        noise_seed: draw noise and batches from this seed, which guarantees nothing; None takes the operating system.

    Raises:
        SettingsError: on construction, if a value is out of range or a part would look at real samples.
    """

    name: ClassVar[str] = "psg"
    engine: Engine
    target: PrivacyTarget | None
    expected_batch: Count
    clip: Positive
    ledger: PrivacyBudget | None = None
    noise_seed: Natural | None = None
    public_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.parameterization, GeneratorLatents):
            raise SettingsError("psg: a generator learns from real samples, which no noise would hide")
        if self.target is None and self.ledger is not None:
            raise SettingsError("a run without noise cannot be paid from a privacy budget")

    def with_bits(self, bits: int) -> PrivateSetGeneration:
        """This method for a payload of ``bits``; rounding is post-processing, so that the guarantee stays."""
        return replace(self, engine=replace(self.engine, bits=bits))

    @property
    def parameterization(self) -> Parameterization:
        return self.engine.parameterization

    @property
    def labels(self) -> Labels:
        return self.engine.labels

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
        """See :meth:`~fedcl_distill.engine.Distiller.distil`; ``seed`` fixes all but noise and batches.

        The number of records is taken to be public; which class has how many is not, so that every class gets as many
        samples as asked for, whether or not there are real ones. A run that resumes finds the key of its noise beside
        the checkpoint, and so repeats what it had asked before instead of asking more.

        Raises:
            SettingsError: as for any distiller, and where the budget has no number of steps: noise is set beforehand.
            PrivacyError: the ledger does not cover it.
            DependencyError: dp-accounting is not installed.
        """
        real = as_labelled(real)
        data, budget = publicly_scaled(real, value_range=self.public_range), budget or self.engine.budget
        blank = _blank(data, size)
        rate = min(1.0, self.expected_batch / len(data))
        guarantee = self._guarantee(rate, budget, seeded=self.noise_seed is not None)
        origin = self._origin(data, size, budget, seed, device, guarantee)
        noise = noise_for(self.noise_seed, checkpoint, origin)
        if self.ledger is not None and guarantee is not None:
            self.ledger.spend(Release(noise.name(origin), f"psg of {real.name}", guarantee.mechanism))
        matching = self.engine.objective
        assert isinstance(matching, GradientMatching)
        multiplier = 0.0 if guarantee is None else guarantee.mechanism.noise_multiplier
        private = PrivateGradientMatching(matching, data, rate, self.clip, multiplier, noise)
        synthetic = replace(self.engine, objective=private).distil(
            blank, size, seed=seed, budget=budget, device=device, callbacks=callbacks, checkpoint=checkpoint
        )
        if checkpoint is not None and not synthetic.provenance["interrupted"]:
            remove(f"{os.fspath(checkpoint)}{NOISE}")
        return replace(synthetic, provenance=_provenance(synthetic, real, guarantee))

    def _origin(
        self,
        data: LabelledData,
        size: Size,
        budget: Budget,
        seed: int,
        device: str | torch.device,
        guarantee: Guarantee | None,
    ) -> str:
        """Everything that goes into the queries but their noise, as a digest."""
        wanted = repr(size if isinstance(size, ByteBudget | int) else [int(count) for count in size])
        claim = None if guarantee is None else guarantee.as_record()
        run = [self.engine.settings(), self.clip, self.expected_batch, seed, wanted, budget.steps]
        return fingerprint(data, [*run, as_device(device).type, claim])

    def _guarantee(self, rate: float, budget: Budget, *, seeded: bool) -> Guarantee | None:
        """Of as many views as the steps need, of which each is one query; None without noise."""
        if self.target is None:
            return None
        if budget.steps is None:
            raise SettingsError("psg: how much noise is needed follows from the number of steps; give steps")
        queries = max(1, -(-budget.steps // self.engine.steps_per_network))
        return self.target.guarantee(self.clip, sampling_rate=rate, queries=queries, seeded=seeded)


@register_method(
    "psg",
    family="differentially private",
    paper="Chen et al. 2022, Private Set Generation with Discriminative Information",
    choose_when="records must be protected, and you want the published method; it takes many steps",
    needs=(SECOND_DERIVATIVES,),
)
@takes_optimiser("learning_rate", "momentum")
def psg(
    *,
    epsilon: NonNegative | None = 10.0,
    delta: Annotated[float, Range(gt=0, lt=1)] = 1e-5,
    clip: Positive = 0.1,
    expected_batch: Count = 256,
    over: Literal["all", "class"] = "class",
    architecture: ArchitectureLike | None = None,
    augmentation: Augmentation | Transform | Plain | None = "none",
    parameterization: Parameterization | Plain = "pixels",
    optimiser: Optimiser | Plain | None = None,
    learning_rate: Positive = 0.1,
    momentum: Momentum = 0.5,
    decay_start: Fraction = 1.0,
    distance: Distance | Plain = "cosine",
    views_per_network: Count | None = None,
    passes_between: Natural | None = None,
    network_learning_rate: Positive = 0.01,
    steps_per_network: Count = 1,
    clamp: bool = False,
    public_range: Sequence[float] | None = None,
    noise_seed: Natural | None = None,
    ledger: PrivacyBudget | None = None,
    budget: Budget | None = None,
) -> PrivateSetGeneration:
    """Gradient matching from noise, with noise on clipped gradients of the real side (Chen et al. 2022).

    Only what touches real records is noisy: networks learn from the synthetic samples, as in DC; samples start from
    noise, with labels spread evenly; inputs are scaled to [-1, 1] whatever the data. Batch norm is refused.

    Args:
        epsilon, delta: of the guarantee, for a record added or removed; None or 0 clips, but adds no noise.
        clip: L2 norm of one record's gradient, at most (the authors' 0.1).
        expected_batch: records in a query, in the mean (the authors' 256).
        over: "class" compares the gradients of every class by itself, each with the noise that the whole batch would
            need: a record is in one class alone. "all" compares those of the whole batch.
        architecture, augmentation, parameterization, optimiser, learning_rate, momentum, decay_start, distance,
            views_per_network, passes_between, network_learning_rate, steps_per_network, clamp: as for ``dc``.
            Several steps a view take fewer queries, and so less noise.
        public_range: of values that are no pixels of 8 bits, known without the data; they are clamped to it.
        noise_seed: draws noise and batches from this seed, and so guarantees nothing; for tests.
        ledger: from which the run is paid.
        budget: where a call gives none.
    """
    augmented = as_augmentation(augmentation)
    engine = Engine(
        name="psg",
        objective=GradientMatching(distance=DISTANCES.build(distance), over=over),
        networks=TrainedOnSynthetic(
            start=FreshRandom(as_architecture(architecture)),
            views_per_network=views_per_network,
            passes_between=passes_between,
            learning_rate=network_learning_rate,
            augmentation=augmented,
        ),
        init=Noise(),
        augmentation=augmented,
        parameterization=PARAMETERIZATIONS.build(parameterization),
        optimiser=as_optimiser(optimiser or SGD(learning_rate=learning_rate, momentum=momentum)),
        decay_start=decay_start,
        budget=budget or Budget(steps=10_000),
        steps_per_network=steps_per_network,
        clamp=clamp,
    )
    return PrivateSetGeneration(
        engine,
        checked_target(epsilon, delta),
        expected_batch,
        clip,
        ledger,
        noise_seed,
        checked_range(public_range),
    )


def _blank(data: LabelledData, size: Size) -> LabelledData:
    """Data of this kind, of which nothing but the number of records follows from those of ``data``."""
    if isinstance(size, ByteBudget):  # no class can get more than all bytes hold
        most = 8 * size.total_bytes // (size.bits * math.prod(data.sample_shape))
        return LabelledData.blank(data.spec, [max(1, min(len(data), most))] * data.num_classes, "statistics")
    counts = [size] * data.num_classes if isinstance(size, int) else [int(count) for count in size]
    return LabelledData.blank(data.spec, [max(count, 1) for count in counts], "statistics")


def _provenance(synthetic: SyntheticSet, real: LabelledData, guarantee: Guarantee | None) -> dict[str, object]:
    """What may be told: counts of blank data say nothing, and those of the real ones would say too much."""
    told = {key: value for key, value in synthetic.provenance.items() if key != "real_counts"}
    claim = {} if guarantee is None else {KEY: guarantee.as_record()}
    return {**told, "data": real.name, "real_records": len(real), **claim}
