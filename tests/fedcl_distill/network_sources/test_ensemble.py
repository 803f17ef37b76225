"""Truth: the member networks, built one by one."""

from __future__ import annotations

import pytest
import torch

from builders import blobs
from fedcl_distill.context import SetupContext
from fedcl_distill.errors import SettingsError
from fedcl_distill.network_sources import FreshEnsemble
from fedcl_distill.networks import Architecture
from fedcl_distill.objectives import NetworkFeatures
from fedcl_distill.seeding import derive_seed


def test_its_kernel_is_the_mean_of_its_members(untouched_global_rng: None) -> None:
    architecture = Architecture("convnet", {"width": 4})
    supply = FreshEnsemble(architecture, count=3).prepare(SetupContext(blobs(), 0, torch.device("cpu")))
    whole, images = supply.draw(0, 11).network, torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    members = [architecture.build((1, 8, 8), 3, seed=derive_seed(11, "network", place)) for place in range(3)]
    kernel = NetworkFeatures()

    def matrix(network: torch.nn.Module) -> torch.Tensor:
        represented = kernel.represent(network, images)  # type: ignore[arg-type]
        return kernel.between(represented, represented)

    with torch.no_grad():
        mean = torch.stack([matrix(member) for member in members]).mean(0)
        assert torch.allclose(matrix(whole), mean, atol=1e-6)
    assert whole(images).shape == (5, 3)
    assert whole.embedding_size == 3 * members[0].embedding_size


def test_views_have_their_own_networks_and_repeat_them() -> None:
    supply = FreshEnsemble(count=2).prepare(SetupContext(blobs((13,)), 0, torch.device("cpu")))
    features = torch.randn(2, 13)
    one, again, other = (supply.draw(0, seed).network.embed(features) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert not one.requires_grad


def test_an_empty_ensemble_is_refused() -> None:
    with pytest.raises(SettingsError):
        FreshEnsemble(count=0)
