"""DynaFed: FedAvg by itself until the path is long enough, then a set that depends on the path alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fedcl_distill.context import SetupContext
from fedcl_distill.data import LabelledData, partition
from fedcl_distill.errors import SettingsError
from fedcl_distill.network_sources import GivenTrajectory
from fedcl_distill.networks import Architecture, Network
from fedcl_distill.training import TrainConfig, accuracy, fit
from federations import data_and_test, quick, run, serve
from simulations.settings import FederatedSettings
from strategies.federated import InProcessGrid, make_client_app
from strategies.federated.client import partition_of
from strategies.federated.dynafed import DynaFed, Replayer, without_content

OPTIONS = {"collect_rounds": 2, "segment": 1, "student_steps": 3, "distil_steps": 3, "finetune_epochs": 2}


def _path(train: LabelledData, snapshots: int = 4) -> tuple[Network, ...]:
    path = []
    for epochs in range(snapshots):
        network = Architecture.parse("mlp:width=16").build(train.sample_shape, train.num_classes, seed=0)
        fit(
            network, train.inputs(), train.labels, TrainConfig(epochs, 0.05, batch_size=32, schedule="constant"), seed=0
        )
        path.append(network)
    return tuple(path)


def test_it_is_fedavg_until_the_path_is_long_enough():
    average, dynafed = (
        run(quick(strategy=name, rounds=4, strategy_settings=own))
        for name, own in (("fedavg", {}), ("dynafed", OPTIONS))
    )
    accuracies = [[one.accuracy for one in result.rounds] for result in (average, dynafed)]
    assert accuracies[0][:2] == accuracies[1][:2]
    assert [one.bytes_up for one in average.rounds] == [one.bytes_up for one in dynafed.rounds]
    assert any(a.data != b.data for a, b in zip(average.weights.values(), dynafed.weights.values(), strict=True))
    assert dynafed.synthetic.class_counts.tolist() == [2, 2, 2]


def test_the_set_hangs_on_the_path_alone():
    train, test = data_and_test()
    options = DynaFed(segment=1, student_steps=3, distil_steps=3)
    path = _path(train)
    other = test.subset(torch.arange(3))
    one, again = (Replayer(options, like, 2, seed=0).distil(path) for like in (test, other))
    assert torch.equal(one.inputs(), again.inputs())
    assert not torch.equal(one.inputs(), Replayer(options, test, 2, seed=0).distil(path[:3]).inputs())
    assert one.provenance["data"] == "nothing"


def test_a_model_learns_from_the_set_what_only_the_path_knew():
    train, test = data_and_test()
    path = _path(train)
    before = accuracy(path[0], test)
    options = DynaFed(segment=3, collect_rounds=3, student_steps=10, distil_steps=60, student_learning_rate=0.1)
    synthetic = Replayer(options, test, 4, seed=0).distil(path)
    fit(path[0], synthetic.inputs(), synthetic.labels, TrainConfig(30, 0.1), seed=0)
    assert accuracy(path[0], test) > max(before, 0.5) + 0.2


def test_on_digits_divided_unevenly_it_is_ahead_once_there_is_a_set(digits):
    parts = partition(digits.train, "dirichlet:0.1", 10, seed=0)
    app = make_client_app(lambda context: parts[partition_of(context)])
    settings = FederatedSettings(
        clients=10,
        rounds=4,
        architecture="mlp:width=64",
        local_learning_rate=0.05,
        local_epochs=3,
        images_per_class=5,
        wait_seconds=0.0,
    )
    reached = []
    for strategy, own in (("fedavg", {}), ("dynafed", {"collect_rounds": 3, "distil_steps": 30})):
        settings = replace(settings, strategy=strategy, strategy_settings=own)
        with InProcessGrid(app, 10) as nodes:
            reached.append([one.accuracy for one in serve(nodes, settings, digits.test).rounds])
    assert reached[0][:3] == reached[1][:3]
    assert reached[1][3] > reached[0][3] + 0.02


def test_views_are_pieces_of_the_path():
    train, _ = data_and_test()
    path = _path(train)
    supply = GivenTrajectory(path, 2).prepare(SetupContext(train, 0, torch.device("cpu")))
    starts = set()
    for seed in range(20):
        drawn = supply.draw(0, seed)
        start = [i for i, one in enumerate(path) if torch.equal(one.classifier.weight, drawn.network.classifier.weight)]
        starts.update(start)
        assert torch.equal(path[start[0] + 2].classifier.weight, drawn.target_network.classifier.weight)
    assert starts == {0, 1}
    with pytest.raises(SettingsError, match="4 snapshots has no two that are 4 apart"):
        GivenTrajectory(path, 4)


def test_data_that_say_nothing_have_the_kind_and_no_content():
    _, test = data_and_test((1, 8, 8))
    nothing = without_content(test, 2)
    assert nothing.class_counts.tolist() == [2, 2, 2]
    assert nothing.samples.unique().tolist() == [0.0]
    assert (nothing.normalisation, nothing.allow_hflip) == (test.normalisation, test.allow_hflip)


@pytest.mark.parametrize(
    "settings", [{"collect_rounds": 4}, {"segment": 0}, {"segment": 9}, {"finetune_learning_rate": 0.0}, {"other": 1}]
)
def test_bad_settings(settings):
    with pytest.raises(SettingsError):
        run(quick(strategy="dynafed", rounds=4, strategy_settings={**OPTIONS, **settings}))
