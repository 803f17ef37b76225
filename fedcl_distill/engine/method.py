"""What a method is made of, and which parts cannot work together."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from fedcl_distill.augmentation import Augmentation
from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.engine.budget import Budget
from fedcl_distill.errors import SettingsError
from fedcl_distill.labels import HardLabels, Labels
from fedcl_distill.network_sources import NetworkSource, NoNetwork
from fedcl_distill.objectives import Objective
from fedcl_distill.parameterizations import Parameterization, Pixels
from fedcl_distill.registry import describe, name_of
from fedcl_distill.seeding import generator_for
from fedcl_distill.selection import Criterion, select
from fedcl_distill.synthetic.quantise import check_bits


class Initial(Protocol):
    """Gives the first synthetic samples."""

    def samples(self, real: LabelledData, counts: Sequence[int], *, seed: int) -> Tensor:
        """float32 (sum of counts, …) network inputs, in order of class; counts may exceed what a class has."""
        ...

    def settings(self) -> dict[str, Any]:
        """What provenance records, as JSON values."""
        ...


@dataclass(frozen=True)
class FromReal:
    """Real samples, chosen by a core-set criterion (random in most papers); repeated where a class has too few."""

    criterion: Criterion

    def samples(self, real: LabelledData, counts: Sequence[int], *, seed: int) -> Tensor:
        distinct = [min(count, have) for count, have in zip(counts, real.class_counts.tolist(), strict=True)]
        chosen = torch.split(select(real, distinct, self.criterion, seed=seed), distinct)
        repeated = [rows[torch.arange(count) % len(rows)] for rows, count in zip(chosen, counts, strict=True) if count]
        return real.inputs(torch.cat(repeated))

    def settings(self) -> dict[str, Any]:
        return {"init": f"real ({self.criterion.name})"}


@dataclass(frozen=True)
class Noise:
    """Gaussian noise of the normalised data's mean and deviation: no real sample is the start of a synthetic one."""

    def samples(self, real: LabelledData, counts: Sequence[int], *, seed: int) -> Tensor:
        return torch.randn(sum(counts), *real.sample_shape, generator=generator_for(seed, "noise"))

    def settings(self) -> dict[str, Any]:
        return {"init": "noise"}


@dataclass(frozen=True)
class Group:
    """Tensors that are learned at the same rate; None takes the optimiser's own."""

    tensors: tuple[Tensor, ...]
    learning_rate: float | None = None


