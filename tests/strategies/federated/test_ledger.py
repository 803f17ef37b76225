"""Bytes in the ledger against bytes that Flower's own transport objects take."""

from __future__ import annotations

import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects

from fedcl_distill.networks import Architecture
from federations import data_and_test, honest_app, quick, run
from strategies.federated import InProcessGrid, MeteredGrid
from strategies.federated.answers import weights_of
from strategies.federated.grid import ByteLedger, Entry


class _Listening(InProcessGrid):
    """Keeps, for every message, what Flower would upload: the objects of its content."""

    heard: list[tuple[int, str, int]]

    def send_and_receive(self, messages, *, timeout=None):
        return self.pull_messages(self.push_messages(messages))

    def push_messages(self, messages):
        messages = list(messages)
        for message in messages:
            self.heard.append((message.metadata.dst_node_id, "down", _uploaded(message)))
        return super().push_messages(messages)

    def pull_messages(self, message_ids):
        replies = list(super().pull_messages(message_ids))
        for reply in replies:
            self.heard.append((reply.metadata.src_node_id, "up", _uploaded(reply)))
        return replies


def _uploaded(message: Message) -> int:
    return sum(len(one.deflate()) for one in get_all_nested_objects(message.content).values())


def test_flowers_own_fedavg_is_metered():
    settings = quick(strategy="fedavg", clients=3)
    train, _ = data_and_test()
    with _Listening(honest_app(settings, train), 3) as inner:
        inner.heard = []
        metered = MeteredGrid(inner)
        strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=3, min_available_nodes=3)
        network = Architecture.parse("mlp:width=8").build((6,), 3, seed=0)
        config = settings.local.request(settings.seed, settings.architecture).to_record(1)
        strategy.start(metered, weights_of(network), num_rounds=2, train_config=config)
    entries = metered.ledger.entries
    assert [(entry.node, entry.direction, entry.sent) for entry in entries] == inner.heard
    assert [entry.server_round for entry in entries] == [1] * 6 + [2] * 6
    assert {entry.kind for entry in entries} == {"train"}
    weights = sum(tensor.nbytes for tensor in network.state_dict().values())
    arrays = len(network.state_dict())
    assert all(entry.arrays == weights + 128 * arrays for entry in entries)


def test_totals_and_clients_add_up():
    result = run(quick(strategy="fedavg", rounds=3, clients=5))
    ledger, last = result.ledger, result.rounds[-1]
    assert last.bytes_up == ledger.total("up") == sum(ledger.by_node("up").values())
    assert last.bytes_down == ledger.total("down") == sum(ledger.by_node("down").values())
    ups = [one.bytes_up for one in result.rounds]
    assert ups == sorted(set(ups))
    assert ups[0] == 0
    assert [one["partition"] for one in ledger.as_record()] == list(range(5))


def test_models_cost_more_than_sets():
    sets, models = run(quick()), run(quick(strategy="fedavg", rounds=5))
    assert sets.rounds[-1].bytes_up < models.rounds[-1].bytes_up
    assert sets.rounds[-1].bytes_down < models.rounds[-1].bytes_down


def test_pushed_and_pulled_messages_are_metered_too():
    settings = quick(clients=2)
    train, _ = data_and_test()
    content = RecordDict({"config": settings.distillation.request(settings.seed).to_record(7)})
    with InProcessGrid(honest_app(settings, train), 2) as inner:
        metered = MeteredGrid(inner)
        ids = metered.push_messages([Message(content, node, "train.distil") for node in inner.get_node_ids()])
        assert len(list(metered.pull_messages(ids))) == 2
    assert [(e.server_round, e.direction) for e in metered.ledger.entries] == [(7, "down")] * 2 + [(7, "up")] * 2


@pytest.mark.parametrize("record", [ConfigRecord({"a": "", "b": []}), MetricRecord({}), ArrayRecord({})])
def test_empty_values_can_be_measured(record):
    from strategies.federated.grid import sent_bytes

    assert sent_bytes(RecordDict({"record": record}))[0] > 0


def test_a_client_that_came_back_under_another_node_id_is_one_client():
    entries = [Entry(1, node, "up", "train", sent, sent) for node, sent in ((9, 1), (4, 10), (7, 100), (5, 1000))]
    ledger = ByteLedger(entries, partitions={4: 0, 9: 0})
    expected = [(0, 11), (None, 1000), (None, 100)]
    assert ledger.as_record() == [{"partition": partition, "up": up, "down": 0} for partition, up in expected]
