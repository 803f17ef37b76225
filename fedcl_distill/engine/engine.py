"""The engine: one loop that runs every distillation method, given its parts."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from fedcl_distill.augmentation import augmentation_for
from fedcl_distill.checkpoint import fingerprint
from fedcl_distill.context import RealSampler, SetupContext, as_device
from fedcl_distill.data.dataset import DataLike, as_labelled
from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.engine.budget import Budget
from fedcl_distill.engine.loop import Callback, Checkpoints, Forecast, Loop, Run, fake_quantize, observers, prepare
from fedcl_distill.engine.method import MethodSpec
from fedcl_distill.engine.size import (
    AbsentClasses,
    ByteBudget,
    Size,
    count_per_class,
    counts_as_coded,
    cut_to_fit,
    settled,
)
from fedcl_distill.errors import SettingsError
from fedcl_distill.labels import Labels
from fedcl_distill.parameterizations import Parameterization
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
        summary = {**preparation, **run.summary(), "interrupted": interrupted}
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
