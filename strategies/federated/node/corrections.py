"""What is added to the gradients of local training: FedProx's pull, SCAFFOLD's control."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

Correction = Callable[[], None]


def proximal(network: nn.Module, mu: float) -> Correction:
    """Adds the gradient of μ/2 · ‖w − w₀‖², w₀ being the weights now (Li et al. 2020, FedProx)."""
    start = [parameter.detach().clone() for parameter in network.parameters()]

    @torch.no_grad()
    def correct() -> None:
        for parameter, anchor in zip(network.parameters(), start, strict=True):
            _gradient_of(parameter).add_(parameter - anchor, alpha=mu)

    return correct


def shifted(network: nn.Module, shift: Tensor) -> Correction:
    """Adds the same ``shift``, float32 (parameters,), in every step."""
    parameters = list(network.parameters())
    parts = torch.split(shift.to(parameters[0].device), [parameter.numel() for parameter in parameters])

    @torch.no_grad()
    def correct() -> None:
        for parameter, part in zip(parameters, parts, strict=True):
            _gradient_of(parameter).add_(part.view_as(parameter))

    return correct


def _gradient_of(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:  # the loss does not depend on it
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def parameters_of(network: nn.Module) -> Tensor:
    """float32 (parameters,) on the CPU: a copy of all parameters, one after the other."""
    return parameters_to_vector(network.parameters()).detach().cpu().clone()
