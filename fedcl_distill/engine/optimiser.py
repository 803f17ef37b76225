"""The optimisers of what is learned, and their schedule."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


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
        decay_from: fraction of the budget after which all rates fall to 0 along a half cosine; 1 keeps them constant.
            Falling averages out the noise of single views.
        largest_norm: gradients of the stored arrays, taken together, are scaled down to this Euclidean norm; None
            leaves them.
        largest_step: the same, to the norm at which learning rate times gradient is this much in the root mean square
            over stored values (before momentum, or Adam's own scaling). Unlike a norm it suits sets of any size.
    """

    learning_rate: float = 1.0
    decay_from: float = 1.0
    largest_norm: float | None = None
    largest_step: float | None = None

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
        if progress > self.decay_from:
            falling = 0.5 * (1 + math.cos(math.pi * (progress - self.decay_from) / (1 - self.decay_from)))
        for group in optimiser.param_groups:
            group["lr"] = group["full_rate"] * falling
        self._bound(optimiser.param_groups[0])
        optimiser.step()

    def _bound(self, group: dict[str, Any]) -> None:
        """Scale the gradients of ``group`` down to what is allowed."""
        limits = [] if self.largest_norm is None else [self.largest_norm]
        if self.largest_step is not None and group["lr"] > 0:
            values = sum(tensor.numel() for tensor in group["params"])
            limits.append(self.largest_step * math.sqrt(values) / group["lr"])
        if limits:
            torch.nn.utils.clip_grad_norm_(group["params"], min(limits))

    def _common(self) -> dict[str, Any]:
        return {
            "learning_rate": self.learning_rate,
            "decay_from": self.decay_from,
            "largest_norm": self.largest_norm,
            "largest_step": self.largest_step,
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
