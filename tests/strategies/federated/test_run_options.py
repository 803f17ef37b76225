"""What a run is told beside its strategy: how long the server trains, and how many nodes it waits for."""

from __future__ import annotations

import pytest
import torch

from fedcl_distill.evaluation import find_protocol
from fedcl_distill.training import TrainConfig
from federations import data_and_test, honest_app, quick
from strategies.federated import InProcessGrid, Learner, OneShot, RunOptions, run_server


@pytest.mark.parametrize(("protocol", "epochs"), [("fast", 300), ("quick", 179), ("brief", 44)])
def test_epochs_follow_from_the_size_of_the_union(protocol: str, epochs: int) -> None:
    """335 samples: 60,000 // 335 passes by "quick", 15,000 // 335 by "brief"."""
    _, test = data_and_test()
    learner = RunOptions(train=protocol, network="mlp:width=4").learner(test)
    assert learner.training(335).epochs == epochs
    assert RunOptions(train=find_protocol(protocol)).protocol.name == protocol


def test_the_server_trains_for_as_many_samples_as_there_are() -> None:
    _, test = data_and_test()
    seen = []
    learner = RunOptions(network="mlp:width=4").learner(test)
    counted = Learner(
        learner.architecture,
        lambda samples: seen.append(samples) or TrainConfig(epochs=1),
        test.sample_shape,
        test.num_classes,
        seed=0,
    )
    synthetic = OneShot("random", images_per_class=2).method.distil(test, 2, seed=0)
    counted.learn(synthetic, 1)
    assert seen == [len(synthetic)] == [6]


def test_a_train_config_is_taken_as_it_is() -> None:
    _, test = data_and_test()
    config = TrainConfig(epochs=3, learning_rate=0.5)
    assert RunOptions(train=config).learner(test).training(10_000) == config


class LateNodes(InProcessGrid):
    """Nodes of another machine, which register one by one."""

    node_state = None
    asked = 0

    def get_node_ids(self):
        self.asked += 1
        return list(super().get_node_ids())[: self.asked]


def test_all_nodes_that_come_take_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("strategies.federated.run._SETTLE_SECONDS", 0.3)
    monkeypatch.setattr("strategies.federated.run._POLL_SECONDS", 0.01)
    train, test = data_and_test()
    one = quick(clients=4)
    with LateNodes(honest_app(one, train), 4) as grid:
        result = run_server(grid, OneShot("random", images_per_class=1), test=test, network="mlp:width=4")
    assert [entry["partition"] for entry in result.ledger.as_record()] == [0, 1, 2, 3]


def test_the_same_seed_gives_the_same_bits_by_object_and_by_settings(untouched_global_rng: object) -> None:
    train, test = data_and_test()
    one = quick(seed=5)
    with InProcessGrid(honest_app(one, train), one.clients) as grid:
        plain = run_server(grid, OneShot("random", images_per_class=2), test=test, network="mlp:width=8", seed=5)
        named = run_server(grid, one.build_strategy(), test=test, **one.options)
    for name, array in plain.weights.items():
        assert torch.equal(torch.tensor(array.numpy()), torch.tensor(named.weights[name].numpy())), name
