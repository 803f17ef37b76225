"""Sums of features on Flower: the head is that of all data together, whoever holds them, for a few bytes."""

import pytest
import torch

from fedcl_distill import load_data
from fedcl_distill.data import LabelledData, Normalisation, partition
from fedcl_distill.errors import SettingsError
from fedcl_distill.features import HEADS, LDA, Ridge, Within, decode_sums, encode_sums, measure_data
from fedcl_distill.privacy import PrivacyBudget
from fedcl_distill.registry import describe
from strategies.federated import (
    STRATEGIES,
    FedAvg,
    FederatedFeatures,
    InProcessGrid,
    OneShot,
    PrivacyOptions,
    QuorumError,
    SecureOptions,
    make_client_app,
    run_server,
)


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


def test_a_byte_budget_is_what_each_node_keeps_to(digits):
    train, test = digits
    parts = partition(train, "dirichlet:0.1", clients=5, seed=1)
    overhead = 900  # of a message around its payload
    for budget in (700, 1500, 10_000):
        last = run(FederatedFeatures(byte_budget=budget), parts, test).rounds[-1]
        sent = [encode_sums(measure_data(part, Within(budget)), 4) for part in parts]
        assert last.bytes_up <= sum(map(len, sent)) + 5 * overhead
        assert max(map(len, sent)) <= budget
        first, *others = (decode_sums(one, test.class_names, 64) for one in sent)
        expected = LDA().fit(sum(others, first)).accuracy(test.samples, test.labels)
        assert last.accuracy == pytest.approx(expected, abs=1e-6)
    with pytest.raises(QuorumError, match="do not hold the means"):
        run(FederatedFeatures(byte_budget=50), parts, test)
    with pytest.raises(SettingsError, match="leave second_bits out"):
        FederatedFeatures(byte_budget=900, second_bits=8)


@pytest.mark.parametrize("name", ["fedncm", "fed3r", "afl", "fedcgs", "fedpft"])
def test_published_strategies_by_name_are_those_of_all_data_together(digits, name):
    train, test = digits
    strategy = STRATEGIES.build(name)
    assert isinstance(strategy, FederatedFeatures)
    assert describe(strategy) == name
    head = HEADS.build(strategy.head).fit(measure_data(train, strategy.storage))
    result = run(strategy, partition(train, "classes:2", clients=5, seed=1), test)
    assert result.rounds[-1].accuracy == pytest.approx(head.accuracy(test.samples, test.labels), abs=0.006)


def test_features_of_another_backbone_are_refused_by_node_and_server(digits):
    train, test = digits
    ours, theirs = test.with_spec(backbone="ours"), [train.with_spec(backbone="theirs")]
    for strategy, network in ((FederatedFeatures(), None), (FedAvg(), "linear"), (OneShot("random"), None)):
        with pytest.raises(QuorumError, match="backbone 'theirs'; agreed on are features of the backbone 'ours'"):
            run(strategy, theirs, ours, network=network)
    with pytest.raises(QuorumError, match="no backbone that is named; agreed on"):
        run(FederatedFeatures(), [train], ours)
    with pytest.raises(QuorumError, match="backbone 'theirs'; agreed on are of no backbone"):
        run(FederatedFeatures(), theirs, test)
    same = [train.with_spec(backbone="ours")]
    assert run(FederatedFeatures(), same, ours).rounds[-1].accuracy > 0.8


def test_a_client_that_leaves_takes_its_samples_along(digits):
    """What is left of exact sums is, to the last digit that counts, what the others would have made without it."""
    train, _ = digits
    parts = partition(train, "dirichlet:0.5", clients=4, seed=2)
    sent = [decode_sums(encode_sums(measure_data(one), 32), train.class_names, 64) for one in parts]
    left = LDA().fit(sum(sent[1:], sent[0]) - sent[2])
    never = LDA().fit(sent[0] + sent[1] + sent[3])
    torch.testing.assert_close(left.weight, never.weight, rtol=1e-3, atol=1e-3)
    assert torch.equal(left.predict(train.samples), never.predict(train.samples))


def test_sums_in_secret_are_the_sums(digits):
    train, test = digits
    parts = partition(train, "dirichlet:0.5", clients=4, seed=2)
    options = {"storage": "projected:dimensions=20", "bits": 32}
    open_ = run(FederatedFeatures(**options), parts, test).rounds[-1].accuracy
    secret = run(FederatedFeatures(**options, aggregation=SecureOptions(True, max_samples=500)), parts, test)
    assert secret.rounds[-1].accuracy == pytest.approx(open_, abs=0.004)
    with pytest.raises(SettingsError, match=r"low-rank.* does not add up"):
        FederatedFeatures(aggregation=SecureOptions(True))
    with pytest.raises(SettingsError, match=r"within.* does not add up"):
        FederatedFeatures(byte_budget=900, privacy=PrivacyOptions(1.0, trust="server"))


@pytest.mark.parametrize("trust", ["server", "nodes", "node"])
def test_a_release_with_noise_whoever_is_trusted(digits, trust):
    train, test = digits
    parts = partition(train, "iid", clients=4, seed=0)
    strategy = FederatedFeatures(
        "means",
        "ncm",
        aggregation=SecureOptions(trust == "nodes", max_samples=100),
        privacy=PrivacyOptions(30.0, trust=trust, disjoint_clients=True),
    )
    assert run(strategy, parts, test).rounds[-1].accuracy > 0.7
    with pytest.raises(SettingsError, match="trust=nodes"):
        FederatedFeatures(
            "means", aggregation=SecureOptions(trust != "nodes"), privacy=PrivacyOptions(1.0, trust=trust)
        )


@pytest.mark.parametrize(("trust", "pays"), [("nodes", True), ("node", True), ("server", False)])
def test_a_node_with_a_budget_pays_for_its_release_and_gives_nothing_exact(digits, tmp_path, trust, pays):
    train, test = digits
    parts = partition(train, "iid", clients=3, seed=0)
    budgets = [PrivacyBudget(tmp_path / f"{at}.json", 2.0, 1e-5) for at in range(3)]
    app = make_client_app(
        lambda context: parts[context.node_config["partition-id"]],
        load_budget=lambda context: budgets[context.node_config["partition-id"]],
    )
    strategy = FederatedFeatures(
        "means",
        aggregation=SecureOptions(trust == "nodes", max_samples=200),
        privacy=PrivacyOptions(1.0, 1e-6, trust=trust, disjoint_clients=True),
    )
    with InProcessGrid(app, nodes=3) as grid:
        if pays:
            run_server(grid, strategy, test=test, clients=3)
            assert [len(one.releases()) for one in budgets] == [1, 1, 1]
        else:
            with pytest.raises(QuorumError, match="exact_features"):
                run_server(grid, strategy, test=test, clients=3)
