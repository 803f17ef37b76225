"""Truth: torch's SGD over batches drawn by the same names."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from builders import blobs
from fedcl_distill.augmentation import NoAugmentation
from fedcl_distill.context import SetupContext, SyntheticBatch
from fedcl_distill.data import LabelledData
from fedcl_distill.errors import SettingsError
from fedcl_distill.network_sources import FreshRandom, NetworkSampler, PretrainedPool, TrainedOnReal
from fedcl_distill.networks import Architecture, Network
from fedcl_distill.seeding import generator_for
from fedcl_distill.training import accuracy

MLP = Architecture("mlp", {"width": 6})
NOTHING = SyntheticBatch(torch.zeros(0, 1, 8, 8), torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))


def problem(data: LabelledData | None = None) -> SetupContext:
    return SetupContext(data or blobs(), seed=3, device=torch.device("cpu"))


def source(**settings: object) -> TrainedOnReal:
    return TrainedOnReal(**{"start": FreshRandom(MLP), **settings})  # type: ignore[arg-type]


def weights(network: Network) -> list[Tensor]:
    return [one.detach().clone() for one in network.parameters()]


def views(supply: NetworkSampler, numbers: range) -> list[list[Tensor]]:
    """Weights of the network of each view, after which it learns."""
    seen = []
    for index in numbers:
        seen.append(weights(supply.draw(index, seed=100 + index).network))
        supply.update(index, 100 + index, NOTHING)
    return seen


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_without_mixing_it_is_sgd_with_lasting_momentum() -> None:
    data = blobs()
    supply = source(samples_between=20, batch_size=10, cutmix_probability=0.0, augmentation=NoAugmentation()).prepare(
        problem(data)
    )
    seen = views(supply, range(3))
    network = MLP.build((1, 8, 8), 3, seed=0)
    for parameter, value in zip(network.parameters(), seen[0], strict=True):
        parameter.data.copy_(value)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    for index in range(2):
        order = torch.randperm(len(data), generator=generator_for(100 + index, "network rows"))
        for rows in torch.split(order[:20], 10):
            optimiser.zero_grad()
            F.cross_entropy(network(data.inputs(rows)), data.labels[rows]).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        for parameter, value in zip(network.parameters(), seen[index + 1], strict=True):
            torch.testing.assert_close(parameter.data, value)


@pytest.mark.parametrize("stop", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("pool", [False, True])
def test_a_restored_supply_goes_on_bit_by_bit(stop: int, pool: bool) -> None:
    start = PretrainedPool(MLP, networks=2, epochs=1) if pool else FreshRandom(MLP)
    settings = {"start": start, "views_per_network": 3, "samples_between": 30, "batch_size": 10}
    whole = views(source(**settings).prepare(problem()), range(6))
    first, second = source(**settings).prepare(problem()), source(**settings).prepare(problem())
    views(first, range(stop))
    second.restore(first.state())
    rest = views(second, range(stop, 6))
    assert all(same(one, other) for one, other in zip(whole[stop:], rest, strict=True))


def test_a_network_serves_its_views_and_makes_place_for_another() -> None:
    fresh = views(source(views_per_network=1).prepare(problem()), range(4))
    seen = views(source(views_per_network=2).prepare(problem()), range(4))
    assert [same(one, other) for one, other in zip(seen, fresh, strict=True)] == [True, False, True, False]


def test_networks_learn_the_real_data() -> None:
    data = blobs(per_class=40)
    supply = source(views_per_network=99, samples_between=120, learning_rate=0.05).prepare(problem(data))
    before = accuracy(supply.draw(0, 100).network, data)
    views(supply, range(20))
    assert accuracy(supply.draw(20, 120).network, data) > max(before, 0.9)


@pytest.mark.parametrize("per_class", [1, 5])
def test_few_real_samples_make_one_small_batch(per_class: int) -> None:
    first, second = views(source().prepare(problem(blobs(per_class=per_class))), range(2))
    assert not same(first, second)


def test_feature_vectors_are_never_mixed() -> None:
    data = blobs(shape=(7,))
    mixed = views(source(cutmix_probability=1.0).prepare(problem(data)), range(3))
    plain = views(source(cutmix_probability=0.0).prepare(problem(data)), range(3))
    assert all(same(one, other) for one, other in zip(mixed, plain, strict=True))


def test_no_samples_between_views_leave_the_network() -> None:
    first, second = views(source(samples_between=0).prepare(problem()), range(2))
    assert same(first, second)


def test_settings_out_of_range_are_refused() -> None:
    for wrong in ({"views_per_network": 0}, {"samples_between": -1}, {"batch_size": 0}, {"cutmix_probability": 2.0}):
        with pytest.raises(SettingsError):
            source(**wrong)
