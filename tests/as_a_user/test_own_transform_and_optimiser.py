"""Truth: the transform, the optimiser and the schedule a user brings, run by hand beside ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from builders import blobs
from fedcl_distill import Budget, Protocol, build_method, evaluate
from fedcl_distill.augmentation import (
    AUGMENTATIONS,
    CallableAugmentation,
    NoAugmentation,
    as_augmentation,
    augmentation_for,
    register_augmentation,
)
from fedcl_distill.context import SetupContext
from fedcl_distill.data import LabelledData
from fedcl_distill.engine import Callback, Engine, Noise, Run
from fedcl_distill.errors import SettingsError
from fedcl_distill.methods import dm
from fedcl_distill.network_sources import (
    ExpertTrajectories,
    FreshRandom,
    NoNetwork,
    PretrainedPool,
    TrainedOnReal,
    TrainedOnSynthetic,
    WatchedTraining,
)
from fedcl_distill.networks import Architecture
from fedcl_distill.objectives import DistributionMatching
from fedcl_distill.synthetic import SyntheticSet
from fedcl_distill.training import TrainConfig, fit
from stopping import StopAt

TINY = Architecture("convnet", {"width": 8})
DATA = blobs()


def distilled(steps: int = 3, **settings: Any) -> SyntheticSet:
    method = build_method("dm", architecture=TINY, real_batch_per_class=8, **settings)
    return method.distil(DATA, 2, seed=0, budget=Budget(steps=steps))


def pixels(synthetic: SyntheticSet) -> Tensor:
    return synthetic.arrays["pixels"]


def noisy(batch: Tensor) -> Tensor:
    return batch + 0.1 * torch.randn_like(batch)


def shifted(batch: Tensor, generator: torch.Generator) -> Tensor:
    return batch.roll(int(torch.randint(8, (), generator=generator)), dims=-1)


def transforms() -> list[Any]:
    v2 = pytest.importorskip("torchvision.transforms.v2")
    return [noisy, shifted, v2.RandomHorizontalFlip(p=0.5), v2.RandomAffine(10, translate=(0.1, 0.1))]


@pytest.mark.parametrize("number", range(4))
def test_any_transform_of_a_batch_augments_both_sides(number: int, untouched_global_rng: None) -> None:
    transform = transforms()[number]
    one, two = (distilled(augmentation=transform) for _ in range(2))
    assert torch.equal(pixels(one), pixels(two))
    assert not torch.equal(pixels(one), pixels(distilled(augmentation="none")))
    described = one.provenance["augmentation"]
    assert (getattr(transform, "__name__", None) or type(transform).__name__) in described


def test_kornia_modules_are_transforms() -> None:
    kornia = pytest.importorskip("kornia.augmentation")
    jitter = CallableAugmentation(kornia.ColorJiggle(0.2, 0.2, same_on_batch=True), on_pixels=True)
    method = dm(architecture=TINY, real_batch_per_class=8, augmentation=jitter)
    one, two = (method.distil(blobs((3, 8, 8)), 1, seed=0, budget=Budget(steps=2)) for _ in range(2))
    assert torch.equal(pixels(one), pixels(two))
    assert one.provenance["augmentation"].startswith("ColorJiggle(")


def test_one_draw_is_the_same_for_a_class_on_both_sides_and_differs_between_classes() -> None:
    draw = as_augmentation(shifted).draw(6, (1, 8, 8), torch.Generator().manual_seed(0))
    ramp = torch.arange(8.0).expand(12, 1, 8, 8)
    groups = torch.arange(6).repeat(2)
    real, synthetic = draw(ramp, groups), draw(ramp[:6], torch.arange(6))
    assert torch.equal(real[:6], real[6:])
    assert torch.equal(real[:6], synthetic)
    assert len({tuple(row[0, 0].tolist()) for row in synthetic}) > 1
    for row, expected in zip(real, ramp, strict=True):
        assert sorted(row[0, 0].tolist()) == expected[0, 0].tolist()


def test_pixels_are_what_the_transform_sees_if_asked() -> None:
    seen: list[Tensor] = []

    def darker(batch: Tensor) -> Tensor:
        seen.append(batch)
        return batch * 0.5

    augmentation = augmentation_for(DATA, CallableAugmentation(darker, on_pixels=True))
    inputs = DATA.inputs()
    out = augmentation.draw(1, DATA.sample_shape, torch.Generator())(inputs, torch.zeros(len(DATA), dtype=torch.int64))
    torch.testing.assert_close(seen[0], DATA.samples / 255)
    torch.testing.assert_close(DATA.normalisation.invert(out), DATA.samples / 255 * 0.5)
    with pytest.raises(SettingsError, match="normalisation"):
        CallableAugmentation(darker, on_pixels=True).draw(1, DATA.sample_shape, torch.Generator())


@pytest.mark.parametrize(
    ("transform", "why"),
    [
        (lambda batch: (batch > 0).to(torch.uint8), "same shape and dtype"),
        (lambda batch: batch[:, :, :4], "same shape and dtype"),
        (lambda batch: batch.detach() * 2, "gradient"),
        (lambda batch: batch.no_such_thing(), "no_such_thing"),
        (lambda batch: [batch], "list"),
    ],
)
def test_a_transform_that_does_not_fit_is_refused_with_the_reason(transform: Callable[..., Any], why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        distilled(augmentation=transform)


@pytest.mark.parametrize("bad", [3, "dsaa", NoAugmentation, 0.5])
def test_what_is_no_augmentation_is_refused(bad: Any) -> None:
    with pytest.raises(SettingsError, match="augmentation"):
        dm(augmentation=bad)


def test_a_registered_transform_has_a_name_everywhere() -> None:
    @register_augmentation("test-brighter")
    def brighter(by: float = 0.1) -> Callable[[Tensor], Tensor]:
        return lambda batch: batch + by

    try:
        result = distilled(augmentation="test-brighter:by=0.2")
        assert result.provenance["augmentation"] == {"name": "test-brighter", "by": 0.2}
        again = distilled(augmentation=result.provenance["augmentation"])
        assert torch.equal(pixels(result), pixels(again))
    finally:
        AUGMENTATIONS._entries.pop("test-brighter")


class Quadratic(DistributionMatching):
    """Pulls samples to 1."""

    needs_network = False

    def target(self, view: Any, real: Any) -> None:
        return None

    def losses(self, view: Any, target: None, synthetic: Any) -> Any:
        yield (synthetic.inputs - 1).square().sum() / 2


@pytest.mark.parametrize(
    "optimiser",
    [
        torch.optim.Adagrad,
        partial(torch.optim.Adam, lr=0.1),
        lambda parameters: torch.optim.RMSprop(parameters, lr=0.1),
    ],
)
def test_any_optimiser_steps_as_it_does_by_hand(optimiser: Callable[..., torch.optim.Optimizer]) -> None:
    engine = Engine(Quadratic(), NoNetwork(), Noise(), optimiser=optimiser)
    start = engine.distil(DATA, 1, seed=0, budget=Budget(steps=0)).inputs()
    found = engine.distil(DATA, 1, seed=0, budget=Budget(steps=4)).inputs()
    by_hand = start.clone().requires_grad_()
    torch_optimiser = optimiser([by_hand])
    for _ in range(4):
        torch_optimiser.zero_grad()
        ((by_hand - 1).square().sum() / 2).backward()
        torch_optimiser.step()
    torch.testing.assert_close(found, by_hand.detach())


class Rates(Callback):
    def __init__(self) -> None:
        self.seen: list[list[float]] = []

    def on_step(self, run: Run) -> None:
        self.seen.append([group["lr"] for group in run.state.optimiser.inner.param_groups])


def test_rates_of_any_optimiser_fall_and_labels_keep_their_own() -> None:
    rates = Rates()
    method = build_method(
        "frepo", architecture=TINY, optimiser=partial(torch.optim.Adam, lr=0.3), decay_start=0.5, real_batch_size=16
    )
    method.distil(DATA, 1, seed=0, budget=Budget(steps=4), callbacks=[rates])
    assert rates.seen == [[0.3, 0.01]] * 3 + [pytest.approx([0.15, 0.005])]


def test_an_own_optimiser_resumes_to_the_same_bits(tmp_path: Any) -> None:
    method = dm(architecture=TINY, real_batch_per_class=8, optimiser=partial(torch.optim.Adam, lr=0.1), decay_start=0.5)
    whole = method.distil(DATA, 1, seed=0, budget=Budget(steps=6))
    path = tmp_path / "run.pt"
    method.distil(DATA, 1, seed=0, budget=Budget(steps=6), checkpoint=path, callbacks=[StopAt(4)])
    assert torch.equal(pixels(method.distil(DATA, 1, seed=0, budget=Budget(steps=6), checkpoint=path)), pixels(whole))
    assert whole.provenance["optimiser"] == "torch.optim.adam.Adam:lr=0.1"


@pytest.mark.parametrize("name", ["dm", "mtt", "dsa", "idc", "accdd", "ncfm", "kip", "psg", "rtp"])
def test_every_preset_takes_an_optimiser_but_not_its_shortcuts_beside_it(name: str) -> None:
    build_method(name, optimiser="adam:learning_rate=0.1")
    with pytest.raises(SettingsError, match="not both"):
        build_method(name, optimiser=torch.optim.Adam, learning_rate=1.0)


@pytest.mark.parametrize(
    ("optimiser", "why"),
    [
        (lambda parameters: "none", "must give a torch.optim.Optimizer"),
        (partial(torch.optim.Adam, lrr=1), "lrr"),
        (torch.optim.LBFGS, "closure"),
        (lambda parameters: torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1), "must learn all"),
    ],
)
def test_an_optimiser_that_does_not_fit_is_refused_with_the_reason(optimiser: Any, why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        distilled(optimiser=optimiser)


def test_networks_train_with_own_optimisers_schedules_and_transforms() -> None:
    def trained(**settings: Any) -> list[Tensor]:
        network = TINY.build(DATA.sample_shape, DATA.num_classes, seed=0)
        fit(network, DATA.inputs(), DATA.labels, TrainConfig(2, batch_size=16, **settings), seed=0)
        return [one.detach() for one in network.parameters()]

    def same(left: list[Tensor], right: list[Tensor]) -> bool:
        return all(torch.equal(one, other) for one, other in zip(left, right, strict=True))

    adam = partial(torch.optim.Adam, lr=0.01)
    assert same(trained(optimiser=adam), trained(optimiser=adam, schedule=lambda done: 0.1 if done >= 0.5 else 1.0))
    assert not same(trained(optimiser=adam), trained(optimiser=adam, schedule="constant"))
    step = partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.1)
    assert same(trained(optimiser=adam), trained(optimiser=adam, schedule=step))
    assert same(trained(augmentation=noisy), trained(augmentation=noisy))
    assert not same(trained(augmentation=noisy), trained())
    with pytest.raises(SettingsError, match="momentum, not both"):
        TrainConfig(2, optimiser=adam, momentum=0.5)
    with pytest.raises(SettingsError, match="-1"):
        trained(schedule=lambda done: -1.0)


class Doubled(nn.Module):
    def forward(self, batch: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return batch * (1 + torch.rand((), generator=generator))


def test_a_module_that_takes_a_generator_gets_one() -> None:
    one, two = (distilled(augmentation=Doubled()) for _ in range(2))
    assert torch.equal(pixels(one), pixels(two))


def test_transforms_need_data_of_their_kind() -> None:
    features: LabelledData = blobs((5,))
    with pytest.raises(SettingsError, match="DSA augments images"):
        dm(augmentation="dsa").distil(features, 1, seed=0, budget=Budget(steps=1))


ADAM = partial(torch.optim.Adam, lr=0.01)
SMALL = Architecture("mlp", {"width": 4})


@pytest.mark.parametrize(
    "source",
    [
        TrainedOnReal(start=FreshRandom(SMALL), samples_between=16, optimiser=ADAM),
        TrainedOnSynthetic(start=FreshRandom(SMALL), views_per_network=9, passes_between=2, optimiser=ADAM),
        WatchedTraining(SMALL, window=2, max_epochs=2, queries_per_class=4, optimiser=ADAM),
        PretrainedPool(SMALL, networks=1, optimiser=ADAM),
    ],
    ids=lambda source: type(source).__name__,
)
def test_networks_of_a_method_train_with_an_own_optimiser_and_resume(source: Any, tmp_path: Any) -> None:
    method = replace(dm(real_batch_per_class=4, augmentation="none"), networks=replace(source, augmentation=noisy))
    whole = method.distil(DATA, 1, budget=Budget(steps=5))
    path = tmp_path / "run.pt"
    method.distil(DATA, 1, budget=Budget(steps=5), checkpoint=path, callbacks=[StopAt(3)])
    assert torch.equal(pixels(method.distil(DATA, 1, budget=Budget(steps=5), checkpoint=path)), pixels(whole))
    usual = replace(method, networks=replace(source, optimiser=None, augmentation=noisy))
    assert not torch.equal(pixels(usual.distil(DATA, 1, budget=Budget(steps=5))), pixels(whole))
    with pytest.raises(SettingsError, match="learning_rate, not both"):
        replace(source, learning_rate=0.5)


def test_experts_train_with_an_own_optimiser() -> None:
    def experts(**settings: Any) -> Tensor:
        source = ExpertTrajectories(SMALL, runs=1, latest_start=1, segment=1, **settings)
        drawn = source.prepare(SetupContext(DATA, 0, torch.device("cpu"))).draw(0, 0)
        assert drawn.target_network is not None
        return torch.cat([one.detach().flatten() for one in drawn.target_network.parameters()])

    assert torch.equal(experts(optimiser="sgd:learning_rate=0.01,momentum=0.0"), experts())
    assert not torch.equal(experts(optimiser=ADAM), experts())


def test_an_evaluation_trains_as_its_protocol_says() -> None:
    seen = []

    def watched(batch: Tensor) -> Tensor:
        seen.append(len(batch))
        return batch

    training = TrainConfig(2, optimiser=ADAM, schedule="constant", augmentation=watched)
    protocol = Protocol("mine", training, networks=1, width=4)
    assert 0 <= evaluate(distilled(0), DATA, protocol, seed=0, architecture=SMALL).mean <= 1
    assert seen == [1] * 12  # two epochs of six samples, each with a draw of its own
