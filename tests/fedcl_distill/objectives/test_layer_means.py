"""Truth: the paper's sums written as loops, F.cross_entropy by hand, autograd of the whole loss, finite differences."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from builders import blobs
from fedcl_distill.augmentation import NoAugmentation, SiameseAugmentation
from fedcl_distill.context import RealSampler, SyntheticBatch
from fedcl_distill.data import LabelledData
from fedcl_distill.errors import SettingsError
from fedcl_distill.networks import Architecture, Network
from fedcl_distill.objectives import LayerMeans, MatchContext
from fedcl_distill.objectives import distribution as module

CPU = torch.device("cpu")


def side(inputs: torch.Tensor, labels: torch.Tensor) -> SyntheticBatch:
    return SyntheticBatch(inputs, classes=labels, labels=labels)


def view_of(network: Network, classes: int = 3, shape: tuple[int, ...] = (1, 16, 16)) -> MatchContext:
    return MatchContext(network.requires_grad_(False), NoAugmentation().draw(classes, shape, torch.Generator()), seed=3)


def convnet(classes: int = 3, shape: tuple[int, ...] = (1, 16, 16)) -> Network:
    return Architecture("convnet", {"width": 4}).build(shape, classes, seed=0).double()


def in_double(data: LabelledData, objective: LayerMeans, view: MatchContext) -> module.LayerTarget:
    """The target with real samples in float64."""

    class Real(RealSampler):
        def draw(self, per_class: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
            inputs, labels = super().draw(per_class, seed)
            return inputs.double(), labels

    return objective.target(view, Real(data, CPU))


def naive_loss(
    objective: LayerMeans, view: MatchContext, data: LabelledData, synthetic: SyntheticBatch
) -> torch.Tensor:
    """Class by class, layer by layer, sample by sample; for classes that both sides have."""
    real, labels = RealSampler(data, CPU).draw(objective.real_batch_per_class, view.seed)
    of_real, of_synthetic = view.network.stages(real.double()), view.network.stages(synthetic.inputs)
    classes = [c for c in range(data.num_classes) if (labels == c).any() and (synthetic.classes == c).any()]
    loss = torch.zeros((), dtype=torch.float64)
    for weight, left, right in zip(objective.weights(len(of_real)), of_real, of_synthetic, strict=True):
        for label in classes:
            gap = left[labels == label].mean(0) - right[synthetic.classes == label].mean(0)
            loss = loss + weight * (gap**2).sum()
    centres = [of_synthetic[-1][synthetic.classes == label].mean(0).flatten() for label in classes]
    for embedding, label in zip(of_real[-1], labels.tolist(), strict=True):
        if label in classes:
            scores = torch.stack([centre @ embedding.flatten() for centre in centres])
            loss = loss - objective.discriminative_weight * (scores[classes.index(label)] - scores.logsumexp(0))
    return loss


@pytest.mark.parametrize("in_groups", [False, True])
@pytest.mark.parametrize("absent", ["none", "real", "synthetic"])
def test_value_and_gradient_are_those_of_the_formula(
    absent: str, in_groups: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = blobs(shape=(1, 16, 16), per_class=9)
    classes = torch.tensor([0, 0, 0, 1, 2, 2])
    if absent == "real":
        data = data.subset(torch.arange(18))
    elif absent == "synthetic":
        classes = torch.tensor([0, 0, 0, 2, 2, 2])
    if in_groups:
        monkeypatch.setattr(module, "micro_batch_size", lambda inputs: 2)
    inputs = torch.randn(6, 1, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    objective, view = LayerMeans(real_batch_per_class=5, discriminative_weight=0.3), view_of(convnet())

    losses = list(objective.losses(view, in_double(data, objective, view), side(inputs, classes)))
    assert len(losses) == (len(classes.unique()) if in_groups else 1)
    (gradient,) = torch.autograd.grad(torch.stack(losses).sum(), inputs)
    expected = naive_loss(objective, view, data, side(inputs, classes))
    (expected_gradient,) = torch.autograd.grad(expected, inputs)
    torch.testing.assert_close(torch.stack(losses).sum(), expected)
    torch.testing.assert_close(gradient, expected_gradient)


def test_gradient_equals_finite_differences() -> None:
    network = Network([nn.Sequential(nn.Linear(4, 5), nn.Tanh()), nn.Linear(5, 3)], 3, 2).double()
    data = blobs(shape=(4,), classes=2, per_class=6)
    objective, view = LayerMeans(), view_of(network, 2, (4,))
    target = in_double(data, objective, view)
    inputs = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)

    def loss(inputs: torch.Tensor) -> torch.Tensor:
        return torch.stack(list(objective.losses(view, target, side(inputs, torch.tensor([0, 1, 1]))))).sum()

    assert torch.autograd.gradcheck(loss, (inputs,))


def test_deep_stages_weigh_more_whatever_the_depth() -> None:
    objective = LayerMeans()
    assert objective.weights(1) == [1.0]
    assert objective.weights(2) == [0.1, 1.0]
    assert objective.weights(3) == [0.1, 0.1, 1.0]
    assert objective.weights(4) == [0.1, 0.1, 1.0, 1.0]


def test_equal_sides_leave_the_discriminative_term_alone() -> None:
    data = blobs(per_class=4)
    network = Architecture("mlp", {"width": 4}).build((1, 8, 8), 3, seed=0)
    objective, view = LayerMeans(discriminative_weight=0.0), view_of(network, shape=(1, 8, 8))
    target = objective.target(view, RealSampler(data, CPU))
    assert sum(loss.item() for loss in objective.losses(view, target, side(data.inputs(), data.labels))) < 1e-9


def test_one_class_and_one_real_sample_are_enough() -> None:
    data = blobs(shape=(3, 8, 12), classes=1, per_class=1)
    network = Architecture("convnet", {"width": 4}).build((3, 8, 12), 1, seed=0)
    objective, view = LayerMeans(), view_of(network, 1, (3, 8, 12))
    inputs = torch.randn(1, 3, 8, 12, requires_grad=True)
    target = objective.target(view, RealSampler(data, CPU))
    (loss,) = objective.losses(view, target, side(inputs, torch.tensor([0])))
    loss.backward()
    assert math.isfinite(loss.item())
    assert inputs.grad is not None
    assert inputs.grad.isfinite().all()
    assert inputs.grad.abs().sum() > 0


def test_both_sides_are_augmented_alike() -> None:
    data = blobs(per_class=4)
    network = Architecture("mlp", {"width": 4}).build((1, 8, 8), 3, seed=0).requires_grad_(False)
    draw = SiameseAugmentation().draw(3, (1, 8, 8), torch.Generator().manual_seed(0))
    view, objective = MatchContext(network, draw, seed=0), LayerMeans(discriminative_weight=0.0)
    target = objective.target(view, RealSampler(data, CPU))
    assert sum(loss.item() for loss in objective.losses(view, target, side(data.inputs(), data.labels))) < 1e-9


@pytest.mark.parametrize(
    "change", [{"real_batch_per_class": 0}, {"deep_weight": -1.0}, {"discriminative_weight": -0.1}]
)
def test_impossible_settings_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(SettingsError):
        LayerMeans(**change)  # type: ignore[arg-type]
