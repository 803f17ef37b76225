"""What makes synthetic sets: methods of parts that fit together, the engine that runs them, and core sets."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, fields, replace
from functools import partial
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from fedcl_distill.augmentation import Augmentation, augmentation_for
from fedcl_distill.checkpoint import fingerprint
from fedcl_distill.context import RealSampler, SetupContext
from fedcl_distill.data.dataset import DataLike
from fedcl_distill.data.labelled import LabelledData, as_labelled
from fedcl_distill.engine.loop import Callback, Checkpoints, Forecast, Loop, Run, fake_quantize, observers, prepare
from fedcl_distill.engine.size import (
    AbsentClasses,
    Budget,
    ByteBudget,
    Size,
    count_per_class,
    counts_as_coded,
    cut_to_fit,
    fewer_than_asked,
    settled,
)
from fedcl_distill.errors import SettingsError
from fedcl_distill.labels import HardLabels, Labelling, Labels
from fedcl_distill.network_sources import FreshRandom, NetworkSource, NoNetwork
from fedcl_distill.networks.base import as_device
from fedcl_distill.objectives import Objective
from fedcl_distill.optimisers import SGD, Optimiser
from fedcl_distill.parameterizations import Parameterization, Pixels
from fedcl_distill.registry import Plain, Registry, describe, name_of, parse
from fedcl_distill.seeding import derive_seed, generator_for
from fedcl_distill.selection import SELECTIONS, Criterion, Random, select
from fedcl_distill.settings import Count, Fraction, Positive, checked, settings, suggest
from fedcl_distill.synthetic import SyntheticSet
from fedcl_distill.synthetic.quantise import check_bits


@runtime_checkable
class Initial(Protocol):
    """Gives the first synthetic samples."""

    def samples(self, real: LabelledData, counts: Sequence[int], *, seed: int) -> Tensor:
        """float32 (sum of counts, …) network inputs, in order of class; counts may exceed what a class has."""
        ...


INITS: Registry[Initial] = Registry("initial samples", "fedcl_distill.inits", Initial)
"""Initial samples by name that are not real ones: those go by the names of selections, see :func:`as_init`."""

register_init = INITS.register


@settings
class FromReal:
    """Real samples, chosen by a core-set criterion (random in most papers); repeated where a class has too few."""

    criterion: Criterion = field(default_factory=Random)

    def samples(self, real: LabelledData, counts: Sequence[int], *, seed: int) -> Tensor:
        distinct = [min(count, have) for count, have in zip(counts, real.class_counts.tolist(), strict=True)]
        chosen = torch.split(select(real, distinct, self.criterion, seed=seed), distinct)
        repeated = [rows[torch.arange(count) % len(rows)] for rows, count in zip(chosen, counts, strict=True) if count]
        return real.inputs(torch.cat(repeated))

    def describe(self) -> Any:
        """The criterion: real samples go by its name."""
        return describe(self.criterion)


@register_init("noise")
@settings
class Noise:
    """Gaussian noise of the normalised data's mean and deviation: no real sample is the start of a synthetic one."""

    name: ClassVar[str] = "noise"

    def samples(self, real: LabelledData, counts: Sequence[int], *, seed: int) -> Tensor:
        return torch.randn(sum(counts), *real.sample_shape, generator=generator_for(seed, "noise"))


def as_init(value: Initial | Plain) -> Initial:
    """The initial samples that ``value`` is or describes: "noise", or real ones by the name of a selection.

    Raises:
        SettingsError: it is neither, or a setting is unknown.

    Example:
        >>> as_init("k-center")
        FromReal(criterion=KCenter(embedding=Inputs()))
    """
    if isinstance(value, str | Mapping):
        name = str((parse(value) if isinstance(value, str) else value).get("name"))
        if name in SELECTIONS and name not in INITS:
            return FromReal(SELECTIONS.build(value))
        if name not in INITS:
            raise SettingsError(suggest("initial samples", name, {*INITS.names(), *SELECTIONS.names()}))
    return INITS.build(value)


