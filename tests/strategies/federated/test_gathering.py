"""Many sets become one: bounded, weighted, and with a report of what is covered."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from flwr.app import Message, RecordDict

from fedcl_distill.errors import SettingsError
from federations import data_and_test, honest_app, quick, run
from strategies.federated import InProcessGrid, QuorumError, ReplyCollector
from strategies.federated.grid import MeteredGrid


def test_merging_bounds_the_set_and_keeps_the_model_good():
    merge = {"merge_to": 3, "merge_at": 8, "merge_method": "herding"}
    result = run(quick(clients=20, strategy_settings=merge))
    assert result.synthetic.class_counts.tolist() == [3, 3, 3]
    assert len(run(quick(clients=20)).synthetic) == 97
    assert result.clients_per_class == (19, 19, 19)
    assert result.accuracy > 0.9


def test_merging_distils_by_the_clients_method_unless_told():
    settings = {"method": "dm", "distil_steps": 2, "method_settings": {"architecture": "mlp:width=8"}}
    first, second = (run(quick(clients=6, **settings, strategy_settings={"merge_to": 1, "merge_at": 2})) for _ in "ab")
    assert torch.equal(first.synthetic.inputs(), second.synthetic.inputs())
    assert first.synthetic.class_counts.tolist() == [1, 1, 1]


def test_clients_count_by_their_size_where_asked():
    sizes = {"partition": "dirichlet:0.2", "images_per_class": 1}
    alike, sized = (run(quick(**sizes, strategy_settings={"size_exponent": power})) for power in (0.0, 1.0))
    assert torch.equal(alike.synthetic.inputs(), sized.synthetic.inputs())
    assert any(a.data != b.data for a, b in zip(alike.weights.values(), sized.weights.values(), strict=True))
    assert run(quick()).accuracy == run(quick(strategy_settings={"size_exponent": 1.0})).accuracy  # equal sizes


def test_a_class_that_nobody_holds_is_reported():
    result = run(quick(partition="classes:1", clients=3), unavailable=[0])
    assert sorted(result.clients_per_class) == [0, 1, 1]
    assert result.as_record()["clients_per_class"] == list(result.clients_per_class)
    assert run(quick(strategy="fedavg")).clients_per_class is None


def test_answers_are_heard_one_by_one_and_not_kept():
    settings = quick()
    train, _ = data_and_test()
    content = RecordDict({"config": settings.distillation.request(settings.seed).to_record(1)})
    with InProcessGrid(honest_app(settings, train), 4) as nodes:
        grid, collector = MeteredGrid(nodes), ReplyCollector(4)
        messages = [Message(content, node, "train.distil") for node in range(1000, 1004)]
        collector.expect_answers(messages)
        kept: list[weakref.ref[Message]] = []
        for number, answer in enumerate(collector.listen(1, grid.send_and_receive(messages), len), start=1):
            gc.collect()
            assert [one() for one in kept] == [None] * len(kept)
            assert len([one for one in grid.ledger.entries if one.direction == "up"]) == number
            kept.append(weakref.ref(answer.message))
            del answer
    assert len(kept) == 4
    assert [facts.partition for facts in collector.facts[1]] == [0, 1, 2, 3]


def test_answers_that_are_all_there_are_heard_in_order_of_partitions():
    settings = quick()
    train, _ = data_and_test()
    content = RecordDict({"config": settings.distillation.request(settings.seed).to_record(1)})
    with InProcessGrid(honest_app(settings, train), 4) as grid:
        collector = ReplyCollector(4)
        messages = [Message(content, node, "train.distil") for node in (1002, 1000, 1003, 1001)]
        collector.expect_answers(messages)
        replies = list(grid.send_and_receive(messages))
        assert [answer.node for answer in collector.listen(1, replies, len)] == [1000, 1001, 1002, 1003]


def test_too_few_answers_end_a_merging_run():
    with pytest.raises(QuorumError):
        run(quick(strategy_settings={"merge_to": 1}), unavailable=range(4))


@pytest.mark.parametrize(
    "settings",
    [{"merge_to": -1}, {"merge_to": 5, "merge_at": 4}, {"merge_steps": -1}, {"size_exponent": -1.0}, {"a": 1}],
)
def test_bad_settings(settings):
    with pytest.raises(SettingsError):
        run(quick(strategy_settings=settings))


def test_other_strategies_refuse_what_they_do_not_know():
    with pytest.raises(
        SettingsError, match="'fedavg': unknown setting 'merge_to'; known: augment, batch_size, client_share"
    ):
        run(quick(strategy="fedavg", strategy_settings={"merge_to": 1}))
