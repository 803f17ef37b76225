"""The networks of the field, for small images and feature vectors, and their layers with closed-form derivatives."""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedcl_distill.errors import SettingsError
from fedcl_distill.networks.base import NETWORKS, Network
from fedcl_distill.settings import Count


def pool(values: Tensor) -> Tensor:
    """Mean of every 2×2 pixels of (n, channels, height, width); an odd last row or column is left out."""
    count, channels, height, width = values.shape
    rows = values[:, :, : height // 2 * 2].view(count, channels, height // 2, 2, width)
    return (rows[:, :, :, 0] + rows[:, :, :, 1]) @ _halving(width, values.dtype)


def unpool(gradient: Tensor, height: int, width: int) -> Tensor:
    """The gradient of :func:`pool`'s input, (n, channels, height, width), given that of its output."""
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


EPSILON = 1e-5
_PIXELS = (2, 3)


class InstanceNorm(nn.Module):
    """Instance norm with learned scale and shift, at any image size down to a single pixel (Ulyanov et al. 2016).

    The same function as ``nn.GroupNorm(channels, channels)``. On a CPU that one, in the channels-last layout, takes two
    fifths of a training step; this one takes a fourth of that time.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, inputs: Tensor) -> Tensor:
        weight, bias = self.weight.view(1, -1, 1, 1), self.bias.view(1, -1, 1, 1)
        inputs = inputs.to(weight.dtype)  # deep networks lose their gradients in moments of 8 bits
        normalised: Tensor = _Normalise.apply(inputs, weight, bias)[0]  # type: ignore[no-untyped-call]
        return normalised


def _moments(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """(n, channels, 1, 1) mean of each sample's channels, and one over their deviation."""
    mean = inputs.mean(_PIXELS, keepdim=True)
    return mean, ((inputs - mean).square().mean(_PIXELS, keepdim=True) + EPSILON).rsqrt()


def _gradient_of_norm(
    gradient: Tensor, normalised: Tensor, weight: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradient of inputs, weight and bias, given that of ``normalised · weight + bias``; differentiable itself."""
    sum_of_gradient = gradient.sum(_PIXELS, keepdim=True)
    sum_of_product = (gradient * normalised).sum(_PIXELS, keepdim=True)
    pixels = gradient.shape[2] * gradient.shape[3]
    of_inputs = torch.addcmul(gradient - sum_of_gradient / pixels, normalised, sum_of_product / -pixels)
    of_weight, of_bias = (total.sum(0, keepdim=True) for total in (sum_of_product, sum_of_gradient))
    return of_inputs * (weight * scale), of_weight, of_bias


class _Normalise(torch.autograd.Function):
    """(x − mean) / deviation · weight + bias with its gradient in closed form, which can be differentiated again."""

    @staticmethod
    def forward(inputs: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean = inputs.mean(_PIXELS, keepdim=True)
        centred = inputs - mean
        scale = (centred.square().mean(_PIXELS, keepdim=True) + EPSILON).rsqrt()
        return torch.addcmul(bias, centred.mul_(scale), weight), mean, scale

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: tuple[Tensor, Tensor, Tensor]) -> None:
        samples, weight, _ = inputs
        _, mean, scale = output
        ctx.mark_non_differentiable(mean, scale)
        ctx.save_for_backward(samples, weight, mean, scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        samples, weight, mean, scale = ctx.saved_tensors
        if torch.is_grad_enabled():  # someone differentiates this gradient: mean and deviation depend on the samples
            mean, scale = _moments(samples)
        return _gradient_of_norm(gradient, (samples - mean) * scale, weight, scale)


class Convolution(nn.Conv2d):
    """``nn.Conv2d``, to the same values and derivatives.

    For a single input channel in bfloat16, a CPU takes up to four times as long for the gradients of weights and bias
    together as for those of the weights alone. So the bias is added apart, which makes a ConvNet of width 64 train a
    seventh faster on grey images.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        bias, grey_on_cpu = self.bias, self.in_channels == 1 and inputs.device.type == "cpu"
        if not grey_on_cpu or bias is None or not bias.requires_grad or not torch.is_grad_enabled():
            return super().forward(inputs)
        outputs = F.conv2d(inputs, self.weight, None, self.stride, self.padding, self.dilation, self.groups)
        return outputs.add_(bias.to(outputs.dtype).view(-1, 1, 1))


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


@NETWORKS.register("convnet", images_only=True)
def convnet(
    sample_shape: tuple[int, ...], num_classes: int, *, width: Count = 128, depth: Count | None = None
) -> Network:
    """Blocks of 3×3 convolution, instance norm, ReLU and 2×2 average pooling, then a linear classifier.

    A 28×28 grey image is padded to 32×32 by the first convolution, as in the authors' code. ``depth`` defaults to 3,
    fewer where that would leave less than 2×2 pixels: on the 8×8 digits, 100 random samples train depth 2 to 95 % and
    depth 3, which sees a single pixel at the end, to 89 % (docs/reproducibility.md).

    Raises:
        SettingsError: ``depth`` halves the image to nothing.
    """
    channels, height, width_px = sample_shape
    padding = 3 if (channels, height, width_px) == (1, 28, 28) else 1
    size = (height + 2 * padding - 2, width_px + 2 * padding - 2)
    most = int(math.log2(min(size))) if min(size) else 0
    depth = max(1, min(3, most - 1)) if depth is None else depth
    if not 1 <= depth <= most:
        raise SettingsError(
            f"a ConvNet of depth {depth} needs images of at least {2 ** max(depth, 1)} pixels a side, "
            f"got {height}×{width_px}"
        )
    stages: list[nn.Module] = []
    for block in range(depth):
        convolution = Convolution(channels, width, 3, padding=padding if block == 0 else 1)
        stages.append(nn.Sequential(convolution, NormReluPool(width)))
        channels, size = width, (size[0] // 2, size[1] // 2)
    return Network(stages, channels * size[0] * size[1], num_classes)


@NETWORKS.register("linear")
def linear(sample_shape: tuple[int, ...], num_classes: int) -> Network:
    """A linear classifier of the samples as they are: for features of a backbone. Its embedding is the sample."""
    return Network([nn.Flatten()], math.prod(sample_shape), num_classes)


@NETWORKS.register("mlp")
def mlp(sample_shape: tuple[int, ...], num_classes: int, *, width: Count = 128, depth: Count = 2) -> Network:
    """``depth`` hidden layers of ``width`` units with ReLU; images are flattened."""
    sizes = [math.prod(sample_shape)] + [width] * depth
    stages = [nn.Sequential(nn.Flatten(), nn.Linear(inputs, outputs), nn.ReLU()) for inputs, outputs in pairwise(sizes)]
    return Network(stages, width, num_classes)


@NETWORKS.register("lenet", images_only=True)
def lenet(sample_shape: tuple[int, ...], num_classes: int) -> Network:
    """Two 5×5 convolutions with pooling, then dense layers of 120 and 84 units.

    Convolutions pad so that an 8×8 image still has pixels left (the original pads only 28×28 images to 32×32).

    Raises:
        SettingsError: the image is smaller than 4×4.
    """
    channels, height, width = sample_shape
    if min(height, width) < 4:
        raise SettingsError(f"LeNet needs images of at least 4×4 pixels, got {height}×{width}")
    flat = 16 * (height // 4) * (width // 4)
    stages = [
        nn.Sequential(nn.Conv2d(channels, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Sequential(nn.Conv2d(6, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Sequential(nn.Flatten(), nn.Linear(flat, 120), nn.ReLU()),
        nn.Sequential(nn.Linear(120, 84), nn.ReLU()),
    ]
    return Network(stages, 84, num_classes)


@NETWORKS.register("resnet18", images_only=True)
def resnet18(sample_shape: tuple[int, ...], num_classes: int, *, width: Count = 64) -> Network:
    """A 3×3 stem without pooling, four stages of two residual blocks, global average pooling.

    Instance norm instead of batch norm: a handful of synthetic samples gives no usable batch statistics.
    """
    channels = sample_shape[0]
    stem = nn.Sequential(nn.Conv2d(channels, width, 3, padding=1, bias=False), InstanceNorm(width), nn.ReLU())
    stages = [stem]
    inputs = width
    for stage in range(4):
        outputs = width * 2**stage
        blocks = [ResidualBlock(inputs, outputs, 1 if stage == 0 else 2), ResidualBlock(outputs, outputs, 1)]
        stages.append(nn.Sequential(*blocks))
        inputs = outputs
    stages[-1].append(nn.AdaptiveAvgPool2d(1))
    return Network(stages, inputs, num_classes)


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut, which is projected where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = InstanceNorm(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = InstanceNorm(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), InstanceNorm(outputs))

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = F.relu(self.norm1(self.conv1(inputs)))
        return F.relu(self.norm2(self.conv2(hidden)) + self.shortcut(inputs))


_WIDTHS = ((64,), (128,), (256, 256), (512, 512), (512, 512))
_MIN_SIDE = 2  # at a single pixel, instance norm leaves nothing of the signal


@NETWORKS.register("vgg11", images_only=True)
def vgg11(sample_shape: tuple[int, ...], num_classes: int) -> Network:
    """Eight 3×3 convolutions with instance norm and ReLU in five groups, 2×2 max pooling, then a linear classifier.

    A 28×28 grey image is padded to 32×32 by the first convolution, as in the authors' code. Images smaller than 32
    pixels are pooled less often, so that every convolution sees at least 2×2 pixels; only the last pooling may leave
    one.

    Raises:
        SettingsError: the image is smaller than 4×4.
    """
    channels, height, width = sample_shape
    if min(height, width) < 2 * _MIN_SIDE:
        raise SettingsError(f"VGG-11 needs images of at least 4×4 pixels, got {height}×{width}")
    padding = 3 if (channels, height, width) == (1, 28, 28) else 1
    sides = [side + 2 * (padding - 1) for side in (height, width)]
    stages: list[nn.Module] = []
    for group, widths in enumerate(_WIDTHS):
        for outputs in widths:
            convolution = nn.Conv2d(channels, outputs, 3, padding=padding)
            stages.append(nn.Sequential(convolution, InstanceNorm(outputs), nn.ReLU()))
            channels, padding = outputs, 1
        last = group == len(_WIDTHS) - 1
        if min(sides) // 2 >= (1 if last else _MIN_SIDE):
            stages[-1].append(nn.MaxPool2d(2))  # type: ignore[operator]
            sides = [side // 2 for side in sides]
    network = Network(stages, channels * sides[0] * sides[1], num_classes)
    network.body.to(memory_format=torch.channels_last)
    return network


_SMALLEST = 8


@NETWORKS.register("alexnet", images_only=True)
def alexnet(sample_shape: tuple[int, ...], num_classes: int) -> Network:
    """Five convolutions with ReLU, three of them followed by 2×2 max pooling, then a linear classifier.

    Widths and kernels are those of Zhao et al. 2021's code: no normalisation, no stride, no dense hidden layers, and a
    28×28 grey image padded to 32×32.

    Raises:
        SettingsError: the image is smaller than 8×8.
    """
    channels, height, width = sample_shape
    if min(height, width) < _SMALLEST:
        raise SettingsError(f"AlexNet needs images of at least {_SMALLEST}×{_SMALLEST} pixels, got {height}×{width}")
    first = 4 if (channels, height, width) == (1, 28, 28) else 2
    stages = [
        nn.Sequential(nn.Conv2d(channels, 128, 5, padding=first), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Sequential(nn.Conv2d(128, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        nn.Sequential(nn.Conv2d(192, 256, 3, padding=1), nn.ReLU()),
        nn.Sequential(nn.Conv2d(256, 192, 3, padding=1), nn.ReLU()),
        nn.Sequential(nn.Conv2d(192, 192, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
    ]
    sides = [(side + 2 * (first - 2)) // 2 // 2 // 2 for side in (height, width)]
    network = Network(stages, 192 * sides[0] * sides[1], num_classes)
    network.body.to(memory_format=torch.channels_last)
    return network
