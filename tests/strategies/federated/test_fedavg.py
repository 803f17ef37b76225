"""FedAvg against an average computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict

from fedcl_distill.data import partition
from fedcl_distill.errors import SettingsError
from fedcl_distill.networks import Architecture
from fedcl_distill.seeding import derive_seed
from fedcl_distill.training import fit
from federations import data_and_test, quick, run
from strategies.federated.aggregation import ReplyCollector
from strategies.federated.scaffold import ScaffoldServer

FEDAVG = {"strategy": "fedavg", "partition": "dirichlet:1.0"}


def test_one_round_is_the_weighted_average_of_the_clients_models():
    settings = quick(**FEDAVG)
    train, _ = data_and_test()
    parts = partition(train, settings.partition, settings.clients, seed=0)
    assert len({len(part) for part in parts}) > 1, "weights would not matter"
    expected = None
    for number, part in enumerate(parts):
        network = Architecture.parse("mlp:width=8").build((6,), 3, seed=derive_seed(0, "model"))
        train_config = settings.local.request(settings.seed, settings.architecture).train_config_for(part)
        fit(network, part.inputs(), part.labels, train_config, seed=derive_seed(0, "client", 1, number))
        share = len(part) / len(train)
        weighted = {name: value.double() * share for name, value in network.state_dict().items()}
        expected = weighted if expected is None else {k: v + weighted[k] for k, v in expected.items()}
    result = run(settings)
    assert set(result.weights) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(result.weights[name].numpy(), value.numpy(), rtol=1e-5, atol=1e-7)


def test_rounds_improve_on_the_fresh_model():
    result = run(quick(strategy="fedavg", rounds=5, local_epochs=5, local_batch_size=4))
    assert len(result.rounds) == 6
    assert result.accuracy > max(0.9, result.rounds[0].accuracy)


def _with_weights(change):
    def tamper(reply: Message) -> Message:
        arrays = {name: change(name, array) for name, array in reply.content["arrays"].items()}
        content = {"arrays": ArrayRecord(arrays), "metrics": reply.content["metrics"]}
        reply.content = RecordDict(content)
        return reply

    return tamper


def _nan(name, array):
    return Array(np.full_like(array.numpy(), np.nan))


def _wider(name, array):
    return Array(np.concatenate([array.numpy()] * 2))


def _double(name, array):
    return Array(array.numpy().astype(np.float64))


def _lying(name, array):
    return Array(array.dtype, (2, *array.shape), array.stype, array.data)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_nan, "NaN or infinity"),
        (_wider, "expected float32 of shape"),
        (_double, "holds float64"),
        (_lying, "declares float32 of shape"),
    ],
)
def test_bad_models_are_left_out_of_the_average(change, reason):
    honest = run(quick(**FEDAVG), unavailable=[1])
    result = run(quick(**FEDAVG), tampers={1: _with_weights(change)})
    (rejection,) = result.rejections
    assert (rejection.partition, rejection.node) == (1, 1001)
    assert reason in rejection.reason
    for name, array in honest.weights.items():
        assert torch.equal(torch.tensor(array.numpy()), torch.tensor(result.weights[name].numpy()))


def _boasting(reply: Message) -> Message:
    """The node's honest model, as if it came from a hundred thousand samples."""
    facts = {**reply.content["metrics"], "num-examples": 100_000}
    reply.content = RecordDict({**reply.content, "metrics": MetricRecord(facts)})
    return reply


@pytest.mark.parametrize("strategy", ["fedavg", "fedprox", "topk", "quantised"])
def test_a_share_bounds_what_a_boasting_node_counts_for(strategy):
    """Of four even nodes, one may count for two fifths at most: twice what another does, not a thousand times."""
    base = {"strategy": strategy, "rounds": 1}
    alone = {name: run(quick(**base), unavailable=others) for name, others in {"first": [1, 2, 3], "rest": [0]}.items()}

    def mixture(share: float) -> dict[str, np.ndarray]:
        pairs = alone["first"].weights.items()
        return {key: share * one.numpy() + (1 - share) * alone["rest"].weights[key].numpy() for key, one in pairs}

    for settings, share in (({}, 100_000 / (100_000 + 90)), ({"client_share": 0.4}, 0.4)):
        found = run(quick(**base, strategy_settings=settings), {0: _boasting})
        for name, value in mixture(share).items():
            np.testing.assert_allclose(found.weights[name].numpy(), value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("strategy", "share"), [("fedavg", 0.0), ("fedavgm", 1.5), ("fedadam", -1.0), ("quantised", 2.0)]
)
def test_impossible_shares_are_refused(strategy, share):
    with pytest.raises(SettingsError):
        run(quick(strategy=strategy, strategy_settings={"client_share": share}))


def test_variates_cannot_be_bounded():
    settings = quick(strategy="scaffold")
    network = Architecture.parse("mlp:width=8").build((6,), 3, seed=0)
    with pytest.raises(SettingsError, match="client_share"):
        ScaffoldServer(
            settings.local.request(settings.seed, settings.architecture),
            network,
            ReplyCollector(4),
            client_share=0.5,
        )
