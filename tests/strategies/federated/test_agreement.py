"""Sites that name, order and measure their data in their own way get what one list for all gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from builders import blobs
from fedcl_distill.data import DataSpec, LabelledData, Normalisation, conform, from_arrays
from fedcl_distill.errors import SettingsError
from fedcl_distill.privacy import PrivacyBudget
from fedcl_distill.training import TrainConfig
from strategies.federated import InProcessGrid, QuorumError, make_client_app, run_server
from strategies.federated.agreement import Moments, Statement, common_spec
from strategies.federated.client import partition_of

QUICK = TrainConfig(epochs=1)
CLASSES = ("ape", "bee", "cat")
TRAIN, TEST = (
    blobs((6,), classes=3, per_class=count, seed=seed, value_range=(-3.0, 4.0)).with_spec(
        class_names=CLASSES, normalisation=Normalisation((0.5,) * 6, (0.5,) * 6)
    )
    for seed, count in ((0, 24), (1, 10))
)
STRATEGIES = {
    "one-shot:distiller=random,images_per_class=3": {},
    "one-shot:distiller=dm,images_per_class=1,steps=3": {},
    "feddm:distiller=dm,images_per_class=1,steps=3": {},
    "statistics:views=2,architecture=mlp,images_per_class=2,steps=3": {},
    "statistics:views=2,architecture=mlp,images_per_class=2,steps=3,bits=32,secure=true": {},
    "feature-sums": {"network": None},
    "fedavg": {"rounds": 2},
    "fedprox:mu=0.1": {},
    "scaffold": {"rounds": 2},
    "topk:fraction=0.1": {"rounds": 2},
    "quantised:bits=4": {"rounds": 2},
    "one-shot-average:epochs=2": {},
    "one-shot-ensemble:epochs=2,distiller=random": {},
    "trimmed-mean": {},
}


def part(number: int, of: LabelledData = TRAIN) -> LabelledData:
    return of.subset(torch.arange(number, len(of), 4))


def renamed(data: LabelledData, names: tuple[str, ...]) -> LabelledData:
    """The same samples from a reader that lists classes in this order."""
    labels = torch.tensor([names.index(data.class_names[label]) for label in data.labels])
    return replace(data, labels=labels, spec=replace(data.spec, class_names=names))


def run(strategy, sites, test=TEST, **options):
    app = make_client_app(lambda context: sites[partition_of(context)])
    options = {"network": "mlp:width=8", "wait_seconds": 0.0, "train": QUICK, **options}
    with InProcessGrid(app, len(sites)) as grid:
        return run_server(grid, strategy, test=test, **options)


@pytest.mark.parametrize(("strategy", "options"), STRATEGIES.items(), ids=[name.split(":")[0] for name in STRATEGIES])
def test_another_order_of_classes_changes_nothing(strategy, options):
    alike = [part(number) for number in range(4)]
    orders = (CLASSES, ("cat", "ape", "bee"), ("bee", "cat", "ape"), ("cat", "bee", "ape"))
    one = run(strategy, alike, **options)
    other = run(strategy, [renamed(*both) for both in zip(alike, orders, strict=True)], **options)
    assert other.rejections == ()
    assert other.accuracy == one.accuracy
    for name, array in one.weights.items():
        np.testing.assert_array_equal(array.numpy(), other.weights[name].numpy())


def test_a_site_without_a_class_need_not_list_it():
    lacks = part(1)
    lacks = lacks.subset((lacks.labels != 1).nonzero().flatten())
    listed = [part(0), lacks]
    unlisted = [part(0), renamed(lacks, ("cat", "ape"))]
    assert run("fedavg", unlisted).accuracy == run("fedavg", listed).accuracy


def test_what_cannot_be_mapped_is_turned_away_with_the_reason():
    stranger = renamed(part(1).with_spec(class_names=("ape", "bee", "dog")), ("ape", "dog", "bee"))
    for strategy in ("fedavg", "scaffold", "one-shot:distiller=random"):
        with pytest.raises(QuorumError, match="class 'dog' is none of those agreed on, 'ape', 'bee', 'cat'"):
            run(strategy, [part(0), stranger])
    result = run("fedavg", [part(0), stranger], quorum=0.5)
    assert [one.partition for one in result.rejections] == [None]


def test_a_budget_keeps_the_reason_at_home():
    def app(context):
        return part(1).with_spec(class_names=("ape", "bee", "dog"))

    node = make_client_app(app, load_budget=lambda _: PrivacyBudget("/nonexistent/ledger", 1.0, 1e-5))
    with InProcessGrid(node, 1) as grid, pytest.raises(QuorumError) as caught:
        run_server(
            grid,
            "statistics:epsilon=1,views=2,kind=direction",
            test=from_arrays(torch.zeros(3, 4, 4, dtype=torch.uint8), list(CLASSES)),
            network="mlp:width=8",
            wait_seconds=0.0,
        )
    assert "dog" not in str(caught.value)


def test_moments_add_up_to_those_of_all_data():
    generator = torch.Generator().manual_seed(0)
    columns = torch.tensor([1e6, 0.0, 1e-4])
    whole = from_arrays(columns + torch.randn(90, 3, generator=generator) * torch.tensor([1.0, 1e3, 1e-5]), [0, 1] * 45)
    parts = [whole.subset(rows) for rows in torch.split(torch.arange(90), [1, 2, 40, 47])]
    total = Moments.of(parts[0])
    for one in parts[1:]:
        total = total + Moments.of(one)
    assert total.normalisation.mean == pytest.approx(whole.normalisation.mean, rel=1e-6)
    assert total.normalisation.std == pytest.approx(whole.normalisation.std, rel=1e-6)
    assert (total.low, total.high) == (float(whole.samples.min()), float(whole.samples.max()))


def sites_of_their_own(count: int = 4) -> list[LabelledData]:
    """Tables whose reader measured them, with columns and classes in an order of their own."""
    columns = tuple("abcdef")
    found = []
    for number in range(count):
        data, turn = part(number), number % 3
        order = columns[turn:] + columns[:turn]
        samples = data.samples[:, [columns.index(name) for name in order]]
        names = CLASSES[turn:] + CLASSES[:turn]
        labels = [data.class_names[label] for label in data.labels]
        found.append(from_arrays(samples, labels, class_names=names, feature_names=order))
    return found


@pytest.mark.parametrize("strategy", ["fedavg", "one-shot:distiller=random,images_per_class=3", "statistics:steps=3"])
def test_sites_that_measured_their_own_agree_and_learn_as_from_the_pooled_specification(strategy):
    own = from_arrays(TEST.samples, TEST.labels, class_names=CLASSES, feature_names=tuple("abcdef"))
    agreed = run(strategy, sites_of_their_own(), own, spec="agree")
    pooled = from_arrays(TRAIN.samples, TRAIN.labels, class_names=CLASSES, feature_names=tuple("abcdef")).spec
    given = run(strategy, [conform(one, pooled) for one in sites_of_their_own()], own, spec=pooled)
    assert agreed.rejections == given.rejections == ()
    assert agreed.accuracy == pytest.approx(given.accuracy, abs=0.04)
    for name, array in given.weights.items():
        np.testing.assert_allclose(agreed.weights[name].numpy(), array.numpy(), atol=2e-3)


def test_a_class_that_only_some_know_and_the_server_does_not():
    named = [replace(part(0).spec, class_names=("ape", "cat", "dog")), part(1).spec]
    statements = [Statement.of(part(number).with_spec(class_names=one.class_names)) for number, one in enumerate(named)]
    assert common_spec(statements, TEST).class_names == ("ape", "bee", "cat", "dog")


def test_two_spellings_of_one_class_are_no_two_classes():
    with pytest.raises(SettingsError, match="'Ape' and 'ape'"):
        common_spec([Statement.of(part(0).with_spec(class_names=("Ape", "bee", "cat")))], TEST)


def test_a_node_with_a_budget_states_names_alone():
    seen = []

    def listening(message, context):
        reply = app(message, context)
        seen.append(reply)
        return reply

    app = make_client_app(lambda _: part(0), load_budget=lambda _: PrivacyBudget("/nonexistent/ledger", 1.0, 1e-5))
    with InProcessGrid(listening, 1) as grid, pytest.raises(SettingsError, match="give the run a specification"):
        run_server(grid, "fedavg", test=TEST, spec="agree", network="mlp:width=8", wait_seconds=0.0)
    (answer,) = seen
    assert set(answer.content) == {"statement", "metrics"}
    assert answer.content["metrics"]["num-examples"] == 1
    assert answer.content["statement"]["mean"] == [0.0] * 6


@pytest.mark.parametrize(
    ("site", "reason"),
    [
        (from_arrays(torch.rand(6, 5), ["ape", "bee", "cat"] * 2), r"shape \(5,\)"),
        (from_arrays(torch.rand(6, 6), [0, 1, 2] * 2), "names on one side and numbers"),
    ],
)
def test_who_does_not_fit_is_turned_away_before_anybody_learns(site, reason):
    with pytest.raises(QuorumError, match=reason):
        run("fedavg", [part(0), site], spec="agree")
    result = run("fedavg", [part(0), site], spec="agree", quorum=0.5)
    assert {one.server_round for one in result.rejections} == {0, 1}
    assert isinstance(result.rejections[0].reason, str)


def test_a_specification_of_ones_own_is_what_nodes_are_held_to():
    wide = DataSpec((6,), (*CLASSES, "dog"), TRAIN.normalisation, (-3.0, 4.0))
    result = run("one-shot:distiller=random,images_per_class=2", [part(0), part(1)], spec=wide)
    assert result.synthetic.class_names == wide.class_names
    assert result.clients_per_class == (2, 2, 2, 0)


def test_a_result_says_first_who_was_turned_away():
    stranger = part(1).with_spec(class_names=("ape", "bee", "dog"))
    first, second, *_ = str(run("fedavg", [part(0), stranger], quorum=0.5)).splitlines()
    assert first == "REJECTED: 1 answers of 1 nodes were not used"
    assert "class 'dog' is none" in second
    assert str(run("fedavg", [part(0)])).startswith("accuracy ")
