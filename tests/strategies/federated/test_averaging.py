"""FedProx, FedAvgM and FedAdam against their updates written out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from flwr.app import ArrayRecord

from federations import data_and_test, quick, run
from plain_federated import parts_of, shares_of, start_of, trained, vector_of
from simulations.settings import FederatedSettings

ROUNDS = 3
SOME = {"partition": "dirichlet:1.0", "rounds": ROUNDS, "clients": 3}


def _average(settings: FederatedSettings, start: torch.Tensor, server_round: int, **terms: float) -> torch.Tensor:
    train, _ = data_and_test()
    parts = parts_of(settings, train)
    models = [trained(settings, part, i, server_round, start, **terms) for i, part in enumerate(parts)]
    return sum(share * model for share, model in zip(shares_of(parts), models, strict=True))


def test_fedprox_minimises_the_loss_with_the_proximal_term():
    settings = quick(strategy="fedprox", strategy_settings={"mu": 2.0}, local_epochs=3, **SOME)
    train, _ = data_and_test()
    model = start_of(settings, train)
    for server_round in range(1, ROUNDS + 1):
        model = _average(settings, model, server_round, mu=2.0)
    found = vector_of(run(settings))
    np.testing.assert_allclose(found, model, rtol=1e-4, atol=1e-6)
    plain = vector_of(run(quick(strategy="fedavg", local_epochs=3, **SOME)))
    assert (found - plain).abs().max() > 1e-3


def test_fedprox_without_the_term_is_fedavg():
    without = run(quick(strategy="fedprox", strategy_settings={"mu": 0.0}, **SOME))
    assert torch.equal(vector_of(without), vector_of(run(quick(strategy="fedavg", **SOME))))


def test_fedavgm_moves_with_momentum():
    chosen = {"server_learning_rate": 0.5, "server_momentum": 0.8}
    settings = quick(strategy="fedavgm", strategy_settings=chosen, **SOME)
    train, _ = data_and_test()
    model, velocity = start_of(settings, train), 0.0
    for server_round in range(1, ROUNDS + 1):
        velocity = 0.8 * velocity + model - _average(settings, model, server_round)
        model = model - 0.5 * velocity
    np.testing.assert_allclose(vector_of(run(settings)), model, rtol=1e-4, atol=1e-6)


def test_fedadam_moves_by_both_moments():
    chosen = {"server_learning_rate": 0.05, "beta_1": 0.8, "beta_2": 0.9, "tau": 0.01}
    settings = quick(strategy="fedadam", strategy_settings=chosen, **SOME)
    train, _ = data_and_test()
    model, first, second = start_of(settings, train), 0.0, 0.0
    for server_round in range(1, ROUNDS + 1):
        change = _average(settings, model, server_round) - model
        first, second = 0.8 * first + 0.2 * change, 0.9 * second + 0.1 * change**2
        rate = 0.05 * (1 - 0.9 ** (server_round + 1)) ** 0.5 / (1 - 0.8 ** (server_round + 1))  # Flower's t + 1
        model = model + rate * first / (second**0.5 + 0.01)
    np.testing.assert_allclose(vector_of(run(settings)), model, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("strategy", ["fedprox", "fedavgm", "fedadam"])
def test_bytes_are_those_of_fedavg_and_weights_stay_float32(strategy):
    result, fedavg = run(quick(strategy=strategy, **SOME)), run(quick(strategy="fedavg", **SOME))
    assert {array.dtype for array in result.weights.values()} == {"float32"}
    assert result.rounds[-1].bytes_up == fedavg.rounds[-1].bytes_up
    assert result.rounds[-1].bytes_down == fedavg.rounds[-1].bytes_down


@pytest.mark.parametrize("strategy", ["fedprox", "fedavgm", "fedadam", "scaffold"])
def test_bad_models_are_turned_away(strategy):
    def without_one_array(reply):
        reply.content["arrays"] = ArrayRecord(dict(list(reply.content["arrays"].items())[1:]))
        return reply

    (rejection, *others) = run(quick(strategy=strategy, **SOME), tampers={1: without_one_array}).rejections
    assert len(others) == ROUNDS - 1
    assert (rejection.partition, rejection.server_round) == (1, 1)
    assert "weight arrays" in rejection.reason