def check_compatible(
    objective: Objective[Any],
    networks: NetworkSource,
    parameterization: Parameterization,
    labels: Labels,
    *,
    clamp: bool,
) -> None:
    """Return if the parts can work together; settings of a part are its own to check.

    Raises:
        SettingsError: they cannot; the message says why.
    """
    what = name_of(objective)
    if objective.needs_target_network and not networks.gives_target:
        raise SettingsError(
            f"{what} compares with what training on the real data leads to, which {name_of(networks)} networks do not "
            "know; use a source that trains on the real data (expert trajectories, a pretrained pool)"
        )
    if objective.needs_network and isinstance(networks, NoNetwork):
        raise SettingsError(f"{what} looks through networks, and there are none; use FreshRandom, for instance")
    if not objective.needs_network and not isinstance(networks, NoNetwork):
        raise SettingsError(f"{what} has a closed form and looks through no network; use NoNetwork")
    if labels.learning_rate is not None and not objective.reads_labels:
        raise SettingsError(
            f"{what} goes by classes alone, so that learned labels would stay as they are; use hard labels, or a "
            "teacher's"
        )
    if clamp and not parameterization.pixel_arrays:
        raise SettingsError(
            f"parameterization {parameterization.name!r} stores no pixels that could be clamped to the value range"
        )


_PARTS = ("objective", "networks", "augmentation", "parameterization", "labels", "init", "optimiser")


@settings
class MethodSpec:
    """The interchangeable parts of a method, and what belongs to the engine.

    Attributes:
        objective: what must agree between real and synthetic.
        networks: which networks the objective looks through.
        init: what the synthetic samples are before the first step.
        budget: the method's own, where a call gives none.
        augmentation: what is done alike to both sides: an augmentation, or any callable on a batch (see
            :class:`~fedcl_distill.augmentation.CallableAugmentation`); None takes what suits the data.
        parameterization: how the synthetic data are stored and decoded.
        labels: what the samples are labelled with.
        optimiser: of everything learned: any callable that takes parameters, such as
            ``partial(torch.optim.AdamW, lr=0.01)``. Labels and what an objective learns have rates of their own.
        decay_start: fraction of the budget after which all rates fall to 0 along a half cosine; 1 keeps them constant.
            Falling averages out the noise of single views.
        max_grad_norm: gradients of the stored arrays, taken together, are scaled down to this Euclidean norm; None
            leaves them.
        max_step: the same, to the norm at which learning rate times gradient is this much in the root mean square
            over stored values (before momentum, or Adam's own scaling). Unlike a norm it suits sets of any size.
        steps_per_network: synthetic steps for each network, augmentation and real batch; the real side, which costs
            most, is computed once a view. 1 is the published loop.
        clamp: keep stored pixels inside the real data's value range.
        averaging_start: fraction of the budget from which on the result is the mean of all steps' samples (and learned
            labels) instead of the last ones: a rate that stays high then costs no accuracy. 1 takes the last.
        bits: depth in which the result will be sent: below 32, every step sees the stored arrays rounded as the codec
            will round them, and so is the result.
        name: of the method, in provenance and tables.

    Raises:
        SettingsError: on construction, if a value does not fit or the parts cannot work together; the message says
            why.
    """

    objective: Objective[Any]
    networks: NetworkSource = field(default_factory=FreshRandom)
    init: Initial = field(default_factory=FromReal)
    budget: Budget = field(default_factory=lambda: Budget(steps=1_000))
    augmentation: Augmentation | Callable[..., Tensor] | None = None
    parameterization: Parameterization = field(default_factory=Pixels)
    labels: Labels = field(default_factory=HardLabels)
    optimiser: Optimiser = field(default_factory=SGD)
    decay_start: Fraction = 1.0
    max_grad_norm: Positive | None = None
    max_step: Positive | None = None
    steps_per_network: Count = 1
    clamp: bool = False
    averaging_start: Fraction = 1.0
    bits: int = 32
    name: str = "engine"

    def __post_init__(self) -> None:
        check_bits(self.bits)
        check_compatible(self.objective, self.networks, self.parameterization, self.labels, clamp=self.clamp)

    def settings(self) -> dict[str, Any]:
        """The parts in their plain form (see :func:`~fedcl_distill.registry.describe`), and what differs from defaults.

        Returns:
            JSON values: "method", one entry for each of the parts, and other settings that are not at their default.
        """
        others = (one for one in fields(self) if one.name not in (*_PARTS, "name", "budget"))
        changed = {one.name: getattr(self, one.name) for one in others if getattr(self, one.name) != one.default}
        return {"method": self.name, **{part: describe(getattr(self, part)) for part in _PARTS}, **changed}


