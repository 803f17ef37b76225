"""Distillation from statistics alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from fedcl_distill.augmentation import NoAugmentation
from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.engine import SGD, Budget, Callback, Engine, Initial, Noise, Size
from fedcl_distill.engine.size import AbsentClasses, count_per_class
from fedcl_distill.errors import SettingsError
from fedcl_distill.network_sources import NoNetwork
from fedcl_distill.parameterizations import GeneratorLatents, Parameterization, as_parameterization
from fedcl_distill.statistics.early_stop import HeldOutViews
from fedcl_distill.statistics.initial import FromMoments
from fedcl_distill.statistics.matching import StatisticsMatching
from fedcl_distill.statistics.sums import ClassStatistics
from fedcl_distill.synthetic import SyntheticSet

MOMENTS, NOISE = "moments", "noise"
_LARGEST = 1e6


@dataclass(frozen=True)
class StatisticsDistiller:
    """Makes synthetic samples whose class means in every view are those of statistics; no real sample is needed.

    Attributes:
        initial: "moments" starts from what the statistics tell of the samples themselves, "noise" from white noise.
        parameterization: how samples are stored, such as "tiles:factor=2"; None takes pixels.
        learning_rate, momentum, decay_from: see :class:`~fedcl_distill.engine.SGD`.
        steps_per_view: synthetic steps in each view before the next one's turn.
        clamp: keep pixels inside the data's value range.
        held_out: so many views are not matched, but tell when to stop: where their mismatch no longer falls, the run
            ends, with the samples that had the least. For long runs on few views.

    Raises:
        SettingsError: on construction, if a value is of the wrong type, out of range or unknown, or if the
            parameterization learns from real samples.
    """

    initial: str = MOMENTS
    parameterization: Parameterization | str | None = None
    learning_rate: float = 1.0
    momentum: float = 0.5
    decay_from: float = 0.5
    steps_per_view: int = 1
    clamp: bool = False
    held_out: int = 0

    def __post_init__(self) -> None:
        if self.initial not in (MOMENTS, NOISE):
            raise SettingsError(f"unknown initial samples {self.initial!r}; statistics know: {MOMENTS}, {NOISE}")
        if isinstance(as_parameterization(self.parameterization), GeneratorLatents):
            raise SettingsError("a generator learns from real samples, of which statistics hold none")
        for name, least, most in (("learning_rate", 0, _LARGEST), ("momentum", 0, 1), ("decay_from", 0, 1)):
            value = getattr(self, name)
            if type(value) not in (int, float) or not least <= value <= most:
                raise SettingsError(f"statistics: {name} must be a number in [{least}, {most:g}], got {value!r}")
        for name, least in (("steps_per_view", 1), ("held_out", 0)):
            if type(getattr(self, name)) is not int or getattr(self, name) < least:
                raise SettingsError(f"statistics: {name} must be an integer ≥ {least}, got {getattr(self, name)!r}")
        if type(self.clamp) is not bool:
            raise SettingsError(f"statistics: clamp must be true or false, got {self.clamp!r}")

    def distil(
        self,
        statistics: ClassStatistics,
        size: Size,
        *,
        seed: int,
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
        initial: Initial = Noise() if self.initial == NOISE else FromMoments(statistics)
        return Engine(
            name="statistics",
            objective=StatisticsMatching(statistics, self.held_out),
            networks=NoNetwork(),
            augmentation=NoAugmentation(),  # views have their own
            parameterization=as_parameterization(self.parameterization),
            initial=initial,
            optimiser=SGD(learning_rate=self.learning_rate, momentum=self.momentum, decay_from=self.decay_from),
            budget=budget or Budget(steps=2_000),
            steps_per_view=self.steps_per_view,
            clamp=self.clamp,
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
    known = list(StatisticsDistiller.__dataclass_fields__)
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise SettingsError(f"statistics have no setting {', '.join(unknown)}; they have: {', '.join(known)}")
    return StatisticsDistiller(**settings).distil(
        statistics,
        size,
        seed=seed,
        budget=budget,
        device=device,
        callbacks=callbacks,
        checkpoint=checkpoint,
        absent_classes=absent_classes,
    )
