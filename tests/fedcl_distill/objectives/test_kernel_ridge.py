"""Truth: numpy's solver, gradcheck, and margins by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from builders import blobs
from fedcl_distill.augmentation import NoAugmentation
from fedcl_distill.context import RealSampler, SyntheticBatch
from fedcl_distill.errors import DivergenceError, SettingsError
from fedcl_distill.networks import Architecture, Network
from fedcl_distill.objectives import MatchContext
from fedcl_distill.objectives.kernel_ridge import (
    FullyConnectedNTK,
    Kernel,
    KernelRidgeRegression,
    NetworkFeatures,
    PlattScaling,
    RegressionLoss,
    RepresentedBatch,
    SquaredError,
    SquaredErrorWithMargin,
    gram,
    margin_loss,
    ridge_coefficients,
)

CPU = torch.device("cpu")


def view_of(network: Network, seed: int = 0) -> MatchContext:
    return MatchContext(network, NoAugmentation().draw(3, (1, 8, 8), torch.Generator()), seed)


def smooth_network() -> Network:
    return Network([nn.Flatten(), nn.Linear(4, 6), nn.Tanh()], 6, 3).double().requires_grad_(False)


def total(
    objective: KernelRidgeRegression, view: MatchContext, target: RepresentedBatch, side: SyntheticBatch
) -> float:
    """The loss; differentiates each addend before the next, as the engine does."""
    value = 0.0
    for loss in objective.losses(view, target, side):
        loss.backward()  # type: ignore[no-untyped-call]
        value += loss.item()
    return value


@pytest.mark.parametrize("kernel", [FullyConnectedNTK(depth=1), NetworkFeatures()])
def test_the_loss_is_that_of_ridge_regression_solved_by_numpy(kernel: Kernel) -> None:
    data = blobs(per_class=20)
    network = Architecture("convnet", {"width": 4}).build((1, 8, 8), 3, seed=0).requires_grad_(False)
    objective = KernelRidgeRegression(kernel, SquaredError(), regularisation=1e-3, real_batch_size=25)
    view, real = view_of(network, seed=3), RealSampler(data, CPU)
    inputs, classes = torch.randn(5, 1, 8, 8, requires_grad=True), torch.tensor([0, 1, 1, 2, 2])
    value = total(objective, view, objective.target(view, real), SyntheticBatch(inputs, classes, classes))

    batch, truth = real.batch(25, seed=3)
    with torch.no_grad():
        side, other = (kernel.represent(network, one).double() for one in (inputs, batch))
        k_ss, k_ts = kernel.between(side, side).numpy(), kernel.between(other, side).numpy()
    labels = np.eye(3)[classes.numpy()] - 1 / 3
    solved = np.linalg.solve(k_ss + 1e-3 * np.trace(k_ss) / 5 * np.eye(5), labels)
    expected = 0.5 * np.mean((k_ts @ solved - (np.eye(3)[truth.numpy()] - 1 / 3)) ** 2)
    assert value == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("loss", [SquaredError(), SquaredErrorWithMargin(), PlattScaling()])
@pytest.mark.parametrize("kernel", [FullyConnectedNTK(), NetworkFeatures(scale=2.0, bias=0.01)])
def test_gradients_by_samples_labels_and_scale_are_right(kernel: Kernel, loss: RegressionLoss) -> None:
    torch.manual_seed(0)
    objective = KernelRidgeRegression(kernel, loss, regularisation=1e-2)
    view = view_of(smooth_network())
    with torch.no_grad():
        represented = kernel.represent(view.network, torch.randn(7, 4, dtype=torch.float64))
    target = RepresentedBatch(represented, torch.tensor([0, 1, 2, 0, 1, 2, 0]), 3)
    inputs = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([[0.8, 0.2, 0.0], [0.3, 0.5, 0.2], [0.1, 0.3, 0.6]], dtype=torch.float64, requires_grad=True)
    scale = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)

    def value(inputs: torch.Tensor, labels: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        side = SyntheticBatch(inputs, torch.arange(3), labels, {"log_scale": scale})
        return next(iter(objective.losses(view, target, side))) + 0 * scale

    assert torch.autograd.gradcheck(value, (inputs, labels, scale))


def test_chunks_change_neither_loss_nor_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    data = blobs(per_class=20)
    network = Architecture("convnet", {"width": 4}).build((1, 8, 8), 3, seed=0).requires_grad_(False)
    objective = KernelRidgeRegression(real_batch_size=30, regularisation=1e-2, loss=SquaredErrorWithMargin())
    view = view_of(network)
    target = objective.target(view, RealSampler(data, CPU))
    classes = torch.arange(3).repeat_interleave(7)
    results = []
    for values in (32 * 1024, 64 * 16):
        monkeypatch.setattr("fedcl_distill.networks.base._CPU_VALUES", values)
        inputs = torch.randn(21, 1, 8, 8, generator=torch.Generator().manual_seed(5)).requires_grad_()
        labels = torch.eye(3)[classes].requires_grad_()
        side = SyntheticBatch(inputs, classes, labels)
        results.append((total(objective, view, target, side), inputs.grad, labels.grad))
    (whole, whole_inputs, whole_labels), (cut, cut_inputs, cut_labels) = results
    assert cut == pytest.approx(whole, rel=1e-4)
    assert torch.allclose(whole_inputs, cut_inputs, rtol=1e-3, atol=1e-5)
    assert torch.allclose(whole_labels, cut_labels, rtol=1e-3, atol=1e-5)


def test_a_set_that_is_the_real_batch_predicts_it() -> None:
    data = blobs(per_class=6)
    objective = KernelRidgeRegression(FullyConnectedNTK(), real_batch_size=18)
    view = view_of(smooth_network())
    side = SyntheticBatch(data.inputs().requires_grad_(), data.labels, data.labels)
    assert total(objective, view, objective.target(view, RealSampler(data, CPU)), side) < 1e-6


def test_equal_samples_do_not_stop_the_solver() -> None:
    represented = torch.randn(1, 5, dtype=torch.float64).repeat(6, 1)
    labels = torch.eye(3, dtype=torch.float64).repeat(2, 1)
    solved = ridge_coefficients(gram(NetworkFeatures(), represented), labels, 1e-17)
    assert torch.isfinite(solved).all()


def test_a_kernel_that_is_not_finite_is_told() -> None:
    with pytest.raises(DivergenceError, match="positive definite"):
        ridge_coefficients(torch.full((2, 2), math.nan, dtype=torch.float64), torch.eye(2), 1e-6)
    with pytest.raises(DivergenceError, match="positive definite"):
        ridge_coefficients(torch.zeros(2, 2, dtype=torch.float64), torch.eye(2), 1e-6)


def test_the_label_margin_by_hand() -> None:
    rows = torch.tensor([[0.9, 0.1, 0.0, 0.0], [0.4, 0.3, 0.3, 0.0], [0.25, 0.25, 0.25, 0.25]])
    # Margins 0.8, 0.1 and 0, the first cut at 1/4.
    assert margin_loss(rows).item() == pytest.approx(-(0.25 + 0.1 + 0.0) / 3)
    assert margin_loss(torch.ones(4, 1)).item() == 0


def test_a_margin_above_its_limit_is_not_pulled_further() -> None:
    rows = torch.tensor([[0.9, 0.1, 0.0, 0.0], [0.4, 0.3, 0.3, 0.0]], requires_grad=True)
    margin_loss(rows).backward()  # type: ignore[no-untyped-call]
    assert rows.grad is not None
    assert rows.grad[0].abs().sum() == 0
    assert rows.grad[1, 0].item() == pytest.approx(-0.5)


def test_a_closed_form_needs_no_network_and_features_need_one() -> None:
    assert not KernelRidgeRegression(FullyConnectedNTK()).needs_network
    assert KernelRidgeRegression(NetworkFeatures()).needs_network


def test_one_class_and_absent_classes_are_no_trouble() -> None:
    for data, classes in ((blobs(classes=1), [0]), (blobs().subset(torch.arange(40)), [0, 1])):
        objective = KernelRidgeRegression(FullyConnectedNTK(), SquaredErrorWithMargin())
        view = view_of(smooth_network())
        inputs = torch.randn(len(classes), 1, 8, 8, requires_grad=True)
        side = SyntheticBatch(inputs, torch.tensor(classes), torch.tensor(classes))
        assert math.isfinite(total(objective, view, objective.target(view, RealSampler(data, CPU)), side))
        assert inputs.grad is not None
        assert torch.isfinite(inputs.grad).all()


def test_bad_settings_are_refused() -> None:
    for bad in ({"regularisation": 0.0}, {"real_batch_size": 0}):
        with pytest.raises(SettingsError):
            KernelRidgeRegression(**bad)  # type: ignore[arg-type]
