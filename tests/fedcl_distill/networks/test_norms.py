"""Truth: group norm with one channel a group, and numerical derivatives of first and second order."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fedcl_distill.networks.zoo import InstanceNorm


def norm_of(channels: int) -> InstanceNorm:
    norm = InstanceNorm(channels).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        norm.weight.copy_(torch.rand(channels, generator=generator) + 0.5)
        norm.bias.copy_(torch.randn(channels, generator=generator))
    return norm


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3, 1, 1), (3, 3, 8, 8)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_it_is_group_norm_of_one_channel_a_group(shape: tuple[int, ...], layout: torch.memory_format) -> None:
    norm = norm_of(3)
    inputs = torch.randn(*shape, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    twin = inputs.detach().clone().requires_grad_()
    weights = torch.randn(*shape, dtype=torch.float64)
    (norm(inputs) * weights).sum().backward()
    (F.group_norm(twin, 3, norm.weight, norm.bias) * weights).sum().backward()
    torch.testing.assert_close(norm(inputs), F.group_norm(twin, 3, norm.weight, norm.bias))
    torch.testing.assert_close(inputs.grad, twin.grad)


def test_first_and_second_derivatives_are_right() -> None:
    norm = norm_of(2)
    inputs = torch.randn(2, 2, 3, 2, dtype=torch.float64, requires_grad=True)
    weight, bias = (one.detach().clone().requires_grad_() for one in (norm.weight, norm.bias))

    def call(inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        output: Tensor = torch.func.functional_call(norm, {"weight": weight, "bias": bias}, (inputs,))
        return output

    assert torch.autograd.gradcheck(call, (inputs, weight, bias))
    assert torch.autograd.gradgradcheck(call, (inputs, weight, bias))
