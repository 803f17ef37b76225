"""Sums of features on Flower: the head is that of all data together, whoever holds them, for a few bytes."""

import pytest
import torch

from fedcl_distill import load_data
from fedcl_distill.data import LabelledData, Normalisation, partition
from fedcl_distill.errors import SettingsError
from fedcl_distill.features import LDA, Ridge, measure_data
from strategies.federated import FedAvg, FederatedFeatures, InProcessGrid, QuorumError, make_client_app, run_server


def vectors(data):
    """Unit-length pixels as feature vectors."""
    rows = torch.nn.functional.normalize(data.unit().flatten(1), dim=1)
    plain = Normalisation((0.0,) * 64, (1.0,) * 64)
    return LabelledData.from_tensors(
        rows, data.labels, class_names=data.class_names, normalisation=plain, value_range=(-1.0, 1.0)
    )


@pytest.fixture(scope="module")
def digits():
    splits = load_data("digits")
    return vectors(splits.train), vectors(splits.test)


def run(strategy, parts, test, **options):
    app = make_client_app(lambda context: parts[context.node_config["partition-id"]])
    with InProcessGrid(app, nodes=len(parts)) as grid:
        return run_server(grid, strategy, test=test, clients=len(parts), **options)


@pytest.mark.parametrize("how", ["iid", "dirichlet:0.1", "classes:2"])
def test_whole_matrices_give_the_head_of_all_data_however_they_are_divided(digits, how):
    train, test = digits
    central = Ridge().fit(measure_data(train)).accuracy(test.samples, test.labels)
    result = run(FederatedFeatures("full", "ridge", bits=32), partition(train, how, clients=5, seed=1), test)
    assert result.rounds[-1].accuracy == pytest.approx(central, abs=0.003)


def test_a_few_directions_come_close_for_a_seventh_of_the_bytes(digits):
    train, test = digits
    parts = partition(train, "dirichlet:0.1", clients=5, seed=1)
    central = LDA().fit(measure_data(train)).accuracy(test.samples, test.labels)
    whole = run(FederatedFeatures("full", bits=32), parts, test).rounds[-1]
    few = run(FederatedFeatures("low-rank:rank=8"), parts, test).rounds[-1]
    assert few.accuracy > central - 0.03
    assert few.bytes_up < whole.bytes_up / 7


def test_a_client_without_most_classes_and_a_class_nobody_has(digits):
    train, test = digits
    parts = [train.subset(train.indices_of(label)) for label in range(9)]
    result = run(FederatedFeatures(), parts, test)
    assert result.rounds[-1].class_accuracies[9] == 0
    assert min(result.rounds[-1].class_accuracies[:9]) > 0.7


def test_its_head_is_where_fine_tuning_begins(digits):
    """The head is the run's network, so that FedAvg goes on from it."""
    train, test = digits
    parts = partition(train, "dirichlet:0.1", clients=4, seed=0)
    head = run(FederatedFeatures(), parts, test)
    tuned = run(FedAvg(), parts, test, network="linear", initial=head.weights)
    scratch = run(FedAvg(), parts, test, network="linear")
    assert tuned.rounds[-1].accuracy > scratch.rounds[-1].accuracy


def test_images_are_refused_with_the_way_out(digits):
    splits = load_data("digits")
    with pytest.raises(SettingsError, match="backbone"):
        run(FederatedFeatures(), [splits.train], splits.test)
    with pytest.raises(QuorumError, match="through a backbone"):
        run(FederatedFeatures(), [splits.train], digits[1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"storage": "lowrank"}, "did you mean 'low-rank'"),
        ({"head": "svm"}, "unknown head"),
        ({"head": "naive-bayes"}, "linear head"),
        ({"bits": 3}, "bits must be one of"),
        ({"storage": "low-rank:rank=0"}, "rank must be"),
    ],
)
def test_settings_are_checked_on_construction(settings, message):
    with pytest.raises(SettingsError, match=message):
        FederatedFeatures(**settings)
