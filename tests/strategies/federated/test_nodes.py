"""Nodes as they come: named or not, twice, late, restarted, with large messages; and somebody else's meter."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.clientapp.mod import message_size_mod

from builders import blobs
from fedcl_distill.errors import SettingsError
from fedcl_distill.training import TrainConfig
from strategies.federated import InProcessGrid, MeteredGrid, make_client_app, run_server
from strategies.federated.aggregation import ReplyCollector
from strategies.federated.client import partition_of
from strategies.federated.grid import sent_bytes
from strategies.federated.internals import PARTITION_ID_KEY
from strategies.federated.requests import round_record

DATA = blobs((6,), classes=3, per_class=20, value_range=(-3.0, 4.0))
TRAIN = {"network": "mlp:width=8", "wait_seconds": 0.0, "train": TrainConfig(epochs=1)}


def context(node_id: int = 7, **config: object) -> Context:
    return Context(1, node_id, config, RecordDict(), {})  # type: ignore[arg-type]


def named(name: object) -> Context:
    return context(**{PARTITION_ID_KEY: name})


def test_a_node_is_known_by_its_partition_its_text_or_its_id():
    assert partition_of(named(3)) == partition_of(named("3")) == 3
    assert partition_of(context(2**31 + 5)) == 5


@pytest.mark.parametrize("name", ["three", "-1", "1.0", -1, 2**31, True, 1.0, ""])
def test_a_partition_is_a_whole_number(name):
    with pytest.raises(SettingsError, match="partition-id must be a whole number"):
        partition_of(named(name))


class _Renamed(InProcessGrid):
    """A grid whose nodes have other partition ids than their place; None for none."""

    def __init__(self, app, names):
        super().__init__(app, len(names))
        for held, name in zip(self._contexts.values(), names, strict=True):
            held.node_config.pop(PARTITION_ID_KEY)
            if name is not None:
                held.node_config[PARTITION_ID_KEY] = name


def parts_of(app_context: Context):
    return DATA.subset(torch.arange(app_context.node_id - 1000, len(DATA), 3))


@pytest.mark.parametrize("strategy", ["fedavg", "one-shot:distiller=random,images_per_class=2", "scaffold"])
@pytest.mark.parametrize("names", [[None, None, None], ["0", "1", "2"], [None, 1, "2"]])
def test_a_run_needs_no_partition_ids(strategy, names):
    with _Renamed(make_client_app(parts_of), names) as grid:
        result = run_server(grid, strategy, test=DATA, **TRAIN)
    assert result.rejections == ()
    assert len(result.ledger.as_record()) == 3


def test_two_nodes_of_one_name_both_count_and_that_is_told(caplog):
    with _Renamed(make_client_app(parts_of), [1, 1, 2]) as grid, caplog.at_level(logging.WARNING):
        result = run_server(grid, "one-shot:distiller=random,images_per_class=2", test=DATA, **TRAIN)
    assert len(result.synthetic) == 3 * 3 * 2
    assert "nodes 1000 and 1001 both say that they hold partition 1" in caplog.text
    assert len(result.ledger.as_record()) == 2


class _Late(InProcessGrid):
    """Hands the first answer to the first question over again in every later round, before the others."""

    late: Message | None = None

    def send_and_receive(self, messages, *, timeout=None):
        replies = list(super().send_and_receive(messages, timeout=timeout))
        if self.late is None:
            self.late = replies[0]
            return replies
        return [self.late, *replies]


@pytest.mark.parametrize("strategy", ["fedavg", "scaffold", "topk:fraction=0.5"])
def test_a_late_answer_of_an_old_round_is_turned_away_and_changes_nothing(strategy):
    def run(kind):
        with kind(make_client_app(parts_of), 3) as grid:
            return run_server(grid, strategy, test=DATA, rounds=3, **TRAIN)

    plain, late = run(InProcessGrid), run(_Late)
    assert [one.reason for one in late.rejections] == ["answers nothing that was asked"] * 2
    for name, array in plain.weights.items():
        np.testing.assert_array_equal(array.numpy(), late.weights[name].numpy())


def test_flowers_own_message_size_agrees_with_our_ledger(caplog):
    """Its mod counts array data and settings; our ledger also counts the objects around them, and is never below."""
    app = make_client_app(parts_of, mods=[message_size_mod])
    with InProcessGrid(app, 3) as grid, caplog.at_level(logging.INFO, logger="flwr"):
        result = run_server(grid, "fedavg", test=DATA, **{**TRAIN, "network": "mlp:width=256"})
    told = [record.getMessage() for record in caplog.records if "message size" in record.getMessage()]
    up, down = ([int(one.split()[-2]) for one in told if word in one] for word in ("Outgoing", "Incoming"))
    ours = {way: [entry for entry in result.ledger.entries if entry.direction == way] for way in ("up", "down")}
    assert len(up) == len(down) == len(ours["up"]) == len(ours["down"]) == 3
    for theirs, entry in zip(up + down, ours["up"] + ours["down"], strict=True):
        assert entry.arrays <= theirs <= entry.sent <= theirs + 4000
        assert entry.sent < 1.02 * theirs


@pytest.mark.parametrize("megabytes", [51, pytest.param(201, marks=pytest.mark.slow)])
def test_a_message_beyond_flowers_chunks_is_counted_and_delivered_whole(megabytes):
    values = np.random.default_rng(0).random(megabytes * 2**18, np.float32)  # equal chunks would count once, as sent
    values[-1] = 7.0

    def answer(message: Message, _: Context) -> Message:
        assert message.content["large"]["values"].numpy()[-1] == 7.0
        return Message(message.content, reply_to=message)

    with InProcessGrid(answer, 1) as grid:  # type: ignore[arg-type]
        metered, collector = MeteredGrid(grid), ReplyCollector(1, wait_seconds=0.0)
        content = RecordDict({"config": round_record(1), "large": ArrayRecord({"values": Array(values)})})
        (reply,) = metered.send_and_receive(collector.ask(metered, content, "train"))
    assert reply.content["large"]["values"].numpy()[-1] == 7.0
    assert metered.ledger.total("up") == metered.ledger.total("down") == sent_bytes(content)[0] > megabytes * 2**20
