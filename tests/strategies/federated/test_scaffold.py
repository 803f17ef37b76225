"""SCAFFOLD against closed forms, and against Algorithm 1 written down plainly."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, RecordDict

from federations import data_and_test, honest_app, quick, run, serve, tampered
from plain_federated import parts_of, shares_of, start_of, trained, vector_of
from simulations.settings import FederatedSettings
from strategies.federated import InProcessGrid
from strategies.federated.client import partition_of
from strategies.federated.requests import keep
from strategies.federated.scaffold import ScaffoldServer, effective_steps

SOME = {"strategy": "scaffold", "partition": "dirichlet:1.0", "clients": 3}


def _plain(
    settings: FederatedSettings, used: Callable[[int, int], bool] = lambda server_round, number: True
) -> tuple[torch.Tensor, torch.Tensor]:
    """x and c after all rounds of Algorithm 1 with option II; clients not ``used`` do not take part in that round."""
    train, _ = data_and_test()
    parts = parts_of(settings, train)
    shares, model = shares_of(parts), start_of(settings, train)
    control, own = torch.zeros_like(model), [torch.zeros_like(model) for _ in parts]
    for server_round in range(1, settings.rounds + 1):
        taking = [number for number in range(len(parts)) if used(server_round, number)]
        models = {}
        for number in taking:
            shift = control - own[number]
            models[number] = trained(settings, parts[number], number, server_round, model, shift=shift)
        among = sum(shares[number] for number in taking)
        change = torch.zeros_like(model)
        for number in taking:
            steps = settings.local_epochs * -(-len(parts[number]) // settings.local_batch_size)
            moved = (model - models[number]) / (settings.local_learning_rate * _weights(steps, settings.local_momentum))
            renewed = own[number] - control + moved
            change += shares[number] * (renewed - own[number])
            own[number] = renewed
        model = sum(shares[number] / among * models[number] for number in taking)
        control = control + change
    return model, control


def _weights(steps: int, momentum: float) -> float:
    total = one = 0.0
    for _ in range(steps):
        one = momentum * one + 1
        total += one
    return total


@pytest.mark.parametrize(("steps", "momentum"), [(1, 0.0), (7, 0.0), (1, 0.9), (20, 0.9)])
def test_effective_steps(steps, momentum):
    assert effective_steps(steps, momentum) == pytest.approx(_weights(steps, momentum))


def test_one_full_step_is_gradient_descent_on_all_data():
    """With one step on all of a client's data the variates are its exact gradients, and they cancel."""
    chosen = {"local_batch_size": 200, "local_momentum": 0.0, "local_learning_rate": 0.1}
    settings = quick(rounds=4, **SOME, **chosen)
    train, _ = data_and_test()
    model = start_of(settings, train)
    for _ in range(settings.rounds):
        model = trained(settings, train, 0, 1, model)
    np.testing.assert_allclose(vector_of(run(settings)), model, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_it_is_algorithm_1(momentum):
    settings = quick(rounds=4, local_epochs=2, local_batch_size=8, local_momentum=momentum, **SOME)
    found = vector_of(run(settings))
    np.testing.assert_allclose(found, _plain(settings)[0], rtol=1e-3, atol=1e-5)
    fedavg = quick(**{**SOME, "strategy": "fedavg"}, rounds=4, local_epochs=2, local_batch_size=8)
    assert (found - vector_of(run(fedavg))).abs().max() > 1e-3


def test_the_first_round_is_that_of_fedavg():
    both = [run(quick(**{**SOME, "strategy": strategy})) for strategy in ("scaffold", "fedavg")]
    assert torch.equal(*map(vector_of, both))


def test_half_the_server_rate_goes_half_the_way():
    whole, half = (run(quick(**SOME, strategy_settings={"server_learning_rate": rate})) for rate in (1.0, 0.5))
    train, _ = data_and_test()
    start = start_of(quick(**SOME), train)
    np.testing.assert_allclose(2 * (vector_of(half) - start), vector_of(whole) - start, rtol=1e-3, atol=1e-6)


def test_bytes_are_twice_those_of_fedavg():
    settings = {"clients": 3, "rounds": 2, "architecture": "mlp:width=256"}
    scaffold, fedavg = (run(quick(strategy=strategy, **settings)).rounds[-1] for strategy in ("scaffold", "fedavg"))
    assert scaffold.bytes_up / fedavg.bytes_up == pytest.approx(2, rel=0.02)
    assert scaffold.bytes_down / fedavg.bytes_down == pytest.approx(2, rel=0.05)


class _Misbehaving:
    """Spoils the answer of one partition in some rounds, after the work is done."""

    def __init__(self, rounds: set[int], spoil: Callable) -> None:
        self.rounds, self.spoil, self.calls = rounds, spoil, count(1)

    def __call__(self, reply):
        return self.spoil(reply) if next(self.calls) in self.rounds else reply


def _nan_control(reply):
    values = reply.content["control"]["values"].numpy().copy()
    values[0] = np.nan
    reply.content["control"] = ArrayRecord({"values": Array(values)})
    return reply


def _short_control(reply):
    reply.content["control"] = ArrayRecord({"values": Array(reply.content["control"]["values"].numpy()[1:])})
    return reply


def _no_control(reply):
    reply.content = RecordDict({key: reply.content[key] for key in ("arrays", "metrics")})
    return reply


def _raise(reply):
    raise ZeroDivisionError("the node's own mistake")


@pytest.mark.parametrize("spoil", [_nan_control, _short_control, _no_control, _raise])
def test_a_round_whose_answer_was_not_used_has_not_happened(spoil):
    settings = quick(rounds=5, local_batch_size=8, **SOME)
    result = run(settings, tampers={1: _Misbehaving({2, 3}, spoil)})
    assert [(one.partition, one.server_round) for one in result.rejections] == [(1, 2), (1, 3)]
    expected, _ = _plain(settings, lambda server_round, number: number != 1 or server_round not in (2, 3))
    np.testing.assert_allclose(vector_of(result), expected, rtol=1e-3, atol=1e-5)


def test_the_servers_variate_is_the_mean_of_the_nodes(monkeypatch):
    seen, original = [], ScaffoldServer.__init__
    monkeypatch.setattr(ScaffoldServer, "__init__", lambda self, *a, **k: original(self, *a, **k) or seen.append(self))
    settings = quick(rounds=3, local_batch_size=8, **SOME)
    run(settings, tampers={1: _Misbehaving({3}, _nan_control)})
    _, control = _plain(settings, lambda server_round, number: (server_round, number) != (3, 1))
    np.testing.assert_allclose(seen[0].control, control, rtol=1e-3, atol=1e-5)


def test_a_node_that_lost_its_variate_says_so_and_is_left_out():
    settings = quick(rounds=3, **SOME)
    train, test = data_and_test()
    app, calls = honest_app(settings, train), count(1)

    def forgetful(message, context):
        if partition_of(context) == 1 and next(calls) >= 2:
            for key in list(context.state):
                del context.state[key]
        return app(message, context)

    with InProcessGrid(forgetful, settings.clients) as grid:
        rejections = serve(grid, settings, test).rejections
    assert [(one.partition, one.server_round) for one in rejections] == [(1, 2), (1, 3)]
    assert "has lost what it kept in round 1" in rejections[0].reason


@pytest.mark.parametrize("strategy", ["scaffold", "topk"])
def test_a_second_run_on_the_same_nodes_starts_anew(strategy):
    settings = quick(**{**SOME, "strategy": strategy}, rounds=3)
    train, test = data_and_test()
    with InProcessGrid(tampered(honest_app(settings, train), {}), settings.clients) as grid:
        first, second = (serve(grid, settings, test) for _ in range(2))
    assert torch.equal(vector_of(first), vector_of(second))


def test_a_node_keeps_no_more_than_two_rounds():
    settings = quick(rounds=6, **SOME)
    train, test = data_and_test()
    with InProcessGrid(honest_app(settings, train), settings.clients) as grid:
        serve(grid, settings, test)
        assert all(len(context.state) == 2 for context in grid._contexts.values())
    state = RecordDict()
    keep(state, 1, ArrayRecord({}))
    assert len(state) == 1
