"""Truth: torch.autograd on each class alone with the network's own parameters, finite differences, naive sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import fedcl_distill.networks.base
import fedcl_distill.objectives.gradients
from builders import blobs
from fedcl_distill.augmentation import NoAugmentation, SiameseAugmentation
from fedcl_distill.context import RealSampler, SyntheticBatch
from fedcl_distill.errors import SettingsError
from fedcl_distill.networks import Architecture, Network
from fedcl_distill.objectives import (
    AbsoluteDistance,
    CosineDistance,
    GradientMatching,
    HiddenWeights,
    MatchContext,
    SquaredDistance,
)

SHAPE = (1, 8, 8)
NETWORKS = {"convnet": Architecture("convnet", {"width": 4}), "mlp": Architecture("mlp", {"width": 5})}
CPU = torch.device("cpu")


def network_of(kind: str, classes: int = 3) -> Network:
    return NETWORKS[kind].build(SHAPE, classes, seed=1).double().requires_grad_(False)


def view_of(network: Network, seed: int = 4) -> MatchContext:
    return MatchContext(network, NoAugmentation().draw(3, SHAPE, torch.Generator()), seed)


def synthetic_of(classes: Sequence[int], seed: int = 0) -> SyntheticBatch:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(len(classes), *SHAPE, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor(classes)
    return SyntheticBatch(inputs, labels, labels)


def own_gradient(network: Network, inputs: Tensor, labels: Tensor, create_graph: bool = False) -> list[Tensor]:
    """Of every weight of at least two dimensions, by autograd on the network itself."""
    network.requires_grad_(True)
    weights = [one for one in network.parameters() if one.ndim > 1]
    gradient = torch.autograd.grad(F.cross_entropy(network(inputs), labels), weights, create_graph=create_graph)
    network.requires_grad_(False)
    return list(gradient)


def real_gradients(view: MatchContext, per_class: int, real: RealSampler) -> dict[int, list[Tensor]]:
    inputs, labels = real.draw(per_class, view.seed)
    inputs = inputs.double()
    return {
        int(c): own_gradient(view.network, view.augment(inputs, labels)[labels == c], labels[labels == c])
        for c in labels.unique()
    }


class DoubleReal(RealSampler):
    """float64, so that differences of rounding do not hide others."""

    def draw(self, per_class: int, seed: int) -> tuple[Tensor, Tensor]:
        inputs, labels = super().draw(per_class, seed)
        return inputs.double(), labels


def run(
    objective: GradientMatching, view: MatchContext, real: RealSampler, synthetic: SyntheticBatch
) -> tuple[float, Tensor]:
    """The loss, and its gradient in the inputs, as the engine takes them."""
    value = 0.0
    inputs = synthetic.inputs.detach().clone().requires_grad_()
    for loss in objective.losses(view, objective.target(view, real), replace(synthetic, inputs=inputs)):
        loss.backward()  # type: ignore[no-untyped-call]
        value += loss.item()
    assert inputs.grad is not None
    return value, inputs.grad


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_target_is_the_gradient_of_each_class_alone(kind: str) -> None:
    view, real = view_of(network_of(kind)), DoubleReal(blobs(per_class=20), CPU)
    target = GradientMatching(real_batch_per_class=7).target(view, real)
    expected = real_gradients(view, 7, real)
    assert target.keys() == expected.keys()
    for label, gradient in target.items():
        torch.testing.assert_close(list(gradient), expected[label])
        assert not any(layer.requires_grad for layer in gradient)


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("distance", [CosineDistance(), SquaredDistance(), AbsoluteDistance()])
def test_class_by_class_it_is_the_sum_of_distances_of_each_class(kind: str, distance: CosineDistance) -> None:
    view, real = view_of(network_of(kind)), DoubleReal(blobs(), CPU)
    synthetic = synthetic_of([0, 0, 1, 2, 2, 2])
    value, _ = run(GradientMatching(distance=distance, real_batch_per_class=5), view, real, synthetic)
    of_real, expected = real_gradients(view, 5, real), 0.0
    for label in range(3):
        rows = synthetic.classes == label
        given = own_gradient(view.network, synthetic.inputs[rows].detach(), synthetic.labels[rows])
        expected += sum(float(distance(one, other)) for one, other in zip(of_real[label], given, strict=True))
    assert value == pytest.approx(expected, rel=1e-9)


def test_over_all_classes_it_is_the_distance_of_mean_gradients() -> None:
    view, real = view_of(network_of("convnet")), DoubleReal(blobs(), CPU)
    synthetic = synthetic_of([0, 0, 1, 2, 2, 2])
    value, _ = run(GradientMatching(over="all", real_batch_per_class=5), view, real, synthetic)
    of_real = real_gradients(view, 5, real)
    wanted = [sum(layers) / 3 for layers in zip(*of_real.values(), strict=True)]
    of_synthetic = [
        own_gradient(view.network, synthetic.inputs[rows].detach(), synthetic.labels[rows])
        for rows in (synthetic.classes == label for label in range(3))
    ]
    given = [sum(layers) / 3 for layers in zip(*of_synthetic, strict=True)]
    expected = sum(float(CosineDistance()(one, other)) for one, other in zip(wanted, given, strict=True))  # type: ignore[arg-type]
    assert value == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("over", ["class", "all"])
@pytest.mark.parametrize("distance", [CosineDistance(), SquaredDistance()])
def test_the_gradient_in_the_samples_agrees_with_finite_differences(
    kind: str, over: str, distance: CosineDistance
) -> None:
    view, real = view_of(network_of(kind)), DoubleReal(blobs(), CPU)
    objective = GradientMatching(distance=distance, over=over, real_batch_per_class=6)  # type: ignore[arg-type]
    synthetic = synthetic_of([0, 1, 1, 2])
    _, gradient = run(objective, view, real, synthetic)
    way = torch.randn(synthetic.inputs.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    target, ends = objective.target(view, real), []
    for side in (1e-6, -1e-6):
        moved = replace(synthetic, inputs=(synthetic.inputs.detach() + side * way).requires_grad_())
        ends.append(sum(loss.item() for loss in objective.losses(view, target, moved)))
    assert (ends[0] - ends[1]) / 2e-6 == pytest.approx(float((gradient * way).sum()), rel=1e-5)


@pytest.mark.parametrize("over", ["class", "all"])
def test_cutting_into_parts_changes_neither_loss_nor_gradients(over: str, monkeypatch: pytest.MonkeyPatch) -> None:
    view, real = view_of(network_of("convnet")), DoubleReal(blobs(), CPU)
    objective = GradientMatching(over=over, real_batch_per_class=9, full_rate_at=2)  # type: ignore[arg-type]
    synthetic = synthetic_of([0, 0, 0, 1, 1, 2, 2, 2, 2, 2])
    target = objective.target(view, real)
    value, gradient = run(objective, view, real, synthetic)
    for module in (fedcl_distill.networks.base, fedcl_distill.objectives.gradients):
        monkeypatch.setattr(module, "micro_batch_size", lambda inputs: 2)
    for label, of_class in objective.target(view, real).items():
        torch.testing.assert_close(list(of_class), list(target[label]))
    assert len(list(objective.losses(view, target, synthetic))) > 3
    in_parts, gradient_in_parts = run(objective, view, real, synthetic)
    assert in_parts == pytest.approx(value, rel=1e-10)
    torch.testing.assert_close(gradient_in_parts, gradient)


def test_equal_sides_agree_perfectly_under_the_same_augmentation() -> None:
    data = blobs(shape=(3, 8, 10), per_class=4)
    network = Architecture("convnet", {"width": 4}).build((3, 8, 10), 3, seed=0).double().requires_grad_(False)
    draw = SiameseAugmentation().draw(3, (3, 8, 10), torch.Generator().manual_seed(1))
    inputs = data.inputs().double().requires_grad_()
    synthetic = SyntheticBatch(inputs, data.labels, data.labels)
    objective, view = (
        GradientMatching(distance=SquaredDistance(), real_batch_per_class=10),
        MatchContext(network, draw, 0),
    )
    target = objective.target(view, DoubleReal(data, CPU))
    assert sum(loss.item() for loss in objective.losses(view, target, synthetic)) == pytest.approx(0, abs=1e-20)
    other = replace(view, augment=SiameseAugmentation().draw(3, (3, 8, 10), torch.Generator().manual_seed(2)))
    assert sum(loss.item() for loss in objective.losses(other, target, synthetic)) > 1e-6


@pytest.mark.parametrize("over", ["class", "all"])
def test_classes_that_one_side_lacks_take_no_part(over: str) -> None:
    view, objective = view_of(network_of("mlp")), GradientMatching(over=over, real_batch_per_class=5)  # type: ignore[arg-type]
    present = DoubleReal(blobs(per_class=5).subset(torch.arange(10)), CPU)  # classes 0 and 1
    assert objective.target(view, present).keys() == {0, 1}
    with_absent, gradient = run(objective, view, present, synthetic_of([1, 2]))
    without, _ = run(objective, view, present, synthetic_of([1]))
    assert with_absent == pytest.approx(without)
    assert gradient[1].abs().sum() == 0
    assert list(objective.losses(view, objective.target(view, present), synthetic_of([2]))) == []


def test_one_real_sample_a_class_is_enough() -> None:
    view, real = view_of(network_of("mlp")), DoubleReal(blobs(per_class=1), CPU)
    value, gradient = run(GradientMatching(), view, real, synthetic_of([0, 1, 2]))
    assert 0 < value < float("inf")
    assert torch.isfinite(gradient).all()


def test_soft_labels_enter_and_get_a_gradient() -> None:
    view, real, objective = view_of(network_of("mlp")), DoubleReal(blobs(), CPU), GradientMatching()
    synthetic = synthetic_of([0, 1, 2])
    target = objective.target(view, real)
    hard = sum(loss.item() for loss in objective.losses(view, target, synthetic))
    sure = replace(synthetic, labels=F.one_hot(synthetic.classes, 3).double().requires_grad_())
    value = 0.0
    for loss in objective.losses(view, target, sure):
        loss.backward()  # type: ignore[no-untyped-call]
        value += loss.item()
    assert value == pytest.approx(hard)
    assert sure.labels.grad is not None
    assert (sure.labels.grad.abs().sum(dim=1) > 0).all()


def test_the_full_rate_weighs_classes_by_their_samples() -> None:
    view, real = view_of(network_of("mlp")), DoubleReal(blobs(), CPU)
    synthetic = synthetic_of([0, 1, 1])
    _, plain = run(GradientMatching(), view, real, synthetic)
    _, weighed = run(GradientMatching(full_rate_at=4), view, real, synthetic)
    torch.testing.assert_close(weighed, plain * torch.tensor([1 / 4, 2 / 4, 2 / 4])[:, None, None, None])


def test_hidden_weights_leave_out_the_classifier() -> None:
    network = network_of("convnet")
    names = HiddenWeights().of(network).keys()
    assert names
    assert all(name.startswith("body.") and name.endswith("weight") for name in names)
    assert all(dict(network.named_parameters())[name].ndim == 4 for name in names)


def test_the_network_is_left_alone() -> None:
    network = network_of("convnet").requires_grad_(True)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    run(GradientMatching(), view_of(network), DoubleReal(blobs(), CPU), synthetic_of([0, 1, 2]))
    assert all(one.requires_grad and one.grad is None for one in network.parameters())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_settings_out_of_range_are_refused() -> None:
    for wrong in ({"real_batch_per_class": 0}, {"full_rate_at": 0}, {"over": "everything"}):
        with pytest.raises(SettingsError):
            GradientMatching(**wrong)  # type: ignore[arg-type]
