"""Optimisers and schedules, of networks and of synthetic samples: any callable that takes parameters, or a name.

>>> from functools import partial
>>> from fedcl_distill.methods import dm
>>> method = dm(optimiser=partial(torch.optim.AdamW, lr=0.01))
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from fedcl_distill.errors import SettingsError
from fedcl_distill.registry import Registry, describe
from fedcl_distill.settings import Fraction, Momentum, NonNegative, Positive, settings

Optimiser = Callable[[Any], torch.optim.Optimizer]
"""Makes a torch optimiser of parameters, or of groups of them (``{"params": …, "lr": …}``): a class of ``torch.optim``,
a ``functools.partial`` of one, :class:`SGD`, :class:`Adam`, or a function."""

OPTIMISERS: Registry[Optimiser] = Registry("optimiser", "fedcl_distill.optimisers")
"""Optimisers by name; ``"adam:learning_rate=0.1"`` is one as text."""

register_optimiser = OPTIMISERS.register


@register_optimiser("sgd")
@settings
class SGD:
    """SGD with momentum.

    Attributes:
        learning_rate: of every group without one of its own.
        momentum: of SGD.
        weight_decay: pull towards 0, added to the gradient.
        nesterov: take the gradient where momentum leads.

    Example:
        >>> SGD(0.1)([torch.zeros(1, requires_grad=True)]).param_groups[0]["momentum"]
        0.5
    """

    name: ClassVar[str] = "sgd"
    learning_rate: Positive = 1.0
    momentum: Momentum = 0.5
    weight_decay: NonNegative = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        if self.nesterov and not self.momentum:
            raise SettingsError("sgd: nesterov needs a momentum above 0")

    def __call__(self, parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(
            parameters,
            lr=self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            nesterov=self.nesterov,
        )


@register_optimiser("adam")
@settings
class Adam:
    """Adam (Kingma and Ba 2015) with decoupled weight decay (Loshchilov and Hutter 2019), none by default.

    Attributes:
        learning_rate: of every group without one of its own.
        betas: decay of the running mean and of the running square.
        weight_decay: pull towards 0 (the data's mean, where network inputs are optimised).
    """

    name: ClassVar[str] = "adam"
    learning_rate: Positive = 0.01
    betas: tuple[Momentum, Momentum] = (0.9, 0.999)
    weight_decay: NonNegative = 0.0

    def __call__(self, parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.AdamW(
            parameters, lr=self.learning_rate, betas=(self.betas[0], self.betas[1]), weight_decay=self.weight_decay
        )


def as_optimiser(value: Optimiser | str | Mapping[str, Any]) -> Optimiser:
    """The optimiser that ``value`` is or describes.

    Raises:
        SettingsError: it is no callable, or no optimiser of this name or with these settings is registered.
    """
    if isinstance(value, str | Mapping):
        return OPTIMISERS.build(value)
    if not callable(value):
        raise SettingsError(
            f"{value!r:.60} is no optimiser; give a callable that takes parameters, such as torch.optim.Adam, or one "
            f"of: {', '.join(OPTIMISERS.names())}"
        )
    return value


def check_optimiser(owner: Any, *shortcuts: str) -> None:
    """Return if ``owner.optimiser``, which stands in place of settings called ``shortcuts``, is one or None.

    Raises:
        SettingsError: it is neither, or one of ``shortcuts``, fields of the dataclass ``owner``, is not at its default.
    """
    if owner.optimiser is None:
        return
    as_optimiser(owner.optimiser)
    both = [one.name for one in fields(owner) if one.name in shortcuts and getattr(owner, one.name) != one.default]
    if both:
        raise SettingsError(f"{type(owner).__name__}: give optimiser or {' and '.join(both)}, not both")


@dataclass(frozen=True)
class Group:
    """Tensors that are learned at the same rate; None takes the optimiser's own."""

    tensors: tuple[Tensor, ...]
    learning_rate: float | None = None


def build_optimiser(
    optimiser: Optimiser | str | Mapping[str, Any], what: Iterable[Tensor] | Sequence[Group]
) -> torch.optim.Optimizer:
    """A torch optimiser of ``what``: parameters, or :class:`Group` s, of which each may have a rate of its own.

    A single group without a rate of its own reaches the callable as a plain list of tensors, others as a list of
    dictionaries, both as ``torch.optim`` takes them.

    Raises:
        SettingsError: the callable fails, gives anything but a ``torch.optim.Optimizer`` of all these tensors, or its
            step needs a closure (as LBFGS does).
    """
    make = as_optimiser(optimiser)
    groups = [one if isinstance(one, Group) else Group((one,)) for one in what]
    tensors = [tensor for group in groups for tensor in group.tensors]
    try:
        made = make(_plain(groups, tensors))
    except (TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise SettingsError(
            f"optimiser {_shown(make)} cannot be made of {len(tensors)} tensors in "
            f"{len(groups)} groups (lists of tensors, or of {{'params': …, 'lr': …}}): {error}"
        ) from error
    if not isinstance(made, torch.optim.Optimizer):
        raise SettingsError(f"optimiser {_shown(make)} must give a torch.optim.Optimizer, got {made!r:.60}")
    if inspect.signature(type(made).step).parameters.get("closure", _NO_CLOSURE).default is inspect.Parameter.empty:
        raise SettingsError(f"optimiser {_shown(make)} needs a closure that computes the loss anew; take another")
    known = {id(tensor) for group in made.param_groups for tensor in group["params"]}
    if known != {id(tensor) for tensor in tensors}:
        raise SettingsError(f"optimiser {_shown(make)} must learn all {len(tensors)} tensors, it has {len(known)}")
    return made


_NO_CLOSURE = inspect.Parameter("closure", inspect.Parameter.KEYWORD_ONLY, default=None)


def _plain(groups: Sequence[Group], tensors: list[Tensor]) -> list[Any]:
    if all(group.learning_rate is None for group in groups):
        return tensors
    return [
        {"params": list(group.tensors), **({} if group.learning_rate is None else {"lr": group.learning_rate})}
        for group in groups
    ]


def _shown(part: object) -> str:
    plain = describe(part)
    return repr(plain if isinstance(plain, str) else plain["name"])


class Bounded:
    """A torch optimiser whose rates fall at the end of a budget, and whose first group's gradients are bounded.

    Works with every optimiser; of a learning rate it knows what stands under "lr" in a group.

    Args:
        optimiser: whose first group is bounded; of all of them rates fall.
        decay_start: fraction of the budget after which all rates fall to 0 along a half cosine; 1 keeps them constant.
        max_grad_norm: gradients of the first group, taken together, are scaled down to this Euclidean norm; None
            leaves them.
        max_step: the same, to the norm at which learning rate times gradient is this much in the root mean square
            over values (before momentum, or Adam's own scaling). Unlike a norm it suits sets of any size.
    """

    def __init__(
        self,
        optimiser: torch.optim.Optimizer,
        decay_start: float = 1.0,
        max_grad_norm: float | None = None,
        max_step: float | None = None,
    ) -> None:
        self.inner = optimiser
        self._decay_start, self._max_grad_norm, self._max_step = decay_start, max_grad_norm, max_step
        for group in optimiser.param_groups:
            group["full_rate"] = float(group.get("lr", 1.0))

    def zero_grad(self) -> None:
        """Forget all gradients."""
        self.inner.zero_grad(set_to_none=True)

    def step(self, progress: float) -> None:
        """One step that starts at ``progress`` in [0, 1] of the budget."""
        falling = 1.0
        if progress > self._decay_start:
            falling = 0.5 * (1 + math.cos(math.pi * (progress - self._decay_start) / (1 - self._decay_start)))
        if self._decay_start < 1:
            for group in self.inner.param_groups:
                group["lr"] = group["full_rate"] * falling
        self._bound(self.inner.param_groups[0])
        self.inner.step()

    def _bound(self, group: dict[str, Any]) -> None:
        limits = [] if self._max_grad_norm is None else [self._max_grad_norm]
        rate = float(group.get("lr", 1.0))
        if self._max_step is not None and rate > 0:
            values = sum(tensor.numel() for tensor in group["params"])
            limits.append(self._max_step * math.sqrt(values) / rate)
        if limits:
            torch.nn.utils.clip_grad_norm_(group["params"], min(limits))

    def state_dict(self) -> dict[str, Any]:
        """As that of the torch optimiser, the full rate of each group included."""
        return self.inner.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state_dict` returned."""
        self.inner.load_state_dict(state)


Schedule = Callable[[float], float] | Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler]
"""By what to multiply learning rates at a fraction of the training, in [0, 1); or a scheduler of torch."""

SCHEDULES: Registry[Schedule] = Registry("schedule", "fedcl_distill.schedules")
"""Schedules by name."""

register_schedule = SCHEDULES.register


@register_schedule("constant")
@settings
class Constant:
    """The same rate all along."""

    name: ClassVar[str] = "constant"

    def __call__(self, progress: float) -> float:
        return 1.0


@register_schedule("halfway")
@settings
class Halfway:
    """A fraction of the rate once half of the training, or another part of it, is done.

    Attributes:
        factor: of the rate, from there on.
        after: fraction of the training.
    """

    name: ClassVar[str] = "halfway"
    factor: Positive = 0.1
    after: Fraction = 0.5

    def __call__(self, progress: float) -> float:
        return self.factor if progress >= self.after else 1.0


@register_schedule("cosine")
@settings
class Cosine:
    """Down along a half cosine (Loshchilov and Hutter 2017, without restarts).

    Attributes:
        end: fraction of the rate that it falls to.
        warmup: fraction of the training in which the rate rises linearly first.
    """

    name: ClassVar[str] = "cosine"
    end: Fraction = 0.0
    warmup: Momentum = 0.0

    def __call__(self, progress: float) -> float:
        if progress < self.warmup:
            return progress / self.warmup
        falling = 0.5 * (1 + math.cos(math.pi * (progress - self.warmup) / (1 - self.warmup)))
        return self.end + (1 - self.end) * falling


def as_schedule(value: Schedule | str | Mapping[str, Any]) -> Schedule:
    """The schedule that ``value`` is or describes.

    Raises:
        SettingsError: it is no callable, or no schedule of this name or with these settings is registered.
    """
    if isinstance(value, str | Mapping):
        return SCHEDULES.build(value)
    if not callable(value):
        raise SettingsError(
            f"{value!r:.60} is no schedule; give a function of the fraction of the training that is done, or one of: "
            f"{', '.join(SCHEDULES.names())}"
        )
    return value


class Scheduled:
    """Sets the rates of an optimiser step by step, as a schedule says.

    Args:
        optimiser: every one of its groups goes by the schedule, from its own rate.
        schedule: a :data:`Schedule`, its name, or a class of ``torch.optim.lr_scheduler`` (or a ``partial`` of one),
            which is told the end of each epoch.
    """

    def __init__(self, optimiser: torch.optim.Optimizer, schedule: Schedule | str | Mapping[str, Any]) -> None:
        made: Any = as_schedule(schedule)
        self._optimiser = optimiser
        self._rates = [group.get("lr") for group in optimiser.param_groups]
        self._by_epoch = made(optimiser) if _is_torch_scheduler(made) else None
        self._by_progress: Callable[[float], float] = made

    def at(self, progress: float) -> None:
        """Set the rates for a step that begins at ``progress`` in [0, 1) of the training."""
        if self._by_epoch is not None:
            return
        factor = self._by_progress(progress)
        if isinstance(factor, bool) or not isinstance(factor, int | float) or not 0 <= factor < math.inf:
            raise SettingsError(
                f"schedule {_shown(self._by_progress)} must give a finite factor of at least 0, got {factor!r:.60} "
                f"at {progress:.3g} of the training"
            )
        for group, rate in zip(self._optimiser.param_groups, self._rates, strict=True):
            if rate is not None:
                group["lr"] = rate * factor

    def end_epoch(self) -> None:
        """An epoch is over."""
        if self._by_epoch is not None:
            self._by_epoch.step()


def _is_torch_scheduler(schedule: object) -> bool:
    kind = schedule.func if isinstance(schedule, partial) else schedule
    return isinstance(kind, type) and issubclass(kind, torch.optim.lr_scheduler.LRScheduler)


__all__ = [
    "OPTIMISERS",
    "SCHEDULES",
    "SGD",
    "Adam",
    "Bounded",
    "Constant",
    "Cosine",
    "Group",
    "Halfway",
    "Optimiser",
    "Schedule",
    "Scheduled",
    "as_optimiser",
    "as_schedule",
    "build_optimiser",
    "check_optimiser",
    "register_optimiser",
    "register_schedule",
]
