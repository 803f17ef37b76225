"""Truth: two SGD steps of softmax regression written out by hand, finite differences, autograd through all steps."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from builders import blobs
from fedcl_distill.augmentation import Augmentation, NoAugmentation, SiameseAugmentation, augmentation_for
from fedcl_distill.context import RealSampler, SyntheticBatch
from fedcl_distill.errors import SettingsError
from fedcl_distill.networks import Architecture, Network
from fedcl_distill.objectives import MatchContext, Replayed, Tesla, TrajectoryGradient, TrajectoryMatching, Unrolled
from fedcl_distill.objectives.inner_training import Student, weights_of
from fedcl_distill.seeding import isolated_rng

ALL = [Unrolled(), Replayed(), Tesla()]
EXACT = [Unrolled(), Replayed()]


def linear(features: int, classes: int, seed: int) -> Network:
    with isolated_rng(seed):
        return Network([nn.Identity()], features, classes).double().requires_grad_(False)


def tanh_network(seed: int) -> Network:
    with isolated_rng(seed):
        return Network([nn.Sequential(nn.Linear(4, 5), nn.Tanh())], 5, 3).double().requires_grad_(False)


def view_of(start: Network, target_network: Network, seed: int = 0) -> MatchContext:
    return MatchContext(start, NoAugmentation().draw(1, (4,), torch.Generator()), seed, target_network)


def side(inputs: Tensor, labels: Tensor, rate: float | Tensor = 0.3) -> SyntheticBatch:
    learned = rate if isinstance(rate, Tensor) else torch.tensor(rate, dtype=torch.float64)
    classes = labels if labels.ndim == 1 else labels.argmax(1)
    return SyntheticBatch(inputs, classes, labels, {"learning_rate": learned})


def loss_of(
    objective: TrajectoryMatching, view: MatchContext, synthetic: SyntheticBatch, data: object = None
) -> Tensor:
    real = RealSampler(blobs(shape=(4,)) if data is None else data, torch.device("cpu"))  # type: ignore[arg-type]
    (loss,) = objective.losses(view, objective.target(view, real), synthetic)
    return loss


def samples(count: int = 5, seed: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 4, dtype=torch.float64, generator=generator), torch.arange(count) % 3


def matching(gradient: TrajectoryGradient, steps: int = 3, batch_size: int | None = None) -> TrajectoryMatching:
    return TrajectoryMatching(steps=steps, batch_size=batch_size, gradient=gradient)


def gradients(
    objective: TrajectoryMatching, view: MatchContext, inputs: Tensor, labels: Tensor, rate: float
) -> list[Tensor]:
    inputs = inputs.clone().requires_grad_()
    labels = labels.clone().requires_grad_(labels.is_floating_point())
    learned = torch.tensor(rate, dtype=torch.float64, requires_grad=True)
    loss = loss_of(objective, view, side(inputs, labels, learned))
    loss.backward()  # type: ignore[no-untyped-call]
    found = [inputs.grad, learned.grad, *([labels.grad] if labels.requires_grad else [])]
    assert all(one is not None for one in found)
    return [loss.detach(), *(one for one in found if one is not None)]


@pytest.mark.parametrize("gradient", EXACT)
def test_two_steps_of_softmax_regression_match_the_formula_written_out(gradient: TrajectoryGradient) -> None:
    start, goal = linear(4, 3, 0), linear(4, 3, 1)
    inputs, labels = samples()
    rate, one_hot = 0.7, F.one_hot(labels, 3).double()

    def by_hand(x: Tensor, alpha: Tensor) -> Tensor:
        weight, bias = start.classifier.weight.detach(), start.classifier.bias.detach()
        for _ in range(2):
            error = ((x @ weight.T + bias).softmax(1) - one_hot) / len(x)
            weight, bias = weight - alpha * error.T @ x, bias - alpha * error.sum(0)
        missed = (weight - goal.classifier.weight).square().sum() + (bias - goal.classifier.bias).square().sum()
        way = (start.classifier.weight - goal.classifier.weight).square().sum()
        return missed / (way + (start.classifier.bias - goal.classifier.bias).square().sum())

    x, alpha = inputs.clone().requires_grad_(), torch.tensor(rate, dtype=torch.float64, requires_grad=True)
    by_hand(x, alpha).backward()  # type: ignore[no-untyped-call]
    loss, of_inputs, of_rate = gradients(matching(gradient, 2), view_of(start, goal), inputs, labels, rate)
    assert x.grad is not None
    assert loss.item() == pytest.approx(by_hand(x, alpha).item(), rel=1e-12)
    assert torch.allclose(of_inputs, x.grad, rtol=1e-10)
    assert torch.allclose(of_rate, alpha.grad, rtol=1e-10)  # type: ignore[arg-type]


@pytest.mark.parametrize("gradient", EXACT)
def test_gradients_of_inputs_rate_and_soft_labels_equal_finite_differences(gradient: TrajectoryGradient) -> None:
    view = view_of(tanh_network(0), tanh_network(1))
    inputs, _ = samples()
    labels = torch.rand(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).softmax(1)
    objective, rate, width = matching(gradient, 4, batch_size=2), 0.4, 1e-6
    _, of_inputs, of_rate, of_labels = gradients(objective, view, inputs, labels, rate)

    def value(x: Tensor, y: Tensor, alpha: float) -> float:
        return loss_of(objective, view, side(x, y, alpha)).item()

    by_rate = (value(inputs, labels, rate + width) - value(inputs, labels, rate - width)) / (2 * width)
    assert of_rate.item() == pytest.approx(by_rate, rel=1e-6)
    for row, column in ((0, 0), (2, 3), (4, 1)):
        nudge = torch.zeros_like(inputs)
        nudge[row, column] = width
        slope = (value(inputs + nudge, labels, rate) - value(inputs - nudge, labels, rate)) / (2 * width)
        assert of_inputs[row, column].item() == pytest.approx(slope, rel=1e-5, abs=1e-9)
    for row, column in ((1, 0), (3, 2)):
        nudge = torch.zeros_like(labels)
        nudge[row, column] = width
        slope = (value(inputs, labels + nudge, rate) - value(inputs, labels - nudge, rate)) / (2 * width)
        assert of_labels[row, column].item() == pytest.approx(slope, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("batch_size", [None, 2])
@pytest.mark.parametrize("soft", [False, True])
def test_replaying_equals_unrolling(batch_size: int | None, soft: bool) -> None:
    view = view_of(tanh_network(0), tanh_network(1), seed=9)
    inputs, labels = samples(7)
    labels = F.one_hot(labels, 3).double() * 0.8 if soft else labels
    unrolled = gradients(matching(Unrolled(), 6, batch_size), view, inputs, labels, 0.5)
    replayed = gradients(matching(Replayed(), 6, batch_size), view, inputs, labels, 0.5)
    for one, other in zip(unrolled, replayed, strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-13)


def test_replaying_equals_unrolling_on_augmented_images_in_several_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedcl_distill.objectives.inner_training.micro_batch_size", lambda inputs: 3)
    data = blobs(shape=(3, 8, 6))
    start, goal = (Architecture("convnet", {"width": 3}).build((3, 8, 6), 3, seed=s).double() for s in (0, 1))
    inputs = data.inputs()[::8].double()  # 8 samples: parts of 3, 3 and 2
    labels = data.labels[::8]
    found = []
    for gradient in EXACT:
        objective = TrajectoryMatching(steps=2, augmentation=SiameseAugmentation(), gradient=gradient)
        x, rate = inputs.clone().requires_grad_(), torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
        loss_of(objective, view_of(start, goal), side(x, labels, rate), data).backward()  # type: ignore[no-untyped-call]
        assert x.grad is not None
        assert rate.grad is not None
        found.append((x.grad, rate.grad))
    assert found[0][0].abs().sum() > 0
    assert torch.allclose(found[0][0], found[1][0], rtol=1e-8, atol=1e-14)
    assert torch.allclose(found[0][1], found[1][1], rtol=1e-8)


def test_tesla_equals_its_papers_expansion() -> None:
    """Equation 6: Σ_i 2α (θ* − θ_0 + α Σ_k g_k)ᵀ ∂g_i/∂x over the squared way, each θ_i a constant."""
    start, goal = tanh_network(0), tanh_network(1)
    inputs, labels = samples(6)
    rate, steps = 0.5, 4
    view = view_of(start, goal, seed=2)

    student = Student(start, inputs, labels, 2, NoAugmentation(), view.seed)
    flat = torch.cat([one.flatten() for one in weights_of(start)])
    sizes = [one.shape for one in weights_of(start)]

    def unflat(vector: Tensor) -> tuple[Tensor, ...]:
        parts = vector.split([math.prod(size) for size in sizes])
        return tuple(part.view(size) for part, size in zip(parts, sizes, strict=True))

    visited, by_step = [flat], []
    for step in range(steps):
        weights = visited[-1].clone().requires_grad_()
        loss = torch.stack(list(student.addends(unflat(weights), step))).sum()
        by_step.append(torch.autograd.grad(loss, weights)[0])
        visited.append(visited[-1] - rate * by_step[-1])
    target = torch.cat([one.flatten() for one in weights_of(goal)])
    way = (flat - target).square().sum()
    vector = 2 * rate * (target - flat + rate * torch.stack(by_step).sum(0)) / way
    expected = torch.zeros_like(inputs)
    for step in range(steps):
        x, weights = inputs.clone().requires_grad_(), visited[step].clone().requires_grad_()
        here = Student(start, x, labels, 2, NoAugmentation(), view.seed)
        loss = torch.stack(list(here.addends(unflat(weights), step))).sum()
        (gradient,) = torch.autograd.grad(loss, weights, create_graph=True)
        expected += torch.autograd.grad(gradient @ vector, x)[0]
    value, of_inputs, of_rate = gradients(matching(Tesla(), steps, 2), view, inputs, labels, rate)
    assert value.item() == pytest.approx(((visited[-1] - target).square().sum() / way).item(), rel=1e-12)
    assert torch.allclose(of_inputs, expected, rtol=1e-10, atol=1e-15)
    end = visited[-1] - target
    assert of_rate.item() == pytest.approx((-2 * end @ torch.stack(by_step).sum(0) / way).item(), rel=1e-10)


def test_tesla_is_exact_for_one_step() -> None:
    view = view_of(tanh_network(0), tanh_network(1))
    exact = gradients(matching(Unrolled(), 1), view, *samples(), rate=0.8)
    for one, other in zip(exact, gradients(matching(Tesla(), 1), view, *samples(), rate=0.8), strict=True):
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-14)


def test_what_tesla_drops_shrinks_in_proportion_to_the_learning_rate() -> None:
    view = view_of(tanh_network(0), tanh_network(1))

    def dropped(rate: float) -> float:
        exact = gradients(matching(Unrolled(), 5), view, *samples(), rate=rate)[1]
        approximate = gradients(matching(Tesla(), 5), view, *samples(), rate=rate)[1]
        return ((exact - approximate).norm() / exact.norm()).item()

    assert dropped(0.4) > 0.1  # it is not nothing
    assert dropped(0.001) == pytest.approx(dropped(0.01) / 10, rel=0.05)


@pytest.mark.parametrize("gradient", ALL)
def test_a_student_that_stands_still_has_loss_one(gradient: TrajectoryGradient) -> None:
    view = view_of(tanh_network(0), tanh_network(1))
    assert loss_of(matching(gradient), view, side(*samples(), rate=0.0)).item() == 1.0


@pytest.mark.parametrize("gradient", ALL)
def test_a_student_that_arrives_has_loss_zero(gradient: TrajectoryGradient) -> None:
    start = tanh_network(0)
    inputs, labels = samples()
    student = Student(start, inputs, labels, None, NoAugmentation(), 0)
    weights = tuple(one.clone().requires_grad_() for one in weights_of(start))
    total = torch.stack(list(student.addends(weights, 0))).sum()
    goal = tanh_network(0)
    with torch.no_grad():
        for there, gradient_of_it in zip(goal.parameters(), torch.autograd.grad(total, weights), strict=True):
            there -= 0.3 * gradient_of_it
    assert loss_of(matching(gradient, 1), view_of(start, goal), side(inputs, labels, 0.3)).item() < 1e-28


@pytest.mark.parametrize("gradient", ALL)
def test_a_single_class_and_an_expert_at_rest_give_zero_and_no_gradient(gradient: TrajectoryGradient) -> None:
    start, goal = linear(4, 1, 0), linear(4, 1, 0)
    inputs, _ = samples(3)
    loss, of_inputs, of_rate = gradients(
        matching(gradient), view_of(start, goal), inputs, torch.zeros(3, dtype=torch.int64), 0.3
    )
    assert loss.item() == 0
    assert of_inputs.abs().sum() == 0
    assert of_rate == 0


@pytest.mark.parametrize("gradient", ALL)
def test_networks_of_a_view_are_left_alone(gradient: TrajectoryGradient) -> None:
    start, goal = tanh_network(0), tanh_network(1)
    before = [one.clone() for one in (*start.parameters(), *goal.parameters())]
    gradients(matching(gradient), view_of(start, goal), *samples(), rate=0.3)
    assert all(map(torch.equal, before, (*start.parameters(), *goal.parameters())))
    assert not any(one.requires_grad for one in start.parameters())


def test_draws_follow_from_the_views_seed(untouched_global_rng: None) -> None:
    data = blobs(shape=(1, 8, 8))
    start, goal = (Architecture("mlp", {"width": 2}).build((1, 8, 8), 3, seed=s).double() for s in (0, 1))
    x, y = data.inputs()[::6].double(), data.labels[::6]

    def value(seed: int, augmentation: Augmentation | None = None) -> float:
        objective = TrajectoryMatching(steps=3, batch_size=4, augmentation=augmentation)
        return loss_of(objective, view_of(start, goal, seed), side(x, y, 0.1), data).item()

    assert value(1) == value(1)
    assert value(1) != value(2)
    assert value(1) != value(1, NoAugmentation())
    assert value(1) == value(1, augmentation_for(data))


def test_every_pass_takes_each_sample_once_and_in_its_own_order() -> None:
    student = Student(tanh_network(0), *samples(7), 3, NoAugmentation(), 0)
    passes = [torch.cat([student.batch(step).rows for step in range(first, first + 3)]) for first in (0, 3)]
    assert [one.sort().values.tolist() for one in passes] == [list(range(7))] * 2
    assert passes[0].tolist() != passes[1].tolist()


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"batch_size": 0}, {"learning_rate": 0.0}])
def test_senseless_numbers_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingsError):
        TrajectoryMatching(**wrong)  # type: ignore[arg-type]
