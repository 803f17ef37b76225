"""Truth: norms of every filter, computed one by one; training until there is no more time, counted in steps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from builders import blobs
from fedcl_distill.context import SetupContext
from fedcl_distill.errors import SettingsError
from fedcl_distill.network_sources import NetworkSampler, PretrainedPool
from fedcl_distill.network_sources.base import perturbed
from fedcl_distill.network_sources.pools import pretrained_pair, pretrained_pool
from fedcl_distill.networks import Architecture, Network
from fedcl_distill.training import TrainConfig, accuracy

MLP = Architecture("mlp", {"width": 6})
CONVNET = Architecture("convnet", {"width": 4})
RECIPE = TrainConfig(epochs=10, learning_rate=0.05, batch_size=16, schedule="constant")


class Clock:
    """Has time for so many questions."""

    def __init__(self, questions: int) -> None:
        self.left = questions

    def __call__(self) -> bool:
        self.left -= 1
        return self.left >= 0


def problem(seed: int = 3, questions: int | None = None) -> SetupContext:
    data, device = blobs(), torch.device("cpu")
    return SetupContext(data, seed, device) if questions is None else SetupContext(data, seed, device, Clock(questions))


def weights(network: Network) -> list[Tensor]:
    return [one.detach().clone() for one in network.parameters()]


def same(one: Network, other: Network) -> bool:
    return all(torch.equal(a, b) for a, b in zip(weights(one), weights(other), strict=True))


def test_a_pair_is_a_network_before_and_after_training() -> None:
    pair = pretrained_pair(problem(), MLP, RECIPE, 0)
    assert accuracy(pair.trained, blobs()) > 0.9
    assert accuracy(pair.trained, blobs()) > accuracy(pair.init, blobs())
    assert not any(one.requires_grad for network in (pair.init, pair.trained) for one in network.parameters())


def test_a_pool_is_named_by_the_seed_and_its_networks_differ() -> None:
    one, again, other = (pretrained_pool(problem(seed), MLP, RECIPE, 2) for seed in (3, 3, 4))
    assert same(one[1].trained, again[1].trained)
    assert not same(one[0].init, one[1].init)
    assert not same(one[0].init, other[0].init)
    assert same(one[1].trained, pretrained_pair(problem(), MLP, RECIPE, 1).trained)


def test_where_time_is_short_there_are_fewer_networks_trained_less() -> None:
    (only,) = pretrained_pool(problem(questions=0), MLP, RECIPE, 5)
    assert not same(only.init, only.trained)  # one step
    steps = len(blobs()) // 16 + 1
    assert len(pretrained_pool(problem(questions=10 * steps + 5), MLP, RECIPE, 5)) == 2


@pytest.mark.parametrize("architecture", [MLP, CONVNET])
def test_a_perturbation_moves_every_filter_by_its_own_norm_times_the_coefficients(architecture: Architecture) -> None:
    network = architecture.build((1, 8, 8), 3, seed=0).requires_grad_(False)
    ratios = []
    for seed in range(200):
        moved = perturbed(network, 0.05, 0.05, seed=seed)
        for before, after in zip(network.parameters(), moved.parameters(), strict=True):
            if before.ndim == 1:
                assert torch.equal(before, after)
                continue
            way = (after - before).flatten(1).norm(dim=1) / before.flatten(1).norm(dim=1)
            # Two directions of this length each: opposite at least, the same at most.
            assert (way <= 0.1 + 1e-5).all()
            ratios.append(way.square())
    # Independent directions: squared lengths add up in the mean.
    assert float(torch.cat(ratios).mean().sqrt()) == pytest.approx(0.05 * 2**0.5, rel=0.02)


def test_one_direction_has_exactly_the_stated_size_and_either_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedcl_distill.network_sources.base._DIRECTIONS", 1)
    network = MLP.build((1, 8, 8), 3, seed=0).requires_grad_(False)
    sizes = []
    for seed in range(100):
        before, after = (weights(one)[0] for one in (network, perturbed(network, 0.01, 0.09, seed=seed)))
        lengths = (after - before).norm(dim=1) / before.norm(dim=1)
        torch.testing.assert_close(lengths, lengths[:1].expand(len(lengths)), rtol=1e-3, atol=1e-5)
        sizes.append(float(lengths[0]))
    assert 0.01 - 1e-4 <= min(sizes) < 0.02
    assert 0.08 < max(sizes) <= 0.09 + 1e-4


def views(supply: NetworkSampler, numbers: range) -> list[Network]:
    return [supply.draw(index, seed=100 + index).network for index in numbers]


def test_views_differ_and_can_be_drawn_again() -> None:
    supply = PretrainedPool(MLP, networks=2, epochs=1).prepare(problem())
    first, second = views(supply, range(2))
    assert not same(first, second)
    assert same(first, views(supply, range(1))[0])


def test_without_perturbation_views_are_the_networks_of_the_pool() -> None:
    source = PretrainedPool(MLP, networks=2, epochs=1, min_perturbation=0.0, max_perturbation=0.0)
    seen = views(source.prepare(problem()), range(12))
    distinct = {tuple(one.sum().item() for one in weights(network)) for network in seen}
    assert len(distinct) == 2


def test_a_restored_pool_is_that_of_the_first_sitting_and_is_not_trained_again() -> None:
    source = PretrainedPool(MLP, networks=3, epochs=3)
    first = source.prepare(problem(questions=5))  # no time for more than one network
    seen = views(first, range(4))
    second = source.prepare(problem())
    second.restore(first.state())
    assert all(same(one, other) for one, other in zip(seen, views(second, range(4)), strict=True))


def test_settings_out_of_range_are_refused() -> None:
    for wrong in ({"networks": 0}, {"epochs": -1}, {"min_perturbation": 0.2, "max_perturbation": 0.1}):
        with pytest.raises(SettingsError):
            PretrainedPool(**wrong)  # type: ignore[arg-type]
