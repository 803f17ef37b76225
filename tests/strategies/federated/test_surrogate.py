"""FedDM's rounds against what can be computed without Flower."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord

from fedcl_distill.data import partition
from fedcl_distill.errors import PayloadError, SettingsError
from fedcl_distill.networks import Architecture, Network
from fedcl_distill.seeding import derive_seed
from fedcl_distill.synthetic import decode, encode, union
from fedcl_distill.synthetic.quantise import Range, error_bound
from fedcl_distill.training import TrainConfig, fit
from federations import data_and_test, quick, run
from strategies.federated.answers import RANGES, pack_network, put_weights, unpack_network, weights_of
from strategies.federated.feddm import SurrogateRequest
from strategies.federated.learner import Learner

FEDDM = {
    "strategy": "feddm",
    "rounds": 2,
    "method": "dm",
    "method_settings": {"real_batch_per_class": 8, "learning_rate": 0.05},
    "distil_steps": 3,
}


def _network(seed: int = 0) -> Network:
    return Architecture.parse("mlp:width=8").build((6,), 3, seed=seed)


def _vector(network: Network) -> torch.Tensor:
    return torch.cat([one.detach().flatten() for one in network.parameters()])


def test_two_rounds_are_what_the_core_does_by_hand():
    settings = quick(**FEDDM, strategy_settings={"radius": 0.5})
    train, test = data_and_test()
    network = Architecture.parse("mlp:width=8").build((6,), 3, seed=derive_seed(0, "model"))
    hand = quick(**{**FEDDM, "method_settings": {**FEDDM["method_settings"], "logits_weight": 1.0}})
    request = hand.distillation.request(hand.seed)
    request = request.extended(SurrogateRequest, architecture="mlp:width=8", radius=0.5)
    parts = partition(train, settings.partition, settings.clients, seed=settings.seed)
    for number in (1, 2):
        sets = []
        for place, part in enumerate(parts):
            seed = derive_seed(settings.seed, "client", number, place)
            sets.append(
                decode(
                    encode(request.distil(part, seed=seed, distiller=request.around(request.distiller(), network)), 8)
                )
            )
        whole = union(sets)
        train_config = settings.learner(test).training(len(whole))
        fit(network, whole.inputs(), whole.labels, train_config, seed=derive_seed(0, "server", number))
    result = run(settings)
    received = _network(5)
    put_weights(received, result.weights)
    assert torch.equal(_vector(received), _vector(network))
    assert result.accuracy > 0.9
    assert result.clients_per_class == (4, 4, 4)


def test_rounds_depend_on_the_radius():
    near, far = (run(quick(**FEDDM, strategy_settings={"radius": radius})) for radius in (0.1, 1.0))
    assert not torch.equal(near.synthetic.inputs(), far.synthetic.inputs())


def test_the_downlink_is_counted_and_fewer_bits_cost_less():
    runs = {
        bits: run(quick(**FEDDM, architecture="mlp:width=64", strategy_settings={"weight_bits": bits, "radius": 0.5}))
        for bits in (32, 16, 8)
    }
    values = sum(p.numel() for p in Architecture.parse("mlp:width=64").build((6,), 3, seed=0).parameters())
    for bits, result in runs.items():
        down = [one for one in result.ledger.entries if one.direction == "down"]
        headers = 128 * (1 + len(result.weights))
        assert len(down) == 8
        assert all(values * bits // 8 < one.arrays < values * bits // 8 + headers + 64 for one in down)


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_weights_survive_but_for_rounding(bits):
    sent, received = _network(), _network(1)
    unpack_network(received, pack_network(sent, bits), bits)
    for name, tensor in sent.state_dict().items():
        bound = error_bound(Range.of(tensor.numpy()), bits)
        assert float((received.state_dict()[name] - tensor).abs().max()) <= bound


def test_hostile_weights_are_refused():
    packed = dict(pack_network(_network(), 8).items())
    bad_range = np.full((len(packed) - 1, 2), np.nan, np.float32)
    wrong = [
        {name: array for name, array in packed.items() if name != RANGES},
        {**packed, RANGES: Array(bad_range)},
        {**packed, RANGES: Array(bad_range[:1])},
        {**packed, "classifier.bias": Array(np.zeros(99, np.uint8))},
        {**packed, "classifier.bias": Array(np.zeros(3, np.float32))},
    ]
    for arrays in wrong:
        with pytest.raises(PayloadError):
            unpack_network(_network(), ArrayRecord(arrays), 8)


def test_a_ball_holds_the_server():
    train, _ = data_and_test()
    train_config = TrainConfig(epochs=20, learning_rate=0.1)
    learner = Learner(Architecture.parse("mlp:width=8"), lambda samples: train_config, (6,), 3, seed=0)
    start = learner.fresh()
    synthetic = quick(method="random").distillation.request(quick(method="random").seed).distil(train, seed=0)
    ways = {}
    for radius in (None, 0.5, 1e6):
        weights = learner.learn(synthetic, 1, start=weights_of(start), radius=radius)
        ways[radius] = _vector(learner.with_weights(weights)) - _vector(start)
    assert float(ways[0.5].norm()) == pytest.approx(0.5, rel=1e-3)
    assert float(ways[None].norm()) > 0.6
    assert torch.equal(ways[None], ways[1e6])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"radious": 1.0}, "unknown setting 'radious'; did you mean 'radius'"),
        ({"radius": "far"}, "radius must be a number at least 0, got 'far'"),
        ({"radius": -1.0}, "radius must be a number at least 0"),
        ({"server_radius": -1.0}, "server_radius must be a number at least 0"),
        ({"weight_bits": 4}, "weight_bits must be one of 8, 16, 32, got 4"),
    ],
)
def test_bad_settings_are_told_before_anyone_is_asked(settings, said):
    with pytest.raises(SettingsError, match=said):
        run(quick(**FEDDM, strategy_settings=settings))


@pytest.mark.parametrize("method", ["random", "mtt"])
def test_methods_that_have_no_use_for_given_networks_are_refused(method):
    with pytest.raises(SettingsError):
        run(quick(strategy="feddm", method=method))


def test_dead_nodes_do_not_stop_a_round():
    result = run(quick(**FEDDM, strategy_settings={"radius": 0.5}), unavailable=[1])
    assert [one.answers for one in result.rounds[1:]] == [3, 3]
    assert len(result.rejections) == 2