@dataclass(frozen=True)
class Optimiser(ABC):
    """What every optimiser has.

    Attributes:
        learning_rate: of the stored arrays, in the space of network inputs.
        decay_start: fraction of the budget after which all rates fall to 0 along a half cosine; 1 keeps them constant.
            Falling averages out the noise of single views.
        max_grad_norm: gradients of the stored arrays, taken together, are scaled down to this Euclidean norm; None
            leaves them.
        max_step: the same, to the norm at which learning rate times gradient is this much in the root mean square
            over stored values (before momentum, or Adam's own scaling). Unlike a norm it suits sets of any size.
    """

    learning_rate: float = 1.0
    decay_start: float = 1.0
    max_grad_norm: float | None = None
    max_step: float | None = None

    @abstractmethod
    def _build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer: ...

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What provenance records, as JSON values."""

    def build(self, groups: Iterable[Group]) -> torch.optim.Optimizer:
        """A torch optimiser of these groups."""
        named = []
        for group in groups:
            rate = self.learning_rate if group.learning_rate is None else group.learning_rate
            named.append({"params": list(group.tensors), "lr": rate, "full_rate": rate})
        return self._build(named)

    def step(self, optimiser: torch.optim.Optimizer, progress: float) -> None:
        """One step that starts at ``progress`` in [0, 1] of the budget."""
        falling = 1.0
        if progress > self.decay_start:
            falling = 0.5 * (1 + math.cos(math.pi * (progress - self.decay_start) / (1 - self.decay_start)))
        for group in optimiser.param_groups:
            group["lr"] = group["full_rate"] * falling
        self._bound(optimiser.param_groups[0])
        optimiser.step()

    def _bound(self, group: dict[str, Any]) -> None:
        """Scale the gradients of ``group`` down to what is allowed."""
        limits = [] if self.max_grad_norm is None else [self.max_grad_norm]
        if self.max_step is not None and group["lr"] > 0:
            values = sum(tensor.numel() for tensor in group["params"])
            limits.append(self.max_step * math.sqrt(values) / group["lr"])
        if limits:
            torch.nn.utils.clip_grad_norm_(group["params"], min(limits))

    def _common(self) -> dict[str, Any]:
        return {
            "learning_rate": self.learning_rate,
            "decay_start": self.decay_start,
            "max_grad_norm": self.max_grad_norm,
            "max_step": self.max_step,
        }


@dataclass(frozen=True)
class SGD(Optimiser):
    """SGD with momentum.

    Attributes:
        momentum: of SGD.
    """

    momentum: float = 0.5

    def _build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return torch.optim.SGD(groups, momentum=self.momentum)

    def settings(self) -> dict[str, Any]:
        return {"optimiser": "sgd", "momentum": self.momentum, **self._common()}


@dataclass(frozen=True)
class Adam(Optimiser):
    """Adam (Kingma and Ba 2015) with decoupled weight decay (Loshchilov and Hutter 2019), none by default.

    Attributes:
        betas: decay of the running mean and of the running square.
        weight_decay: pull towards 0 (the data's mean, in the space of network inputs).
    """

    learning_rate: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0

    def _build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(groups, betas=self.betas, weight_decay=self.weight_decay)

    def settings(self) -> dict[str, Any]:
        return {"optimiser": "adam", "betas": list(self.betas), "weight_decay": self.weight_decay, **self._common()}


def check_compatible(
    objective: Objective[Any],
    networks: NetworkSource,
    parameterization: Parameterization,
    labels: Labels,
    steps_per_network: int,
    *,
    clamp: bool,
) -> None:
    """Return if the parts can work together; settings of a part are its own to check.

    Raises:
        SettingsError: they cannot; the message says why.
    """
    what = name_of(objective)
    if steps_per_network < 1:
        raise SettingsError(f"steps_per_network must be at least 1, got {steps_per_network}")
    if objective.needs_target_network and not networks.gives_target:
        raise SettingsError(
            f"{what} compares with what training on the real data leads to, which {_kind(networks)} networks do not "
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


def _kind(networks: NetworkSource) -> str:
    return str(networks.settings()["networks"])


@dataclass(frozen=True)
class MethodSpec:
    """The interchangeable parts of a method, and what belongs to the engine.

    Attributes:
        name: of the method.
        objective: what must agree between real and synthetic.
        networks: which networks the objective looks through.
        init: what the synthetic samples are before the first step.
        budget: the method's own, where a call gives none.
        augmentation: what is done alike to both sides; None takes what suits the data.
        parameterization: how the synthetic data are stored and decoded.
        labels: what the samples are labelled with.
        optimiser: of everything learned.
        steps_per_network: synthetic steps for each network, augmentation and real batch; the real side, which costs
            most, is computed once a view. 1 is the published loop.
        clamp: keep stored pixels inside the real data's value range.
        averaging_start: fraction of the budget from which on the result is the mean of all steps' samples (and learned
            labels) instead of the last ones: a rate that stays high then costs no accuracy. 1 takes the last.
        bits: depth in which the result will be sent: below 32, every step sees the stored arrays rounded as the codec
            will round them, and so is the result.

    Raises:
        SettingsError: on construction, if the parts cannot work together; the message says why.
    """

    name: str
    objective: Objective[Any]
    networks: NetworkSource
    init: Initial
    budget: Budget
    augmentation: Augmentation | None = None
    parameterization: Parameterization = field(default_factory=Pixels)
    labels: Labels = field(default_factory=HardLabels)
    optimiser: Optimiser = field(default_factory=SGD)
    steps_per_network: int = 1
    clamp: bool = False
    averaging_start: float = 1.0
    bits: int = 32

    def __post_init__(self) -> None:
        check_bits(self.bits)
        if not 0 <= self.averaging_start <= 1:
            raise SettingsError(
                f"averaging_start must be a fraction of the budget, in [0, 1], got {self.averaging_start}"
            )
        check_compatible(
            self.objective, self.networks, self.parameterization, self.labels, self.steps_per_network, clamp=self.clamp
        )

    def settings(self) -> dict[str, Any]:
        """Every setting of the method, as JSON values."""
        merged: dict[str, Any] = {}
        for part in (
            self._own_settings(),
            {"objective": describe(self.objective)},
            self.networks.settings(),
            {} if self.augmentation is None else self.augmentation.settings(),
            {"parameterization": describe(self.parameterization), "labels": describe(self.labels)},
            self.init.settings(),
            self.optimiser.settings(),
        ):
            assert not set(merged) & set(part), f"two parts have a setting called {set(merged) & set(part)}"
            merged |= part
        return merged

    def _own_settings(self) -> dict[str, Any]:
        return {
            "method": self.name,
            "steps_per_network": self.steps_per_network,
            "clamp": self.clamp,
            "averaging_start": self.averaging_start,
            "bits": self.bits,
        }