def finished(synthetic: SyntheticSet) -> SyntheticSet:
    """``synthetic``, unless Ctrl-C ended its distillation early.

    Distillers then return what they have. Who must not pass that off as the whole, such as a result, a client's answer
    or a memory, asks here.

    Raises:
        KeyboardInterrupt: it was interrupted.
    """
    if synthetic.provenance.get("interrupted"):
        raise KeyboardInterrupt
    return synthetic


@runtime_checkable
class Distiller(Protocol):
    """Turns real data into a small set that stands for them."""

    @property
    def name(self) -> str:
        """What provenance, tables and plots call it."""
        ...

    @property
    def parameterization(self) -> Parameterization:
        """How what it returns is stored."""
        ...

    @property
    def labels(self) -> Labels:
        """What it labels samples with."""
        ...

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
        """Distil ``real``.

        Args:
            real: the data: :class:`~fedcl_distill.data.LabelledData`, or whatever
                :func:`~fedcl_distill.data.as_labelled` reads, such as a torch ``Dataset`` or a pair (X, y).
            size: samples a class, a count for every class, or a :class:`ByteBudget`.
            seed: fixes the result (same machine, device and thread count, budget in steps).
            budget: steps or seconds; None takes the method's own. A selection needs none and ignores it.
            device: where to compute, or "auto" for a GPU where there is one; the result is on the CPU.
            callbacks: progress, recording and the like.
            checkpoint: file to continue from if it is there and to save to now and then; removed when done.
            absent_classes: what to do about a class without samples: "error", or "skip" it (clients, experiences).

        Raises:
            DataError: a class without samples, or more.
            SettingsError: an argument is not of its type, or a size or a part of the method does not fit the data.
            DivergenceError: the loss stopped being finite.
            CheckpointError: ``checkpoint`` is damaged or belongs to another run.
        """
        ...


@settings
class Engine(MethodSpec):
    """A distillation method, put together from its :class:`MethodSpec`; itself a :class:`Distiller`."""

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
        """See :meth:`Distiller.distil`. Ctrl-C ends the run early and returns the set as it is by then.

        The latest set (or the average of the latest, see ``averaging_start``) is the best so far: every view estimates
        the loss on a new network, so that a small loss says more about the view than about the set.
        """
        real = as_labelled(real)
        method = replace(self, augmentation=augmentation_for(real, self.augmentation), budget=budget or self.budget)
        started = method.budget.now()
        hooks = [*callbacks, *observers(), Forecast(self.name, chosen=budget is not None)]
        problem = SetupContext(real, seed, as_device(device), report=partial(_report, hooks))
        counts = count_per_class(size, real, self.parameterization, absent_classes, soft_labels=self.labels.soft)
        if isinstance(size, ByteBudget) and not self.labels.soft:
            counts = counts_as_coded(size, problem, self.parameterization, counts)
        try:
            ready = prepare(method, problem, counts, started)
        except BaseException:
            for hook in hooks:
                hook.on_abort()
            raise
        origin = method._origin(real, counts, seed)
        run = Run(ready.state, method.budget, lambda: fingerprint(real, origin))
        if checkpoint is not None:
            hooks.append(Checkpoints(checkpoint))
            run.state.load(checkpoint, run.fingerprint)
        preparation = {"preparation_seconds": round(method.budget.now() - started, 3)}
        interrupted = Loop(method, run, RealSampler(real, problem.device), ready.classes, ready.starts, seed).run(
            hooks, started
        )
        summary = {**preparation, **run.summary(), "interrupted": interrupted, **_short(size, counts, real)}
        arrays, labels = run.state.outcome()
        arrays = settled(self.parameterization, fake_quantize(arrays, self.bits))
        with torch.no_grad():
            labels = ready.labelling.final(self.parameterization.decode(arrays), labels)
        made = SyntheticSet(
            arrays=_on_cpu(arrays),
            parameterization=self.parameterization,
            labels=labels.detach().cpu(),
            spec=real.spec,
            provenance={**origin, **summary},
        )
        return cut_to_fit(made, size) if isinstance(size, ByteBudget) else made

    def with_bits(self, bits: int) -> Engine:
        """This method for a payload of ``bits``; see :func:`quantisation_aware`."""
        return replace(self, bits=bits)

    def _origin(self, real: LabelledData, counts: list[int], seed: int) -> dict[str, Any]:
        return {
            **self.settings(),
            "data": real.name,
            "real_counts": real.class_counts.tolist(),
            "synthetic_counts": counts,
            "seed": seed,
        }


