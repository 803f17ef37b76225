"""Distillation from statistics alone."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch

from fedcl_distill.augmentation import NoAugmentation
from fedcl_distill.engine import SGD, Budget, Callback, Engine, Initial, Noise, Size
from fedcl_distill.engine.size import AbsentClasses, count_per_class
from fedcl_distill.errors import SettingsError
from fedcl_distill.methods.parts import as_parameterization
from fedcl_distill.network_sources import NoNetwork
from fedcl_distill.parameterizations import GeneratorLatents, Parameterization
from fedcl_distill.statistics.early_stop import HeldOutViews
from fedcl_distill.statistics.initial import FromMoments
from fedcl_distill.statistics.matching import StatisticsMatching
from fedcl_distill.statistics.sums import ClassStatistics
from fedcl_distill.synthetic import SyntheticSet


def distil_statistics(
    statistics: ClassStatistics,
    size: Size,
    *,
    seed: int,
    budget: Budget | None = None,
    initial: str = "moments",
    parameterization: Parameterization | str | None = None,
    learning_rate: float = 1.0,
    momentum: float = 0.5,
    decay_from: float = 0.5,
    steps_per_view: int = 1,
    clamp: bool = False,
    held_out: int = 0,
    device: str | torch.device = "cpu",
    callbacks: Sequence[Callback] = (),
    checkpoint: str | os.PathLike[str] | None = None,
    absent_classes: AbsentClasses = "error",
) -> SyntheticSet:
    """Synthetic samples whose class means under every view are those of ``statistics``; no real sample is needed.

    Args:
        statistics: of all data together.
        size: samples a class, a count for every class, or a :class:`ByteBudget`; never more than were counted.
        seed: fixes the result (same machine, device and thread count, budget in steps).
        budget: steps or seconds; 2,000 steps by default.
        initial: "moments" starts from what the statistics tell of the samples themselves, "noise" from white noise.
        parameterization: how samples are stored, such as "tiles:factor=2"; None takes pixels.
        learning_rate, momentum, decay_from: see :class:`~fedcl_distill.engine.SGD`.
        steps_per_view: synthetic steps in each view before the next one's turn.
        clamp: keep pixels inside the data's value range.
        held_out: so many views are not matched, but tell when to stop: where their mismatch no longer falls, the run
            ends, with the samples that had the least. For long runs on few views.
        device, callbacks, checkpoint, absent_classes: see :meth:`~fedcl_distill.engine.Distiller.distil`.

    Raises:
        SettingsError: a setting is unknown, a part does not fit the data or needs real samples, or held-out views
            meet a checkpoint, which does not hold what they found.
        DataError: a class without samples, or more.
        DivergenceError: the loss stopped being finite.
        CheckpointError: ``checkpoint`` is damaged or belongs to another run.
    """
    how = as_parameterization(parameterization)
    if isinstance(how, GeneratorLatents):
        raise SettingsError("a generator learns from real samples, of which statistics hold none")
    if held_out and checkpoint is not None:
        raise SettingsError("a checkpoint does not hold what held-out views found; take one or the other")
    objective = StatisticsMatching(statistics, held_out)
    engine = Engine(
        name="statistics",
        objective=objective,
        networks=NoNetwork(),
        augmentation=NoAugmentation(),
        parameterization=how,
        initial=_initial(initial, statistics),
        optimiser=SGD(learning_rate=learning_rate, momentum=momentum, decay_from=decay_from),
        budget=budget or Budget(steps=2_000),
        steps_per_view=steps_per_view,
        clamp=clamp,
    )
    blank = statistics.as_blank_data()
    watching = []
    if held_out:
        counts = count_per_class(size, blank, how, absent_classes)
        decoded = torch.tensor(how.decoded_counts(counts, blank.sample_shape))
        classes = torch.arange(blank.num_classes).repeat_interleave(decoded)
        watching.append(HeldOutViews(objective, how, classes))
    return engine.distil(
        blank,
        size,
        seed=seed,
        device=device,
        callbacks=[*callbacks, *watching],
        checkpoint=checkpoint,
        absent_classes=absent_classes,
    )


def _initial(name: str, statistics: ClassStatistics) -> Initial:
    known: dict[str, Initial] = {"moments": FromMoments(statistics), "noise": Noise()}
    if name not in known:
        raise SettingsError(f"unknown initial samples {name!r}; statistics know: {', '.join(known)}")
    return known[name]
