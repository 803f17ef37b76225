"""Truth: the three layers of torch, one after the other, and numerical derivatives of first and second order."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fedcl_distill.networks import zoo
from fedcl_distill.networks.zoo import NormReluPool


def layer_of(channels: int, dtype: torch.dtype = torch.float64) -> NormReluPool:
    layer, generator = NormReluPool(channels).to(dtype), torch.Generator().manual_seed(0)
    with torch.no_grad():
        layer.weight.copy_(torch.rand(channels, generator=generator) + 0.5)
        layer.bias.copy_(torch.randn(channels, generator=generator))
    return layer


def plain(inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.avg_pool2d(F.relu(F.group_norm(inputs, len(weight), weight, bias)), 2)


@pytest.mark.parametrize("shape", [(2, 3, 4, 6), (1, 3, 2, 2), (3, 3, 9, 13), (2, 3, 32, 32)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_norm_relu_and_pooling(shape: tuple[int, ...], layout: torch.memory_format, dtype: torch.dtype) -> None:
    layer, twin_layer = layer_of(3, dtype), layer_of(3, dtype)
    inputs = torch.randn(*shape, dtype=dtype).contiguous(memory_format=layout).requires_grad_()
    twin = inputs.detach().clone().requires_grad_()
    output, expected = layer(inputs), plain(twin, twin_layer.weight, twin_layer.bias)
    torch.testing.assert_close(output, expected)
    weights = torch.randn_like(expected)
    (output * weights).sum().backward()
    (expected * weights).sum().backward()
    for one, other in ((inputs, twin), (layer.weight, twin_layer.weight), (layer.bias, twin_layer.bias)):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(4, 4), (5, 3)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("block", [1, 1 << 19])
def test_first_and_second_derivatives_are_right(
    size: tuple[int, int], layout: torch.memory_format, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zoo, "_BLOCK", block)
    layer = layer_of(2)
    inputs = torch.randn(3, 2, *size, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
    weight, bias = (one.detach().clone().requires_grad_() for one in (layer.weight, layer.bias))

    def call(inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        output: Tensor = torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (inputs,))
        return output

    assert torch.autograd.gradcheck(call, (inputs, weight, bias))
    assert torch.autograd.gradgradcheck(call, (inputs, weight, bias))


def test_second_derivatives_agree_with_those_of_the_plain_layers() -> None:
    layer = layer_of(3)
    inputs = torch.randn(2, 3, 6, 6, dtype=torch.float64, requires_grad=True)
    seconds = []
    for function in (lambda one: layer(one), lambda one: plain(one, layer.weight, layer.bias)):
        (first,) = torch.autograd.grad(function(inputs).square().sum(), inputs, create_graph=True)
        seconds.append(torch.autograd.grad(first.square().sum(), inputs)[0])
    torch.testing.assert_close(seconds[0], seconds[1])


def test_there_are_no_third_derivatives() -> None:
    """Rather an error than silent zeros."""
    layer, inputs = layer_of(1), torch.randn(1, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(layer(inputs).square().sum(), inputs, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), inputs, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        second.square().sum().backward()
