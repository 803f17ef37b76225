"""Waiting for nodes, silence, and the order of answers."""

from __future__ import annotations

import pytest
from flwr.app import Message, RecordDict

from fedcl_distill.errors import SettingsError
from federations import data_and_test, honest_app, quick
from strategies.federated import InProcessGrid, QuorumError, ReplyCollector


class _Late(InProcessGrid):
    """Shows its nodes one by one, each time it is asked."""

    shown = 0

    def get_node_ids(self):
        self.shown += 1
        return list(super().get_node_ids())[: self.shown]


@pytest.fixture
def grid():
    settings = quick()
    train, _ = data_and_test()
    with _Late(honest_app(settings, train), 4) as grid:
        yield grid


def test_it_waits_until_all_are_there(grid, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    assert len(ReplyCollector(4, wait_seconds=60).wait_for_nodes(grid)) == 4


def test_it_goes_on_with_those_that_came_and_says_so(grid, caplog):
    assert len(ReplyCollector(4, wait_seconds=0).wait_for_nodes(grid)) == 1
    assert "going on with 1 nodes, 4 were expected" in caplog.text


def test_too_few_nodes_are_an_error(grid):
    with pytest.raises(QuorumError, match="1 nodes registered within 0 s, 2 are needed"):
        ReplyCollector(4, quorum=0.5, wait_seconds=0).wait_for_nodes(grid)


def test_silence_is_a_rejection_and_order_is_by_partition(grid):
    settings = quick()
    content = RecordDict({"config": settings.distillation.request(settings.seed).to_record(1)})
    messages = [Message(content, node, "train.distil") for node in (1003, 1001, 1000)]
    collector = ReplyCollector(3)
    collector.expect_answers(messages)
    replies = list(grid.send_and_receive(messages))
    answers = collector.iter_replies(1, [replies[0], replies[2]], lambda content: None)
    assert [answer.node for answer in answers] == [1000, 1003]
    assert [(one.node, one.reason) for one in collector.rejections] == [(1001, "no reply")]


@pytest.mark.parametrize("numbers", [(0, 0.5, 1.0), (1, -0.1, 1.0), (1, 1.1, 1.0), (1, 0.5, -1.0)])
def test_numbers_out_of_range(numbers):
    with pytest.raises(SettingsError):
        ReplyCollector(*numbers)


@pytest.mark.parametrize(("nodes", "quorum", "needed"), [(4, 0.0, 1), (4, 0.5, 2), (5, 0.5, 3), (10, 0.7, 7)])
def test_quorum_rounds_up_and_is_never_zero(nodes, quorum, needed):
    assert ReplyCollector(nodes, quorum).needed == needed
