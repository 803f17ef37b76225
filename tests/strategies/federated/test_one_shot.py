"""One-shot union against what can be computed without Flower."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from fedcl_distill.data import partition
from fedcl_distill.errors import SettingsError
from fedcl_distill.methods import build_method
from fedcl_distill.networks import Architecture
from fedcl_distill.seeding import derive_seed
from fedcl_distill.synthetic import decode, encode, union
from fedcl_distill.training import accuracy, fit
from federations import data_and_test, quick, run
from strategies.federated import InProcessGrid, OneShot, QuorumError, collect_sets, make_client_app
from strategies.federated.answers import put_weights


def _sets_by_hand(settings, train):
    """What every client sends, from the core alone."""
    parts = partition(train, settings.partition, settings.clients, seed=settings.seed)
    request = settings.distillation.request(settings.seed)
    for number, part in enumerate(parts):
        seed = derive_seed(settings.seed, "client", 1, number)
        yield decode(encode(request.distil(part, seed=seed), settings.bits, provenance=False))


def test_union_is_the_union_of_the_clients_sets_in_order_of_partitions():
    settings = quick()
    train, _ = data_and_test()
    expected = union(list(_sets_by_hand(settings, train)))
    result = run(settings)
    assert torch.equal(result.synthetic.inputs(), expected.inputs())
    assert torch.equal(result.synthetic.labels, expected.labels)
    assert result.synthetic.provenance["union_of"] == [0, 1, 2, 3]


def test_global_model_is_trained_on_the_union_by_the_protocol():
    settings = quick()
    _, test = data_and_test()
    result = run(settings)
    network = Architecture.parse("mlp:width=8").build((6,), 3, seed=derive_seed(0, "model"))
    inputs, labels = result.synthetic.inputs(), result.synthetic.labels
    fit(network, inputs, labels, settings.learner(test).training(len(inputs)), seed=derive_seed(0, "server", 1))
    received = Architecture.parse("mlp:width=8").build((6,), 3, seed=5)
    put_weights(received, result.weights)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, received.state_dict()[name])
    assert result.accuracy == accuracy(network, test) > 0.9


@pytest.mark.parametrize("strategy", ["one-shot", "fedavg"])
def test_same_seed_same_bytes_and_another_seed_others(strategy):
    rounds = 1 if strategy == "one-shot" else 2
    first, second, other = (run(quick(strategy=strategy, rounds=rounds, seed=s)) for s in (3, 3, 4))
    assert first.ledger.entries == second.ledger.entries
    assert _weight_bytes(first) == _weight_bytes(second) != _weight_bytes(other)
    assert [one.accuracy for one in first.rounds] == [one.accuracy for one in second.rounds]


@pytest.mark.parametrize("strategy", ["one-shot", "fedavg"])
def test_global_generators_are_left_alone(strategy, untouched_global_rng):
    before = random.getstate()
    run(quick(strategy=strategy))
    assert random.getstate() == before


def test_distillation_runs_on_images_with_classes_missing_on_clients():
    settings = quick(
        method="dm",
        method_settings={"architecture": "convnet:width=4,depth=2", "real_batch_per_class": 8},
        distil_steps=2,
        partition="classes:1",
        clients=3,
        architecture="convnet:width=4,depth=2",
    )
    result = run(settings, shape=(1, 8, 8))
    assert result.synthetic.class_counts.tolist() == [2, 2, 2]
    assert result.rejections == ()


def test_byte_budget_bounds_each_payload():
    result = run(quick(byte_budget=600))
    up = [entry for entry in result.ledger.entries if entry.direction == "up"]
    npy_header = 128
    assert all(entry.arrays - npy_header <= 600 for entry in up)
    assert len(result.synthetic) > 4


@pytest.mark.parametrize("budget", [700, 1200])
@pytest.mark.parametrize("method", ["dm", "random"])
def test_a_budget_spent_as_suits_it_bounds_each_payload_and_holds_more_samples(method, budget):
    asked = {"method": method, "byte_budget": budget, "distil_steps": 2, "architecture": "convnet:width=4"}
    asked["method_settings"] = {"architecture": "convnet:width=4"} if method == "dm" else {}
    fitted, plain = (run(quick(fit_to_budget=fit, **asked), shape=(1, 12, 12)) for fit in (True, False))
    up = [entry for entry in fitted.ledger.entries if entry.direction == "up"]
    npy_header = 128
    assert len(up) == 4
    assert all(entry.arrays - npy_header <= budget for entry in up)
    assert fitted.rejections == ()
    assert len(fitted.synthetic) > len(plain.synthetic)


def test_a_fit_needs_a_budget_and_leaves_the_way_of_storing_that_was_asked_for():
    with pytest.raises(SettingsError, match="needs a byte_budget"):
        quick(fit_to_budget=True)
    train, _ = data_and_test((1, 12, 12))
    request = quick(
        method="dm", byte_budget=700, fit_to_budget=True, method_settings={"parameterization": "low-rank:rank=2"}
    ).distillation.request(seed=0)
    assert request.fitted_to(train).method_settings == {"parameterization": "low-rank:rank=2"}
    assert not request.fitted_to(train).fit_to_budget


def test_it_has_one_round():
    with pytest.raises(SettingsError, match="one round"):
        run(quick(rounds=2))


def test_dead_nodes_are_counted_and_the_others_go_on():
    result = run(quick(), unavailable=[2])
    assert result.synthetic.provenance["union_of"] == [0, 1, 3]
    (rejection,) = result.rejections
    assert (rejection.node, rejection.reason) == (1002, "Node Unavailable")


def test_quorum_ends_the_run_with_one_error_that_names_the_reasons():
    with pytest.raises(QuorumError, match=r"round 1: 1 valid answers, 3 are needed.*node 1000: Node Unav"):
        run(quick(quorum=0.75), unavailable=[0, 1, 2])


def test_without_any_valid_answer_the_run_ends():
    with pytest.raises(QuorumError, match="0 valid answers, 1 are needed"):
        run(quick(), unavailable=range(4))


def test_a_hundred_nodes():
    result = run(quick(clients=100, images_per_class=1))
    assert result.rounds[-1].answers == 100
    assert len(result.ledger.entries) == 200


def _weight_bytes(result):
    return b"".join(array.data for array in result.weights.values())


def test_an_unknown_method_is_refused_before_anyone_is_asked():
    with pytest.raises(SettingsError, match="unknown method"):
        run(quick(method="other"))


def test_interrupting_a_client_interrupts_the_run():
    class Interrupted:
        def distil(self, real, size, **settings):
            synthetic = build_method("random").distil(real, size, seed=0)
            return replace(synthetic, provenance={"interrupted": True})

    train, test = data_and_test()
    app = make_client_app(lambda context: train, methods={"mine": Interrupted()})
    with InProcessGrid(app, 1) as grid, pytest.raises(KeyboardInterrupt):
        collect_sets(grid, OneShot({"mine": build_method("random")}), like=test)
