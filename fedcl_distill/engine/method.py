"""What a method is made of, and which parts cannot work together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, fields
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from fedcl_distill.augmentation import Augmentation
from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.engine.size import Budget
from fedcl_distill.errors import SettingsError
from fedcl_distill.labels import HardLabels, Labels
from fedcl_distill.network_sources import FreshRandom, NetworkSource, NoNetwork
from fedcl_distill.objectives import Objective
from fedcl_distill.optimisers import SGD, Optimiser
from fedcl_distill.parameterizations import Parameterization, Pixels
from fedcl_distill.registry import Plain, Registry, describe, name_of, parse
from fedcl_distill.seeding import generator_for
from fedcl_distill.selection import SELECTIONS, Criterion, Random, select
from fedcl_distill.settings import Count, Fraction, Positive, settings, suggest
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
