"""Truth: torch's Adam by hand, and a twin that was never interrupted."""

from __future__ import annotations

import copy
import io

import pytest
import torch

from builders import blobs
from fedcl_distill.context import SetupContext, SyntheticBatch
from fedcl_distill.errors import SettingsError
from fedcl_distill.network_sources import NetworkSampler, OnlinePool
from fedcl_distill.networks import Architecture, Network
from fedcl_distill.seeding import derive_seed

# Without a norm: biases before one have gradients of pure rounding, which Adam makes whole steps of.
TINY = Architecture("mlp", {"width": 4})
CLASSES = torch.arange(3).repeat_interleave(2)


def opened(**settings: int) -> NetworkSampler:
    return OnlinePool(TINY, **settings).prepare(SetupContext(blobs(), 7, torch.device("cpu")))  # type: ignore[arg-type]


def side(seed: int = 0, labels: torch.Tensor = CLASSES) -> SyntheticBatch:
    inputs = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    return SyntheticBatch(inputs, CLASSES, labels)


def weights(network: Network) -> torch.Tensor:
    return torch.cat([one.detach().flatten() for one in network.parameters()])


def run(supply: NetworkSampler, views: range) -> list[torch.Tensor]:
    """The weights that each view looks through."""
    seen = []
    for index in views:
        seed = derive_seed(3, index)
        seen.append(weights(supply.draw(index, seed).network).clone())
        supply.update(index, seed, side(index))
    return seen


def test_the_drawn_network_takes_one_step_of_adam_on_squared_error(untouched_global_rng: None) -> None:
    supply, seed = opened(networks=2), derive_seed(3, 0)
    soft = torch.softmax(torch.randn(6, 3, generator=torch.Generator().manual_seed(1)), dim=1)
    twin = copy.deepcopy(supply.draw(0, seed).network).requires_grad_(True)
    optimiser = torch.optim.Adam(twin.parameters(), lr=3e-4)
    for step in range(3):
        optimiser.zero_grad()
        (0.5 * (twin(side(step).inputs) - (soft - 1 / 3)).square().sum(1).mean()).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        supply.update(step, seed, side(step, soft))
    network = supply.draw(3, seed).network
    assert torch.allclose(weights(network), weights(twin), atol=1e-6)
    assert not any(one.requires_grad for one in network.parameters())


def test_a_view_draws_the_same_network_until_it_learns_and_views_draw_all() -> None:
    supply = opened(networks=4)
    assert supply.draw(0, 5).network is supply.draw(0, 5).network
    assert len({id(supply.draw(index, derive_seed(0, index)).network) for index in range(60)}) == 4


def test_a_network_past_its_last_step_is_replaced_by_a_fresh_one() -> None:
    supply = opened(networks=1, max_steps=3)
    first = weights(supply.draw(0, 0).network).clone()
    ages = []
    for index in range(11):
        supply.update(index, derive_seed(0, index), side())
        ages.append(supply.state()["members"][0]["age"])
    # As in the authors' code: a fourth step is taken, the next turn replaces the network.
    assert ages == [1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]
    supply = opened(networks=1, max_steps=0)
    supply.update(0, 0, side())
    supply.update(1, 1, side())
    fresh = TINY.build((1, 8, 8), 3, seed=derive_seed(1, "network"))
    assert torch.equal(weights(supply.draw(2, 2).network), weights(fresh))
    assert not torch.equal(first, weights(fresh))


def test_first_ages_are_staggered() -> None:
    ages = [member["age"] for member in opened(networks=5, max_steps=100).state()["members"]]
    assert ages == [0, 20, 40, 60, 80]


def test_a_restored_pool_goes_on_to_the_same_bits() -> None:
    whole, first = opened(networks=2, max_steps=4), opened(networks=2, max_steps=4)
    expected = run(whole, range(25))
    run(first, range(11))
    buffer = io.BytesIO()
    torch.save(first.state(), buffer)
    second = opened(networks=2, max_steps=4)
    second.restore(torch.load(io.BytesIO(buffer.getvalue()), weights_only=True))
    for one, other in zip(run(second, range(11, 25)), expected[11:], strict=True):
        assert torch.equal(one, other)


def test_a_state_is_a_copy() -> None:
    supply = opened(networks=1)
    state = supply.state()
    before = copy.deepcopy(state)
    run(supply, range(3))
    for name, one in state["members"][0]["weights"].items():
        assert torch.equal(one, before["members"][0]["weights"][name])


def test_large_sets_are_learned_in_batches() -> None:
    supply = opened(networks=1, batch_size=2)
    start = supply.draw(0, 0).network
    twin = copy.deepcopy(start).requires_grad_(True)
    supply.update(0, 0, side())
    matches = []
    for one in range(6):
        for other in range(one + 1, 6):
            trial = copy.deepcopy(twin)
            optimiser = torch.optim.Adam(trial.parameters(), lr=3e-4)
            rows = torch.tensor([one, other])
            wanted = torch.eye(3)[CLASSES[rows]] - 1 / 3
            (0.5 * (trial(side().inputs[rows]) - wanted).square().sum(1).mean()).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            matches.append(torch.allclose(weights(trial), weights(start), atol=1e-7))
    assert sum(matches) == 1


def test_bad_settings_are_refused() -> None:
    for bad in ({"networks": 0}, {"max_steps": -1}, {"batch_size": 0}, {"learning_rate": 0.0}):
        with pytest.raises(SettingsError):
            OnlinePool(**bad)  # type: ignore[arg-type]
