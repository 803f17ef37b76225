"""Truth: SGD written out by hand."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from builders import blobs
from fedcl_distill.augmentation import NoAugmentation
from fedcl_distill.context import SetupContext, SyntheticBatch
from fedcl_distill.errors import SettingsError
from fedcl_distill.network_sources import FreshRandom, NetworkSampler, TrainedOnSynthetic
from fedcl_distill.network_sources.trained import loops_for
from fedcl_distill.networks import Architecture, Network

MLP = Architecture("mlp", {"width": 6})


def problem() -> SetupContext:
    return SetupContext(blobs(), seed=3, device=torch.device("cpu"))


def source(**settings: object) -> TrainedOnSynthetic:
    return TrainedOnSynthetic(start=FreshRandom(MLP), **settings)  # type: ignore[arg-type]


def synthetic(classes: Sequence[int] = (0, 0, 1, 1, 2, 2), soft: bool = False) -> SyntheticBatch:
    labels = torch.tensor(classes)
    inputs = torch.randn(len(classes), 1, 8, 8, generator=torch.Generator().manual_seed(5))
    return SyntheticBatch(inputs, labels, F.one_hot(labels, 3).float() if soft else labels)


def weights(network: Network) -> list[Tensor]:
    return [one.detach().clone() for one in network.parameters()]


def views(supply: NetworkSampler, numbers: range, side: SyntheticBatch) -> list[list[Tensor]]:
    """Weights of the network of each view, after which it learns."""
    seen = []
    for index in numbers:
        seen.append(weights(supply.draw(index, seed=100 + index).network))
        supply.update(index, 100 + index, side)
    return seen


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("soft", [False, True])
def test_between_views_it_is_plain_sgd_on_the_synthetic_samples(soft: bool) -> None:
    side = synthetic(soft=soft)
    settings = {"learning_rate": 0.1, "augmentation": NoAugmentation()}
    supply = source(views_per_network=3, passes_between=4, **settings).prepare(problem())
    before, after = views(supply, range(2), side)
    network = MLP.build((1, 8, 8), 3, seed=0)
    for parameter, value in zip(network.parameters(), before, strict=True):
        parameter.data.copy_(value)
    for _ in range(4):  # a pass is one batch of all samples
        network.zero_grad()
        F.cross_entropy(network(side.inputs), side.labels).backward()  # type: ignore[no-untyped-call]
        for parameter in network.parameters():
            parameter.data -= 0.1 * parameter.grad
    for parameter, value in zip(network.parameters(), after, strict=True):
        torch.testing.assert_close(parameter.data, value)


def test_a_network_serves_its_views_and_makes_place_for_a_fresh_one() -> None:
    fresh = views(source(views_per_network=1).prepare(problem()), range(5), synthetic())
    seen = views(source(views_per_network=2, passes_between=1).prepare(problem()), range(5), synthetic())
    assert [same(one, other) for one, other in zip(seen, fresh, strict=True)] == [True, False, True, False, True]


def test_drawing_again_gives_the_same_network_until_it_learns() -> None:
    supply = source(views_per_network=5, passes_between=1).prepare(problem())
    assert same(weights(supply.draw(0, 7).network), weights(supply.draw(0, 7).network))


def test_networks_want_no_gradients_when_they_are_looked_through() -> None:
    supply = source(views_per_network=5, passes_between=1).prepare(problem())
    views(supply, range(2), synthetic())
    assert not any(one.requires_grad or one.grad is not None for one in supply.draw(2, 9).network.parameters())


@pytest.mark.parametrize("stop", [0, 1, 2, 3, 4])
def test_a_restored_supply_goes_on_bit_by_bit(stop: int) -> None:
    settings = {"views_per_network": 3, "passes_between": 2, "batch_size": 4}
    whole = views(source(**settings).prepare(problem()), range(6), synthetic())
    first, second = source(**settings).prepare(problem()), source(**settings).prepare(problem())
    views(first, range(stop), synthetic())
    second.restore(first.state())
    rest = views(second, range(stop, 6), synthetic())
    assert all(same(one, other) for one, other in zip(whole[stop:], rest, strict=True))


def test_a_restored_supply_gives_the_network_of_a_view_under_way() -> None:
    first, second = (source(views_per_network=9, passes_between=1).prepare(problem()) for _ in range(2))
    views(first, range(2), synthetic())
    drawn = weights(first.draw(2, 102).network)
    second.restore(first.state())
    assert same(weights(second.draw(2, 102).network), drawn)


def test_a_state_is_not_changed_by_what_happens_later() -> None:
    supply = source(views_per_network=9, passes_between=1).prepare(problem())
    views(supply, range(1), synthetic())
    state = supply.state()
    kept = {name: value.clone() for name, value in state["weights"].items()}
    views(supply, range(1, 3), synthetic())
    assert all(torch.equal(kept[name], value) for name, value in state["weights"].items())


@pytest.mark.parametrize(
    ("per_class", "loops"),
    [(1, (1, 1)), (10, (10, 50)), (20, (20, 25)), (30, (30, 20)), (40, (40, 15)), (50, (50, 10))],
)
def test_loops_are_the_authors_where_they_give_them(per_class: int, loops: tuple[int, int]) -> None:
    assert loops_for(per_class) == loops


def test_loops_exist_for_any_number_of_samples() -> None:
    assert loops_for(0) == (1, 1)
    assert loops_for(500) == (50, 10)
    for per_class in range(2, 50):
        views_per_network, passes = loops_for(per_class)
        assert views_per_network == per_class
        assert 1 < passes <= 50


def test_unless_told_loops_follow_from_the_mean_number_of_samples_of_the_classes_present() -> None:
    assert source().loops(synthetic([0, 2])) == (1, 1)
    assert source().loops(synthetic([0] * 12 + [2] * 8)) == (10, 50)
    assert source(passes_between=0).loops(synthetic([0] * 10)) == (10, 0)


def test_settings_out_of_range_are_refused() -> None:
    for wrong in ({"views_per_network": 0}, {"passes_between": -1}, {"batch_size": 0}, {"learning_rate": 0.0}):
        with pytest.raises(SettingsError):
            source(**wrong)
