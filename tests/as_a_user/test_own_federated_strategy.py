"""A strategy of a user's own, with a client step of its own, in one file: this one."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from fedcl_distill.data import Splits, partition
from fedcl_distill.errors import SettingsError
from fedcl_distill.registry import describe
from fedcl_distill.settings import Count, settings
from strategies.federated import (
    STRATEGIES,
    ClientStep,
    FederatedStrategy,
    InProcessGrid,
    QuorumError,
    ServerContext,
    make_client_app,
    register_strategy,
    run_server,
)
from strategies.federated.requests import Task
from strategies.federated.strategy import TrainOnly, registered_steps


def count(task: Task) -> RecordDict:
    least = int(task.content["config"]["at-least"])
    return RecordDict({"counts": ConfigRecord({"classes": [n for n in task.data.class_counts.tolist() if n >= least]})})


COUNTED = ClientStep("count", count)


@settings
class Count_(FederatedStrategy):
    """How many samples of each class all nodes have together."""

    at_least: Count = 1

    client_steps = (COUNTED,)

    def server(self, context: ServerContext) -> CountServer:
        return CountServer(self, context)


class CountServer(TrainOnly):
    def __init__(self, asked: Count_, context: ServerContext) -> None:
        self.asked, self.context, self.total = asked, context, 0
        LAST.append(self)

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        content = RecordDict({"config": ConfigRecord({"at-least": self.asked.at_least})})
        nodes = self.context.collector.wait_for_nodes(grid)
        messages = [Message(content, node, COUNTED.kind) for node in nodes]
        self.context.collector.expect_answers(messages)
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        read = self.context.collector.iter_replies(server_round, replies, lambda one: one["counts"]["classes"])
        self.total = sum(sum(answer.value) for answer in read)
        return None, None

    def summary(self) -> None:
        pass


LAST: list[CountServer] = []


@pytest.fixture
def registered():
    register_strategy("count")(Count_)
    yield
    del STRATEGIES._entries["count"]


def test_it_runs_by_object_and_by_name_without_touching_another_file(registered: None, digits: Splits) -> None:
    parts = partition(digits.train, "iid", clients=3, seed=0)
    app = make_client_app(lambda context: parts[context.node_config["partition-id"]])
    with InProcessGrid(app, 3) as grid:
        for strategy in (Count_(), "count", {"name": "count", "at_least": 1}):
            run_server(grid, strategy, test=digits.test, network="mlp:width=4")
            assert LAST[-1].total == len(digits.train)
        run_server(grid, "count:at_least=1000", test=digits.test, network="mlp:width=4")
    assert LAST[-1].total == 0


def test_nodes_without_it_refuse(digits: Splits) -> None:
    with (
        InProcessGrid(make_client_app(lambda context: digits.train), 1) as grid,
        pytest.raises(QuorumError, match="No train function registered with name 'count'"),
    ):
        run_server(grid, Count_(), test=digits.test, network="mlp:width=4")


def test_two_meanings_of_one_message_are_refused(registered: None) -> None:
    @settings
    class Other(FederatedStrategy):
        client_steps = (ClientStep("count", lambda task: RecordDict()),)

        def server(self, context: ServerContext) -> CountServer:
            raise NotImplementedError

    register_strategy("other")(Other)
    try:
        with pytest.raises(SettingsError, match="in another way"):
            list(registered_steps())
    finally:
        del STRATEGIES._entries["other"]


@pytest.mark.parametrize("name", sorted(set(STRATEGIES.names()) - {"count"}))
def test_every_strategy_is_its_plain_form(name: str) -> None:
    built = STRATEGIES.build(name)
    assert STRATEGIES.build(built) is built
    assert describe(built) == name
    assert built == STRATEGIES[name].build()


def test_settings_of_parts_go_by_their_own_names() -> None:
    built = STRATEGIES.build("fedprox:mu=0.5,epochs=3,learning_rate=0.1")
    assert (built.mu, built.local.epochs, built.local.learning_rate) == (0.5, 3, 0.1)
    assert built.local.momentum == 0.9
    plain = {"name": "fedprox", "local": {"name": "LocalTraining", "epochs": 3, "learning_rate": 0.1}, "mu": 0.5}
    assert describe(built) == plain
    assert STRATEGIES.build(plain) == built
