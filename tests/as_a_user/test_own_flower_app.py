"""A Flower user with a network, a training loop, a data set and a ClientApp of his own."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.app import Message as FlowerMessage
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg as FlowersFedAvg
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fedcl_distill.data import Splits, partition
from fedcl_distill.errors import SettingsError
from fedcl_distill.methods import build_method
from strategies.federated import (
    FedAvg,
    FederatedStatistics,
    InProcessGrid,
    LocalTraining,
    OneShot,
    QuorumError,
    add_distilling,
    collect_sets,
    make_client_app,
    run_server,
)

CLIENTS = 3
NETWORK = "mlp:width=16"


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def train(net: nn.Module, loader: DataLoader, epochs: int = 30) -> nn.Module:
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(epochs):
        for x, y in loader:
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            optimiser.step()
    return net


@pytest.fixture
def parts(digits: Splits) -> list:
    return partition(digits.train, "dirichlet:0.5", clients=CLIENTS, seed=0)


@pytest.fixture
def app(parts: list) -> ClientApp:
    return make_client_app(lambda context: parts[context.node_config["partition-id"]])


def test_his_own_net_and_loop_learn_from_the_union(app: ClientApp, digits: Splits) -> None:
    def learn(union) -> nn.Module:
        torch.manual_seed(0)
        return train(Net(), DataLoader(TensorDataset(union.inputs(), union.labels), batch_size=16, shuffle=True))

    with InProcessGrid(app, CLIENTS) as grid:
        result = run_server(grid, OneShot("herding", images_per_class=5), test=digits.test, train=learn)
    assert result.accuracy > 0.75
    assert isinstance(result.model, Net)
    assert list(result.weights) == list(result.model.state_dict())
    assert len(result.synthetic) <= CLIENTS * 50


def test_what_his_function_returns_is_the_accuracy_or_nothing(app: ClientApp, digits: Splits) -> None:
    strategy = OneShot("random", images_per_class=1)
    with InProcessGrid(app, CLIENTS) as grid:
        said = run_server(grid, strategy, test=digits.test, train=lambda union: 0.25)
        skipped = run_server(grid, strategy, test=digits.test, train=None)
        weighted = run_server(
            grid, replace(strategy, size_exponent=1.0), test=digits.test, train=lambda union, weights: weights
        )
    assert said.accuracy == 0.25
    assert math.isnan(skipped.accuracy)
    assert skipped.as_record()["accuracy"] is None
    assert len(weighted.model) == len(weighted.synthetic)


def test_the_union_alone(app: ClientApp, digits: Splits) -> None:
    with InProcessGrid(app, CLIENTS) as grid:
        union = collect_sets(grid, OneShot("random", images_per_class=2), like=digits.test)
        trained = run_server(grid, OneShot("random", images_per_class=2), test=digits.test, network=NETWORK)
        with pytest.raises(SettingsError, match="do not answer with sets"):
            collect_sets(grid, "fedavg", like=digits.test)
    assert union.partitions == (0, 1, 2)
    assert union.synthetic.num_classes == 10
    assert union.ledger.total("up") == trained.rounds[-1].bytes_up > 0
    assert torch.equal(union.synthetic.inputs(), trained.synthetic.inputs())


def test_a_warm_start_for_averaging(app: ClientApp, digits: Splits) -> None:
    slow = FedAvg(LocalTraining(learning_rate=0.001))
    with InProcessGrid(app, CLIENTS) as grid:
        union = run_server(grid, OneShot("herding", images_per_class=5), test=digits.test, network=NETWORK)
        cold = run_server(grid, slow, test=digits.test, network=NETWORK)
        warm = run_server(grid, slow, test=digits.test, network=NETWORK, initial=union.weights)
        with pytest.raises(SettingsError, match="takes no initial one"):
            run_server(grid, OneShot("random"), test=digits.test, network=NETWORK, initial=union.weights)
    assert warm.rounds[0].accuracy == union.accuracy
    assert warm.accuracy > cold.accuracy + 0.3


def test_distilling_beside_his_own_training(parts: list, digits: Splits) -> None:
    own = ClientApp()

    @own.train()
    def his_training(message, context):
        net = Net()
        net.load_state_dict({name: torch.tensor(one.numpy()) for name, one in message.content["arrays"].items()})
        data = parts[context.node_config["partition-id"]]
        train(net, DataLoader(TensorDataset(data.inputs(), data.labels), batch_size=32, shuffle=True), epochs=1)
        arrays = ArrayRecord({name: Array(one.numpy()) for name, one in net.state_dict().items()})
        return FlowerMessage(
            RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": len(data)})}), reply_to=message
        )

    assert add_distilling(own, lambda context: parts[context.node_config["partition-id"]]) is own
    net = Net()
    first = ArrayRecord({name: Array(one.numpy()) for name, one in net.state_dict().items()})
    with InProcessGrid(own, CLIENTS) as grid:
        flowers = FlowersFedAvg(fraction_evaluate=0.0).start(grid, first, num_rounds=1, train_config=ConfigRecord({}))
        union = collect_sets(grid, OneShot("herding", images_per_class=2), like=digits.test)
    assert set(flowers.arrays) == set(first)
    assert len(union.synthetic) > 20
    with pytest.raises(SettingsError, match="answers 'train"):
        add_distilling(own, lambda context: parts[0])


def test_a_method_object_of_the_nodes_own(parts: list, digits: Splits) -> None:
    mine = build_method("dm", architecture=f"convnet:width={8}", learning_rate=0.5)
    app = make_client_app(lambda context: parts[context.node_config["partition-id"]], methods={"mine": mine})
    asked = OneShot({"mine": mine}, images_per_class=1, steps=2)
    with InProcessGrid(app, CLIENTS) as grid:
        by_object = collect_sets(grid, asked, like=digits.test)
        by_name = collect_sets(
            grid,
            OneShot("dm:architecture=[convnet:width=8],learning_rate=0.5", images_per_class=1, steps=2),
            like=digits.test,
        )
    assert by_object.synthetic.provenance["method"] == "mine"
    assert torch.equal(by_object.synthetic.inputs(), by_name.synthetic.inputs())
    without = make_client_app(lambda context: parts[0])
    with InProcessGrid(without, 1) as grid, pytest.raises(QuorumError, match="unknown method 'mine'"):
        collect_sets(grid, asked, like=digits.test)
    with pytest.raises(SettingsError, match="under a name of its own"):
        OneShot(mine)


def test_any_map_style_data_set_a_loader_of_one_and_one_clear_error_otherwise(parts: list, digits: Splits) -> None:
    sets = [TensorDataset(part.samples, part.labels) for part in parts]
    tested = TensorDataset(digits.test.samples, digits.test.labels)  # of all classes, which no part need be
    served = {"data": sets}
    app = make_client_app(lambda context: served["data"][context.node_config["partition-id"]])
    with InProcessGrid(app, CLIENTS) as grid:
        union = collect_sets(grid, OneShot("random", images_per_class=1), like=parts[0])
        served["data"] = [DataLoader(one, batch_size=4) for one in sets]
        again = collect_sets(grid, OneShot("random", images_per_class=1), like=DataLoader(tested))
        served["data"] = [42] * CLIENTS
        with pytest.raises(QuorumError, match="expected a map-style data set"):
            collect_sets(grid, OneShot("random", images_per_class=1), like=parts[0])
    assert len(union.synthetic) == len(again.synthetic) > 10


def test_a_missing_node_ends_the_run_unless_fewer_are_enough(app: ClientApp, digits: Splits) -> None:
    strategy = OneShot("random", images_per_class=1)
    with InProcessGrid(app, CLIENTS, unavailable=[1]) as grid:
        with pytest.raises(QuorumError, match="2 valid answers, 3 are needed; rejected: node 1001"):
            collect_sets(grid, strategy, like=digits.test)
        union = collect_sets(grid, strategy, like=digits.test, quorum=0.5)
    assert union.partitions == (0, 2)
    assert len(union.rejections) == 1


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: OneShot("dmm"), "unknown method 'dmm'; did you mean 'dm'"),
        (lambda: OneShot("dm:clmap=true"), "clmap"),
        (lambda: OneShot(images_per_class="5"), "images_per_class must be a whole number at least 1, got '5'"),
        (lambda: OneShot(bits=7), "bits must be one of 2, 4, 8, 16, 32, got 7"),
        (lambda: OneShot(fit_to_budget=True), "needs a byte_budget"),
        (lambda: FedAvg(LocalTraining(epochs=0)), "epochs must be a whole number at least 1"),
        (lambda: FedAvg(local=3), "local must be a LocalTraining"),
        (lambda: FederatedStatistics(bits=4), "bits must be one of 8, 16, 32"),
    ],
)
def test_what_is_wrong_is_said_where_it_is_written(make, reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        make()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"networks": NETWORK}, "unknown setting 'networks'; did you mean 'network'"),
        ({"rounds": 0}, "rounds must be a whole number at least 1"),
        ({"train": "quik"}, "quik"),
        ({"network": 3}, "network"),
        ({"quorum": 2.0}, "quorum must be"),
    ],
)
def test_so_are_options_of_a_run(options: dict, reason: str, digits: Splits, app: ClientApp) -> None:
    with InProcessGrid(app, CLIENTS) as grid, pytest.raises(SettingsError, match=reason):
        run_server(grid, OneShot("random"), test=digits.test, **options)
