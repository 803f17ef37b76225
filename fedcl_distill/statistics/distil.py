"""Distilling from sums alone."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import torch
from torch import Tensor

from fedcl_distill.augmentation import NoAugmentation
from fedcl_distill.context import RealSampler, SyntheticBatch
from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.engine import SGD, Budget, Callback, Engine, Initial, Noise, Run, Size
from fedcl_distill.engine.size import AbsentClasses, count_per_class
from fedcl_distill.errors import SettingsError
from fedcl_distill.network_sources import NoNetwork
from fedcl_distill.objectives.base import MatchContext, Objective
from fedcl_distill.objectives.distribution import ClassMeans, distances_of_means
from fedcl_distill.parameterizations import PARAMETERIZATIONS, GeneratorLatents, Parameterization
from fedcl_distill.registry import Plain, build_with
from fedcl_distill.seeding import generator_for
from fedcl_distill.settings import Count, Fraction, Momentum, Natural, Range, checked, settings
from fedcl_distill.statistics.spec import FeatureMap, coarse, coarse_shape, feature_map, fine, from_products
from fedcl_distill.statistics.sums import FEATURES, MOMENTS, SAMPLES, ClassStatistics
from fedcl_distill.synthetic import SyntheticSet
from fedcl_distill.synthetic.quantise import check_bits


@dataclass(frozen=True, eq=False)
class FromMoments:
    """The mean of the class, plus coarse Gaussian variation with the covariance that the statistics tell.

    Where they tell no second moments, the variation is white noise of the data's own deviation. Values are clamped to
    the range of real ones.

    Attributes:
        statistics: of all data together.
    """

    statistics: ClassStatistics

    def samples(self, real: LabelledData, counts: Sequence[int], *, seed: int) -> Tensor:
        shape = self.statistics.domain.sample_shape
        parts = []
        for label, count in enumerate(counts):
            generator = generator_for(seed, "moments", label)
            mean = self.statistics.sums[SAMPLES].means[0, label].float().view(shape)
            parts.append(mean + self._variation(label, count, generator))
        low, high = real.value_range
        normalisation = self.statistics.domain.normalisation
        return normalisation.apply(normalisation.invert(torch.cat(parts)).clamp(low, high))

    def _variation(self, label: int, count: int, generator: torch.Generator) -> Tensor:
        """float32 (count, …), of mean 0."""
        statistics = self.statistics
        shape = coarse_shape(statistics.spec, statistics.domain)
        if shape is None:
            return torch.randn(count, *statistics.domain.sample_shape, generator=generator)
        root = self._root_of_covariance(label, shape)
        white = torch.randn(count, len(root), generator=generator)
        return fine(white @ root.T, shape, statistics.domain.sample_shape)

    def _root_of_covariance(self, label: int, shape: tuple[int, ...]) -> Tensor:
        """float32 (size, size): its product with its transpose is the covariance of coarse samples of this class."""
        statistics = self.statistics
        mean = coarse(statistics.sums[SAMPLES].means[0, label].view(1, *statistics.domain.sample_shape), shape)[0]
        second = from_products(statistics.sums[MOMENTS].means[0, label], len(mean))
        values, vectors = torch.linalg.eigh(second - torch.outer(mean, mean))
        root: Tensor = (vectors * values.clamp(min=0).sqrt()).float()
        return root

    def describe(self) -> str:
        """The statistics themselves stand with the objective."""
        return FROM_MOMENTS


@dataclass
class HeldOutViews(Callback):
    """Ends a run once the mismatch in held-out views no longer falls, and goes back to where it was least.

    That needs no data beside the statistics.

    Attributes:
        objective: whose last views are held out.
        parameterization: decodes the samples.
        classes: int64 (n,): of the decoded samples.
        every: steps from one check to the next.
        patience: so many checks in a row may find nothing better.
        mismatches: what the checks found, in turn.
    """

    objective: StatisticsMatching
    parameterization: Parameterization
    classes: Tensor
    every: int = 100
    patience: int = 3
    mismatches: list[float] = field(default_factory=list)
    _best: dict[str, Tensor] = field(default_factory=dict)

    def on_step(self, run: Run) -> None:
        if run.state.step % self.every:
            return
        self.mismatches.append(self._mismatch(run))
        best = self.mismatches.index(min(self.mismatches))
        if best == len(self.mismatches) - 1:
            self._best = {name: array.detach().clone() for name, array in run.state.arrays.items()}
        run.ended = run.ended or len(self.mismatches) - 1 - best >= self.patience

    @torch.no_grad()
    def on_end(self, run: Run) -> None:
        if self._best and self._mismatch(run) > min(self.mismatches):
            for name, array in run.state.arrays.items():
                array.copy_(self._best[name])

    @torch.no_grad()
    def _mismatch(self, run: Run) -> float:
        inputs = self.parameterization.decode(run.state.arrays)
        classes = self.classes.to(inputs.device)
        return statistics.fmean(
            self.objective.mismatch(view, inputs, classes) for view in self.objective.held_out_views
        )


@dataclass(frozen=True)
class ViewTarget:
    """One view of the statistics: how it looks at samples, and what the real ones gave."""

    features: FeatureMap
    real: ClassMeans


@settings(eq=False)
class StatisticsMatching(Objective[ViewTarget]):
    """Σ over classes of ‖mean of the statistics − mean of the synthetic samples‖² in one view at a time.

    That is distribution matching (Zhao and Bilen 2023, equation 6) where the real side was summed beforehand. Views are
    taken in turn; those held out never are. The real data of a run are not looked at, and the networks are those of the
    statistics.

    Attributes:
        statistics: of all data together.
        held_out: so many of the last views are left out, to tell by when the samples fit the others all too well.

    Raises:
        SettingsError: on construction, if no view is left.
    """

    name: ClassVar[str] = "statistics-matching"
    needs_network: ClassVar[bool] = False

    statistics: ClassStatistics
    held_out: Natural = 0

    def __post_init__(self) -> None:
        if self.held_out >= self.statistics.spec.views:
            raise SettingsError(
                f"StatisticsMatching: held_out must be less than the {self.statistics.spec.views} views of the "
                f"statistics, got {self.held_out}"
            )

    def describe(self) -> dict[str, Any]:
        """The plain form, in which a digest stands for the sums."""
        return {
            "name": self.name,
            "statistics": self.statistics.spec.settings(),
            "statistics_digest": self.statistics.digest(),
            "held_out": self.held_out,
        }

    @property
    def views(self) -> range:
        """The views that are matched."""
        return range(self.statistics.spec.views - self.held_out)

    @property
    def held_out_views(self) -> range:
        """The views that are not."""
        return range(self.statistics.spec.views - self.held_out, self.statistics.spec.views)

    def target(self, view: MatchContext, real: RealSampler) -> ViewTarget:
        return self.look(self.views[view.index % len(self.views)], real.device)

    def look(self, number: int, device: torch.device) -> ViewTarget:
        """The view of this number."""
        statistics = self.statistics
        features, sums = feature_map(statistics.spec, statistics.domain, number, device), statistics.sums[FEATURES]
        means = ClassMeans(sums.means[number].float().to(device), (sums.counts[number] > 0).to(device))
        return ViewTarget(features, means)

    def losses(self, view: MatchContext, target: ViewTarget, synthetic: SyntheticBatch) -> Iterator[Tensor]:
        yield from distances_of_means(target.features, target.real, synthetic.inputs, synthetic.classes)

    @torch.no_grad()
    def mismatch(self, number: int, inputs: Tensor, classes: Tensor) -> float:
        """The loss of samples, float32 (n, …), of these classes in the view of this number."""
        target = self.look(number, inputs.device)
        return sum(loss.item() for loss in distances_of_means(target.features, target.real, inputs, classes))


FROM_MOMENTS: Literal["moments"] = "moments"
FROM_NOISE: Literal["noise"] = "noise"
_LARGEST = 1e6


@settings
class StatisticsDistiller:
    """Makes synthetic samples whose class means in every view are those of statistics; no real sample is needed.

    Attributes:
        init: "moments" starts from what the statistics tell of the samples themselves, "noise" from white noise.
        parameterization: how samples are stored, such as "tiles:factor=2".
        learning_rate, momentum: of SGD.
        decay_start: see :class:`~fedcl_distill.engine.MethodSpec`.
        steps_per_network: synthetic steps in each view before the next one's turn.
        clamp: keep pixels inside the data's value range.
        held_out: so many views are not matched, but tell when to stop: where their mismatch no longer falls, the run
            ends, with the samples that had the least. For long runs on few views.
        bits: depth in which the result will be sent, as for :class:`~fedcl_distill.engine.MethodSpec`.

    Raises:
        SettingsError: on construction, if a value is of the wrong type, out of range or unknown, or if the
            parameterization learns from real samples.
    """

    init: Literal["moments", "noise"] = FROM_MOMENTS
    parameterization: Parameterization | Plain = "pixels"
    learning_rate: Annotated[float, Range(ge=0, le=_LARGEST)] = 1.0
    momentum: Momentum = 0.5
    decay_start: Fraction = 0.5
    steps_per_network: Count = 1
    clamp: bool = False
    held_out: Natural = 0
    bits: int = 32

    def __post_init__(self) -> None:
        check_bits(self.bits)
        if isinstance(PARAMETERIZATIONS.build(self.parameterization), GeneratorLatents):
            raise SettingsError("a generator learns from real samples, of which statistics hold none")

    @checked
    def distil(
        self,
        statistics: ClassStatistics,
        size: Size,
        *,
        seed: int = 0,
        budget: Budget | None = None,
        device: str | torch.device = "cpu",
        callbacks: Sequence[Callback] = (),
        checkpoint: str | os.PathLike[str] | None = None,
        absent_classes: AbsentClasses = "error",
    ) -> SyntheticSet:
        """Distil ``statistics``; see :func:`distil_statistics`."""
        if self.held_out and checkpoint is not None:
            raise SettingsError("a checkpoint does not hold what held-out views found; take one or the other")
        engine, blank = self._engine(statistics, budget), statistics.as_blank_data()
        watching = [self._stopping(engine, blank, size, absent_classes)] if self.held_out else []
        return engine.distil(
            blank,
            size,
            seed=seed,
            device=device,
            callbacks=[*callbacks, *watching],
            checkpoint=checkpoint,
            absent_classes=absent_classes,
        )

    def _engine(self, statistics: ClassStatistics, budget: Budget | None) -> Engine:
        init: Initial = Noise() if self.init == FROM_NOISE else FromMoments(statistics)
        return Engine(
            name="statistics",
            objective=StatisticsMatching(statistics, self.held_out),
            networks=NoNetwork(),
            augmentation=NoAugmentation(),  # views have their own
            parameterization=PARAMETERIZATIONS.build(self.parameterization),
            init=init,
            optimiser=SGD(self.learning_rate, self.momentum),
            decay_start=self.decay_start,
            budget=budget or Budget(steps=2_000),
            steps_per_network=self.steps_per_network,
            clamp=self.clamp,
            bits=self.bits,
        )

    def _stopping(self, engine: Engine, blank: LabelledData, size: Size, absent_classes: AbsentClasses) -> HeldOutViews:
        how = engine.parameterization
        counts = how.decoded_counts(count_per_class(size, blank, how, absent_classes), blank.sample_shape)
        classes = torch.arange(blank.num_classes).repeat_interleave(torch.tensor(counts))
        assert isinstance(engine.objective, StatisticsMatching)
        return HeldOutViews(engine.objective, how, classes)


def distil_statistics(
    statistics: ClassStatistics,
    size: Size,
    *,
    seed: int,
    budget: Budget | None = None,
    device: str | torch.device = "cpu",
    callbacks: Sequence[Callback] = (),
    checkpoint: str | os.PathLike[str] | None = None,
    absent_classes: AbsentClasses = "error",
    **settings: Any,
) -> SyntheticSet:
    """Synthetic samples made from ``statistics`` alone.

    Args:
        statistics: of all data together.
        size: samples a class, a count for every class, or a :class:`ByteBudget`; never more than were counted.
        seed: fixes the result (same machine, device and thread count, budget in steps).
        budget: steps or seconds; 2,000 steps by default.
        device, callbacks, checkpoint, absent_classes: see :meth:`~fedcl_distill.engine.Distiller.distil`.
        settings: the fields of :class:`StatisticsDistiller`, such as ``parameterization="tiles:factor=2"``.

    Raises:
        SettingsError: a setting is unknown, does not fit the data or needs real samples, or held-out views meet a
            checkpoint, which does not hold what they found.
        DataError: a class without samples, or more.
        DivergenceError: the loss stopped being finite.
        CheckpointError: ``checkpoint`` is damaged or belongs to another run.
    """
    return build_with("statistics", StatisticsDistiller, settings).distil(
        statistics,
        size,
        seed=seed,
        budget=budget,
        device=device,
        callbacks=callbacks,
        checkpoint=checkpoint,
        absent_classes=absent_classes,
    )
