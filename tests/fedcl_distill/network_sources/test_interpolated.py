"""Truth: endpoints and midpoints of the line, and runs that are interrupted."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from builders import blobs
from fedcl_distill.context import SetupContext
from fedcl_distill.engine import Budget
from fedcl_distill.errors import SettingsError
from fedcl_distill.methods.distribution import ncfm
from fedcl_distill.network_sources import Interpolated, NetworkSampler
from fedcl_distill.network_sources.pools import between
from fedcl_distill.networks import Architecture
from fedcl_distill.registry import describe
from fedcl_distill.training import TrainConfig, accuracy
from stopping import StopAt

MLP = Architecture("mlp", {"width": 8})
RECIPE = TrainConfig(epochs=8, learning_rate=0.05, batch_size=16)


def opened(networks: int = 2, time: bool = True) -> NetworkSampler:
    problem = SetupContext(blobs(), 0, torch.device("cpu"), lambda: time)
    return Interpolated(MLP, networks, RECIPE).prepare(problem)


def weights(network: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def test_ends_are_the_networks_themselves_and_the_middle_is_the_mean() -> None:
    first, last = (MLP.build((4,), 3, seed=seed).requires_grad_(False) for seed in (0, 1))
    before = weights(first).clone()
    assert torch.equal(weights(between(first, last, 0.0)), weights(first))
    assert torch.equal(weights(between(first, last, 1.0)), weights(last))
    torch.testing.assert_close(weights(between(first, last, 0.5)), (weights(first) + weights(last)) / 2)
    assert torch.equal(weights(first), before)


def test_views_lie_on_lines_to_trained_goals(untouched_global_rng: None) -> None:
    supply, goals, fractions = opened(), set(), []
    for seed in range(40):
        drawn = supply.draw(seed, seed)
        assert drawn.target_network is not None
        goals.add(weights(drawn.target_network)[0].item())
        assert accuracy(drawn.target_network, blobs()) > 0.9
        assert torch.equal(weights(supply.draw(seed, seed).network), weights(drawn.network))
        fractions.append(accuracy(drawn.network, blobs()))
    assert len(goals) == 2
    assert min(fractions) < 0.8 < max(fractions)  # some are near the untrained end


def test_no_time_still_gives_one_network() -> None:
    supply = opened(networks=3, time=False)
    assert len({weights(supply.draw(seed, seed).target_network)[0].item() for seed in range(10)}) == 1  # type: ignore[arg-type]


def test_a_restored_supply_goes_on_with_the_same_networks_without_training() -> None:
    supply = opened()
    drawn = supply.draw(0, 5)
    other = Interpolated(MLP, 2, RECIPE).prepare(SetupContext(blobs(), 99, torch.device("cpu")))  # trains others
    other.restore(supply.state())
    again = other.draw(0, 5)
    assert torch.equal(weights(again.network), weights(drawn.network))
    assert torch.equal(weights(again.target_network), weights(drawn.target_network))  # type: ignore[arg-type]


@pytest.mark.parametrize("stop", [1, 3])
def test_ncfm_falls_and_resumes_to_the_same_bits(stop: int, tmp_path: Path) -> None:
    data, path, budget = blobs(shape=(1, 16, 16)), tmp_path / "run.pt", Budget(steps=5)
    method = ncfm(
        architecture="convnet:width=4",
        frequencies=64,
        real_batch_per_class=16,
        pretrained_networks=2,
        pretraining_epochs=2,
        init="noise",
        steps_per_network=2,
    )
    whole = method.distil(data, 1, seed=0, budget=budget)
    method.distil(data, 1, seed=0, budget=budget, checkpoint=path, callbacks=[StopAt(stop)])
    resumed = method.distil(data, 1, seed=0, budget=budget, checkpoint=path)
    assert len(whole) == 12  # four tiles in each stored image
    assert torch.equal(resumed.inputs(), whole.inputs())
    assert whole.provenance["objective"]["name"] == "with-cross-entropy"
    assert whole.provenance["objective"]["inner"]["name"] == "characteristic-function"
    assert whole.provenance["objective"] == describe(method.objective)


def test_ncfm_works_on_features_without_augmentation_and_tiles() -> None:
    method = ncfm(
        architecture=MLP, augmentation="none", parameterization="pixels", pretrained_networks=1, pretraining_epochs=1
    )
    assert len(method.distil(blobs(shape=(5,)), 2, seed=0, budget=Budget(steps=2))) == 6


def test_no_network_is_refused() -> None:
    with pytest.raises(SettingsError):
        Interpolated(networks=0)
