"""Instance norm, ReLU and 2×2 average pooling as one layer: what follows every convolution of a ConvNet."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedcl_distill.networks.halving import pool, unpool
from fedcl_distill.networks.norms import EPSILON

_BLOCK = 1 << 19  # values that the second derivatives handle at a time: with what is made of them, a cache's fill


class NormReluPool(nn.Module):
    """``avg_pool2d(relu(group_norm(inputs, channels)), 2)``, with learned scale and shift.

    On a CPU these three move memory rather than compute, and take longer than the convolution. As one step, with norm
    and activation in place and pooling as a product with a small matrix, a ConvNet trains a fifth faster than with
    layers of their own; with second derivatives in closed form as well, these take a third of autograd's time. There
    are no third ones. Other devices take the layers as they are.
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
        ctx.save_for_backward(inputs, weight, active, mean, scale)
        return pool(active)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        gradients: tuple[Tensor, Tensor, Tensor] = _Gradient.apply(gradient, *ctx.saved_tensors)  # type: ignore[no-untyped-call]
        return gradients


class _Gradient(torch.autograd.Function):
    """The gradient of :class:`_NormReluPool`, which can be differentiated itself, once.

    Of each sample's channel, let x be the inputs, s one over their deviation, n the normalised inputs, w the weight, g
    the gradient of n · w + bias, and ⟨·⟩ the mean over the channel's N pixels. The gradient of x is
    w s (g − ⟨g⟩ − n ⟨g n⟩), those of weight and bias are sums of g n and g. For the derivatives v, p and q of a loss in
    these three, differentiating by hand gives

        of g:  w s (v − ⟨v⟩ − n ⟨v n⟩) + p n + q,
        of w:  N s a,                    with a = ⟨v g⟩ − ⟨v⟩⟨g⟩ − ⟨v n⟩⟨g n⟩, and
        of x:  s (h − ⟨h⟩ − n ⟨h n⟩) − w s² a n,  with h = p g − w s (⟨g n⟩ v + ⟨v n⟩ g).

    All are sums of v, g and n with a factor for each channel, so that a few passes over memory make them.
    """

    @staticmethod
    def forward(
        ctx: Any, gradient: Tensor, inputs: Tensor, weight: Tensor, active: Tensor, mean: Tensor, scale: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        count, channels, height, width = inputs.shape
        of_norm = torch.ops.aten.threshold_backward(unpool(gradient, height, width), active, 0)
        ctx.save_for_backward(of_norm, inputs, weight, active, mean, scale)
        gradients: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.native_group_norm_backward(
            of_norm, inputs.contiguous(), mean, scale, weight, count, channels, height * width, channels, [True] * 3
        )
        return gradients

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(
        ctx: Any, of_inputs: Tensor, of_weight: Tensor, of_bias: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        of_norm, inputs, weight, active, mean, scale = ctx.saved_tensors
        count, channels = inputs.shape[:2]
        of_channels = [one.view(1, channels, 1, 1) for one in (weight, of_weight, of_bias)]
        of_samples = [one.view(count, channels, 1, 1) for one in (mean, scale)]
        block, parts = max(1, _BLOCK // inputs[0].numel()), []
        for start in range(0, count, block):
            rows = slice(start, start + block)
            samples = (of_inputs[rows], of_norm[rows], inputs[rows], active[rows], *(one[rows] for one in of_samples))
            parts.append(_second_derivatives(*samples, *of_channels))
        of_gradient, of_inputs, of_weight = (torch.cat(part) for part in zip(*parts, strict=True))
        return of_gradient, of_inputs, of_weight.sum(0).flatten(), None, None, None


def _second_derivatives(
    v: Tensor, g: Tensor, x: Tensor, active: Tensor, mean: Tensor, s: Tensor, w: Tensor, p: Tensor, q: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Derivatives of the pooled gradient, of x and, sample by sample, of w; names as above, in the precision of w."""
    v, g, active = v.to(w.dtype), g.to(w.dtype), active.to(w.dtype)
    n = (x - mean).mul_(s)
    mean_v, mean_g = _mean(v), _mean(g)
    product = v * n
    mean_vn = _mean(product)
    mean_gn = _mean(torch.mul(g, n, out=product))
    a = _mean(torch.mul(v, g, out=product)) - mean_v * mean_g - mean_vn * mean_gn
    ws = w * s
    of_n = p - ws * mean_vn
    of_g = torch.mul(v, ws, out=product).add_(q - ws * mean_v).addcmul_(n, of_n)
    of_pooled = pool(torch.ops.aten.threshold_backward(of_g, active, 0))
    mean_h = p * mean_g - ws * (mean_v * mean_gn + mean_g * mean_vn)
    mean_hn = p * mean_gn - 2 * ws * mean_vn * mean_gn
    of_x = v.mul(-s * ws * mean_gn).addcmul_(g, s * of_n).sub_(s * mean_h).addcmul_(n, -s * (mean_hn + ws * a))
    return of_pooled.to(x.dtype), of_x.to(x.dtype), s * a * (x.shape[2] * x.shape[3])


def _mean(values: Tensor) -> Tensor:
    return values.mean((2, 3), keepdim=True)
