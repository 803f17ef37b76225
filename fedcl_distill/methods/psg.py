"""PSG: private set generation (Chen, Kerkouche and Fritz 2022)."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

import torch

from fedcl_distill.augmentation import Augmentation, Transform, as_augmentation
from fedcl_distill.checkpoint import fingerprint
from fedcl_distill.data.dataset import DataLike, as_labelled
from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.engine import Budget, ByteBudget, Callback, Engine, Noise, Size
from fedcl_distill.engine.size import AbsentClasses
from fedcl_distill.errors import SettingsError
from fedcl_distill.files import remove
from fedcl_distill.labels import Labels
from fedcl_distill.methods.private import NOISE, checked_range, checked_target, noise_for
from fedcl_distill.methods.registry import SECOND_DERIVATIVES, register_method, takes_optimiser
from fedcl_distill.network_sources import FreshRandom, TrainedOnSynthetic
from fedcl_distill.networks import ArchitectureLike, as_architecture
from fedcl_distill.networks.base import as_device
from fedcl_distill.objectives import DISTANCES, Distance, GradientMatching
from fedcl_distill.objectives.private_gradients import PrivateGradientMatching
from fedcl_distill.optimisers import SGD, Optimiser, as_optimiser
from fedcl_distill.parameterizations import PARAMETERIZATIONS, GeneratorLatents, Parameterization
from fedcl_distill.privacy import Guarantee, PrivacyBudget, PrivacyTarget, Release, publicly_scaled
from fedcl_distill.privacy.accounting import KEY
from fedcl_distill.registry import Plain
from fedcl_distill.settings import Count, Fraction, Momentum, Natural, NonNegative, Positive, Range, checked, settings
from fedcl_distill.synthetic import SyntheticSet


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
