"""Truth: sampled Gaussians, the gradients of one wide network, and closed forms on the unit sphere."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fedcl_distill.errors import SettingsError
from fedcl_distill.networks import Network
from fedcl_distill.objectives.kernel_ridge import FullyConnectedNTK, NetworkFeatures, gram, relu_covariance


def nothing() -> Network:
    return Network([nn.Identity()], 1, 1)


def unit_circle(*angles: float) -> torch.Tensor:
    """Vectors whose mean square, which is what enters the kernel, is 1."""
    radians = torch.tensor(angles, dtype=torch.float64)
    return math.sqrt(2) * torch.stack([radians.cos(), radians.sin()], dim=1)


@pytest.mark.parametrize("angle", [0.0, 0.3, math.pi / 2, 2.5, math.pi])
def test_one_hidden_layer_without_bias_has_the_textbook_tangent_kernel_on_the_sphere(angle: float) -> None:
    kernel = FullyConnectedNTK(depth=1, bias_std=0.0)
    value = kernel.between(unit_circle(0.0), unit_circle(angle))
    u = math.cos(angle)  # of He-initialised networks, inputs of variance 1: Bietti and Mairal 2019, doubled
    first = (u * (math.pi - angle) + math.sqrt(1 - u * u)) / math.pi
    zeroth = (math.pi - angle) / math.pi
    assert value.item() == pytest.approx(2 * (first + u * zeroth), abs=1e-7)


def test_relu_expectations_are_those_of_sampled_gaussians() -> None:
    covariance = torch.tensor([[1.3, -0.5], [-0.5, 0.7]], dtype=torch.float64)
    samples = torch.randn(400_000, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    u, v = (samples @ torch.linalg.cholesky(covariance).T).unbind(1)
    value, derivative = relu_covariance(covariance[:1, 1:], covariance[0, :1], covariance[1, 1:])
    assert value.item() == pytest.approx((u.relu() * v.relu()).mean().item(), rel=0.03)
    assert derivative.item() == pytest.approx(((u > 0) & (v > 0)).double().mean().item(), rel=0.02)


def test_the_tangent_kernel_is_that_of_a_wide_network() -> None:
    width, features = 4096, 5
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(3, features, generator=generator)
    sizes = [features, width, width, 1]
    weights = [torch.randn(o, i, generator=generator).requires_grad_() for i, o in pairwise(sizes)]
    biases = [torch.randn(o, generator=generator).requires_grad_() for o in sizes[1:]]

    def output(x: torch.Tensor) -> torch.Tensor:
        for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            x = math.sqrt(2 / weight.shape[1]) * F.linear(x, weight) + 0.1 * bias
            x = x.relu() if layer < 2 else x
        return x.sum()

    rows = [torch.cat([g.flatten() for g in torch.autograd.grad(output(x), weights + biases)]) for x in inputs]
    empirical = torch.stack(rows) @ torch.stack(rows).T
    kernel = FullyConnectedNTK(depth=2)
    exact = gram(kernel, kernel.represent(nothing(), inputs))
    assert torch.allclose(empirical.double(), exact, rtol=0.08, atol=0.15)


def test_the_tangent_kernel_has_the_right_gradient_also_where_samples_are_equal() -> None:
    kernel = FullyConnectedNTK(depth=2)
    left = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    right = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(kernel.between, (left, right))
    # Differences across the angle 0 see the kink of the derivative's angle, except in the direction of the sample.
    (gradient,) = torch.autograd.grad(gram(kernel, left).diagonal().sum(), left)
    step = 1e-6
    stretched = [gram(kernel, left.detach() * (1 + s)).diagonal().sum() for s in (step, -step)]
    assert (gradient * left).sum().item() == pytest.approx(
        ((stretched[0] - stretched[1]) / (2 * step)).item(), rel=1e-6
    )


def test_depth_0_is_linear_and_images_are_flattened() -> None:
    kernel = FullyConnectedNTK(depth=0, weight_std=2.0, bias_std=0.5)
    images = torch.randn(4, 3, 2, 5)
    flat = images.flatten(1).double()
    expected = 4 * flat @ flat.T / 30 + 0.25
    assert torch.allclose(gram(kernel, kernel.represent(nothing(), images)), expected)


def test_network_features_are_scaled_inner_products() -> None:
    network = Network([nn.Flatten(), nn.Linear(6, 5)], 5, 2)
    images, others = torch.randn(40, 1, 2, 3), torch.randn(3, 1, 2, 3)
    kernel = NetworkFeatures(scale=2.0, bias=0.01)
    with torch.no_grad():
        value = kernel.between(kernel.represent(network, images), kernel.represent(network, others))
        expected = 2 * network.embed(images) @ network.embed(others).T / 5 + 0.01
    assert value.dtype == torch.float64
    assert torch.allclose(value, expected.double(), atol=1e-5)


def test_bad_kernels_are_refused() -> None:
    for bad in (
        lambda: FullyConnectedNTK(depth=-1),
        lambda: FullyConnectedNTK(weight_std=0.0),
        lambda: NetworkFeatures(scale=0.0),
        lambda: NetworkFeatures(bias=-1.0),
    ):
        with pytest.raises(SettingsError):
            bad()
