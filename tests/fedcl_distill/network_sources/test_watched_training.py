"""Truth: loops of which it is known when they must end, plain SGD written out, and runs that are interrupted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from builders import blobs
from fedcl_distill.context import SetupContext, SyntheticBatch
from fedcl_distill.engine import Budget
from fedcl_distill.errors import SettingsError
from fedcl_distill.methods.distribution import cafe
from fedcl_distill.network_sources import NetworkSampler, WatchedTraining
from fedcl_distill.network_sources.trained import spread_of_last
from fedcl_distill.networks import Architecture
from stopping import StopAt

MLP = Architecture("mlp", {"width": 8})
SOURCE = WatchedTraining(MLP, queries_per_class=8, window=3, max_views=9, max_epochs=4)
DATA = blobs()
SYNTHETIC = SyntheticBatch(DATA.inputs()[::10], DATA.labels[::10], DATA.labels[::10])


def opened(source: WatchedTraining) -> NetworkSampler:
    return source.prepare(SetupContext(DATA, 0, torch.device("cpu")))


def weights(supply: NetworkSampler, seed: int) -> torch.Tensor:
    return torch.cat([parameter.flatten() for parameter in supply.draw(seed, seed).network.parameters()]).clone()


def test_spread_is_told_once_the_window_is_full() -> None:
    assert spread_of_last([0.1, 0.9], 3) is None
    assert spread_of_last([0.1, 0.5, 0.3, 0.4], 3) == pytest.approx(0.2)


def test_training_is_plain_sgd_for_as_many_passes_as_the_bound() -> None:
    supply = opened(replace(SOURCE, changed=1.0, max_epochs=3, learning_rate=0.1))
    network = MLP.build((1, 8, 8), 3, seed=0)
    network.load_state_dict(supply.draw(0, 0).network.state_dict())
    supply.update(0, 0, SYNTHETIC)
    for _ in range(3):
        gradients = torch.autograd.grad(
            F.cross_entropy(network(SYNTHETIC.inputs), SYNTHETIC.labels), list(network.parameters())
        )
        with torch.no_grad():
            for parameter, gradient in zip(network.parameters(), gradients, strict=True):
                parameter -= 0.1 * gradient
    expected = torch.cat([parameter.flatten() for parameter in network.parameters()])
    torch.testing.assert_close(weights(supply, 1), expected)


def test_the_inner_loop_ends_once_the_accuracy_moves() -> None:
    still = opened(replace(SOURCE, changed=1.0, max_epochs=30, learning_rate=0.05))
    moving = opened(replace(SOURCE, changed=0.0, max_epochs=30, learning_rate=0.05))
    start = weights(still, 0)
    assert torch.equal(start, weights(moving, 0))
    for supply in (still, moving):
        supply.update(0, 0, SYNTHETIC)
    assert (weights(moving, 1) - start).norm() < 0.5 * (weights(still, 1) - start).norm()


def test_a_settled_network_makes_room_for_a_fresh_one() -> None:
    supply = opened(replace(SOURCE, settled=1.1))  # any accuracies are settled
    first = weights(supply, 0)
    for index in range(3):
        assert torch.equal(weights(supply, index), weights(supply, index))
        supply.update(index, index, SYNTHETIC)
    fresh = opened(SOURCE)
    assert torch.equal(weights(supply, 3), weights(fresh, 3))
    assert not torch.equal(weights(supply, 3), first)


def test_no_network_serves_for_ever() -> None:
    supply = opened(replace(SOURCE, settled=0.0, max_views=2, max_epochs=1))
    for index in range(2):
        supply.draw(index, index)
        supply.update(index, index, SYNTHETIC)
    assert torch.equal(weights(supply, 2), weights(opened(SOURCE), 2))


def test_networks_are_handed_out_constant() -> None:
    supply = opened(SOURCE)
    supply.draw(0, 0)
    supply.update(0, 0, SYNTHETIC)
    assert not any(parameter.requires_grad for parameter in supply.draw(1, 1).network.parameters())


@pytest.mark.parametrize(("stop", "steps_per_network"), [(1, 1), (4, 1), (3, 2)])
def test_cafe_resumes_to_the_same_bits(stop: int, steps_per_network: int, tmp_path: Path) -> None:
    data, path, budget = blobs(shape=(1, 16, 16)), tmp_path / "run.pt", Budget(steps=6)
    method = cafe(
        architecture="convnet:width=4",
        real_batch_per_class=8,
        queries_per_class=4,
        max_views=3,
        max_epochs=2,
        steps_per_network=steps_per_network,
    )
    whole = method.distil(data, [2, 1, 1], seed=0, budget=budget)
    method.distil(data, [2, 1, 1], seed=0, budget=budget, checkpoint=path, callbacks=[StopAt(stop)])
    resumed = method.distil(data, [2, 1, 1], seed=0, budget=budget, checkpoint=path)
    assert torch.equal(resumed.inputs(), whole.inputs())


@pytest.mark.parametrize("shape", [(3, 8, 12), (5,)])
def test_cafe_works_on_any_shape(shape: tuple[int, ...]) -> None:
    method = cafe(queries_per_class=2, max_epochs=1, augmentation=None)
    assert len(method.distil(blobs(shape=shape, per_class=3), 2, seed=0, budget=Budget(steps=2))) == 6


@pytest.mark.parametrize("change", [{"window": 1}, {"learning_rate": 0.0}, {"settled": -0.1}, {"max_views": 0}])
def test_impossible_settings_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(SettingsError):
        replace(SOURCE, **change)  # type: ignore[arg-type]