def _short(size: Size, counts: Sequence[int], real: LabelledData) -> dict[str, Any]:
    """What provenance says where classes got fewer samples than asked for: how many, and of how many."""
    short = fewer_than_asked(size, counts, real.class_names)
    return {"fewer_than_asked": {name: list(pair) for name, pair in short.items()}} if short else {}


def quantisation_aware(distiller: Distiller, bits: int) -> Distiller:
    """``distiller``, whose every step sees what it stores rounded to ``bits``, as its payload will be.

    A core set stays as it is: it has no steps that could mind. A distiller of one's own does this by a method
    ``with_bits(bits)``.

    Raises:
        SettingsError: ``bits`` is no depth of the codec, or the distiller has no such method.
    """
    check_bits(bits)
    with_bits: Callable[[int], Distiller] | None = getattr(distiller, "with_bits", None)
    if with_bits is None:
        raise SettingsError(
            f"{distiller.name} cannot take the rounding of its payload into account: {type(distiller).__name__} has no "
            "method with_bits(bits)"
        )
    return with_bits(bits)


def _report(hooks: Sequence[Callback], done: int, total: int, what: str) -> None:
    for hook in hooks:
        hook.on_prepare(done, total, what)


def _on_cpu(arrays: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: array.detach().cpu() for name, array in arrays.items()}


@settings
class CoreSet:
    """Chooses real samples by a criterion; itself a :class:`Distiller`.

    Attributes:
        criterion: which samples stand best for their class.
        labels: what they are labelled with: their class, or what a teacher says.

    Raises:
        SettingsError: on construction, if labels are to be learned: a selection has no steps to learn in.
    """

    criterion: Criterion
    labels: Labels = field(default_factory=HardLabels)

    def __post_init__(self) -> None:
        if self.labels.learning_rate is not None:
            raise SettingsError(f"{self.name} selects samples in no steps, in which labels could be learned")

    @property
    def name(self) -> str:
        return self.criterion.name

    @property
    def parameterization(self) -> Pixels:
        return Pixels()

    def settings(self) -> dict[str, Any]:
        """The parts in their plain form, as :meth:`MethodSpec.settings` has them."""
        return {"method": self.name, "criterion": describe(self.criterion), "labels": describe(self.labels)}

    def with_bits(self, bits: int) -> CoreSet:
        """Itself: there are no steps that could mind how samples are rounded."""
        return self

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
        """See :meth:`Distiller.distil`; the result holds real samples, which no one should call private."""
        started, real = time.monotonic(), as_labelled(real)
        counts = count_per_class(size, real, Pixels(), absent_classes, soft_labels=self.labels.soft)
        budget_in_bytes = size if isinstance(size, ByteBudget) and not self.labels.soft else None
        if budget_in_bytes is not None:
            problem = SetupContext(real, seed, torch.device("cpu"))
            counts = counts_as_coded(budget_in_bytes, problem, Pixels(), counts, selected=True)
        chosen = select(real, counts, self.criterion, seed=seed)
        selection = SyntheticSet.of_real(
            real.subset(chosen),
            provenance={
                **self.settings(),
                "data": real.name,
                "real_counts": real.class_counts.tolist(),
                "synthetic_counts": counts,
                "seed": seed,
                "seconds": round(time.monotonic() - started, 3),
                "holds_real_samples": True,
                **_short(size, counts, real),
            },
        )
        labelling = self.labels.open(SetupContext(real, derive_seed(seed, "labels"), as_device(device)))
        selection = replace(selection, labels=_relabelled(labelling, selection, as_device(device)))
        return selection if budget_in_bytes is None else cut_to_fit(selection, budget_in_bytes)


@torch.no_grad()
def _relabelled(labelling: Labelling, selection: SyntheticSet, device: torch.device) -> Tensor:
    inputs = selection.inputs().to(device)
    labels = labelling.initial(inputs, selection.labels.to(device))
    return labelling.final(inputs, labels).cpu()
