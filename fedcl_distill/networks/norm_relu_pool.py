"""Instance norm, ReLU and 2×2 average pooling as one layer: what follows every convolution of a ConvNet."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedcl_distill.networks.norms import EPSILON, gradient_of_norm, moments


class NormReluPool(nn.Module):
    """``avg_pool2d(relu(group_norm(inputs, channels)), 2)``, with learned scale and shift.

    On a CPU these three move memory rather than compute, and take longer than the convolution. As one step, with norm
    and activation in place and pooling as a product with a small matrix, a ConvNet trains a fifth faster than with
    layers of their own. Second derivatives are supported. Other devices take the layers as they are.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, inputs: Tensor) -> Tensor:
        if inputs.device.type != "cpu":
            return F.avg_pool2d(F.relu(F.group_norm(inputs, len(self.weight), self.weight, self.bias, EPSILON)), 2)
        pooled: Tensor = _NormReluPool.apply(inputs, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return pooled


class _NormReluPool(torch.autograd.Function):
    """The context keeps what the backward pass needs: were it an output, torch would make zeros for its gradient."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        count, channels, height, width = inputs.shape
        active, mean, scale = torch.native_group_norm(
            inputs.contiguous(), weight, bias, count, channels, height * width, channels, EPSILON
        )
        active.relu_()
        ctx.save_for_backward(inputs, weight, bias, active, mean, scale)
        return _pool(active)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        inputs, weight, bias, active, mean, scale = ctx.saved_tensors
        if torch.is_grad_enabled():  # someone differentiates this gradient
            return _differentiable_gradient(inputs, weight, bias, gradient)
        count, channels, height, width = inputs.shape
        of_norm = torch.ops.aten.threshold_backward(_unpool(gradient, height, width), active, 0)
        of_inputs, of_weight, of_bias = torch.ops.aten.native_group_norm_backward(
            of_norm, inputs.contiguous(), mean, scale, weight, count, channels, height * width, channels, [True] * 3
        )
        return of_inputs, of_weight, of_bias


def _differentiable_gradient(
    inputs: Tensor, weight: Tensor, bias: Tensor, gradient: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The same gradient, by operations that autograd knows, in the precision of the weights."""
    inputs, gradient = inputs.to(weight.dtype), gradient.to(weight.dtype)
    mean, scale = moments(inputs)
    weight, bias = weight.view(1, -1, 1, 1), bias.view(1, -1, 1, 1)
    normalised = (inputs - mean) * scale
    active = torch.addcmul(bias, normalised, weight) > 0
    of_norm = _unpool(gradient, *inputs.shape[2:]) * active
    of_inputs, of_weight, of_bias = gradient_of_norm(of_norm, normalised, weight, scale)
    return of_inputs, of_weight.flatten(), of_bias.flatten()


def _pool(values: Tensor) -> Tensor:
    """Mean of every 2×2 pixels of (n, channels, height, width); an odd last row or column is left out."""
    count, channels, height, width = values.shape
    rows = values[:, :, : height // 2 * 2].view(count, channels, height // 2, 2, width)
    return (rows[:, :, :, 0] + rows[:, :, :, 1]) @ _halving(width, values.dtype)


def _unpool(gradient: Tensor, height: int, width: int) -> Tensor:
    """The gradient of :func:`_pool`'s input, (n, channels, height, width), given that of its output."""
    count, channels, half, _ = gradient.shape
    rows = gradient @ _halving(width, gradient.dtype).t()
    whole = rows.unsqueeze(3).expand(count, channels, half, 2, width).reshape(count, channels, 2 * half, width)
    return whole if 2 * half == height else F.pad(whole, (0, 0, 0, height - 2 * half))


@cache
def _halving(width: int, dtype: torch.dtype) -> Tensor:
    """(width, width // 2): a quarter where a column belongs to a pair."""
    pairs = torch.zeros(width, width // 2, dtype=dtype)
    for pair in range(width // 2):
        pairs[2 * pair : 2 * pair + 2, pair] = 0.25
    return pairs
