"""What makes synthetic sets: the engine (one loop, interchangeable parts, one call), and core sets."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import field, replace
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from fedcl_distill.augmentation import augmentation_for
from fedcl_distill.checkpoint import fingerprint
from fedcl_distill.context import RealSampler, SetupContext
from fedcl_distill.data.dataset import DataLike, as_labelled
from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.engine.loop import Callback, Checkpoints, Forecast, Loop, Run, fake_quantize, observers, prepare
from fedcl_distill.engine.method import MethodSpec
from fedcl_distill.engine.size import AbsentClasses, Budget, Size, count_per_class
from fedcl_distill.errors import SettingsError
from fedcl_distill.labels import HardLabels, Labelling, Labels
from fedcl_distill.networks.base import as_device
from fedcl_distill.parameterizations import Parameterization, Pixels
from fedcl_distill.registry import describe
from fedcl_distill.seeding import derive_seed
from fedcl_distill.selection import Criterion, select
from fedcl_distill.settings import checked, settings
from fedcl_distill.synthetic import SyntheticSet
from fedcl_distill.synthetic.quantise import check_bits


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
        summary = {**preparation, **run.summary(), "interrupted": interrupted}
        arrays, labels = run.state.outcome()
        arrays = fake_quantize(arrays, self.bits)
        with torch.no_grad():
            labels = ready.labelling.final(self.parameterization.decode(arrays), labels)
        return SyntheticSet(
            arrays=_on_cpu(arrays),
            parameterization=self.parameterization,
            labels=labels.detach().cpu(),
            spec=real.spec,
            provenance={**origin, **summary},
        )

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
            },
        )
        labelling = self.labels.open(SetupContext(real, derive_seed(seed, "labels"), as_device(device)))
        return replace(selection, labels=_relabelled(labelling, selection, as_device(device)))


@torch.no_grad()
def _relabelled(labelling: Labelling, selection: SyntheticSet, device: torch.device) -> Tensor:
    inputs = selection.inputs().to(device)
    labels = labelling.initial(inputs, selection.labels.to(device))
    return labelling.final(inputs, labels).cpu()
