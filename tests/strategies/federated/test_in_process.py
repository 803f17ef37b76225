"""The in-process grid keeps Flower's promises to both sides."""

from __future__ import annotations

import pytest
from flwr.app import ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedcl_distill.errors import SettingsError
from strategies.federated import InProcessGrid
from strategies.federated.grid import FIRST_NODE


def _counting_app() -> ClientApp:
    app = ClientApp()

    @app.train()
    def train(message: Message, context: Context) -> Message:
        count = int(context.state["seen"]["count"]) + 1 if "seen" in context.state else 1
        context.state["seen"] = MetricRecord({"count": count})
        if message.content["config"].get("fail"):
            raise ValueError("asked to fail")
        message.content["config"]["touched"] = True
        context.run_config["touched"] = True
        return Message(RecordDict({"m": MetricRecord({"count": count})}), reply_to=message)

    return app


def _ask(grid: InProcessGrid, content: RecordDict) -> list[Message]:
    messages = [Message(content, node, "train") for node in grid.get_node_ids()]
    return list(grid.send_and_receive(messages))


def test_state_lasts_but_not_that_of_a_failed_call():
    with InProcessGrid(_counting_app(), 2) as grid:
        for expected in (1, 2):
            replies = _ask(grid, RecordDict({"config": ConfigRecord({})}))
            assert [reply.content["m"]["count"] for reply in replies] == [expected] * 2
        (first, _) = _ask(grid, RecordDict({"config": ConfigRecord({"fail": True})}))
        assert first.has_error()
        assert "asked to fail" in first.error.reason
        assert _ask(grid, RecordDict({"config": ConfigRecord({})}))[0].content["m"]["count"] == 3


def test_content_is_copied_and_configurations_are_the_nodes_own():
    content = RecordDict({"config": ConfigRecord({})})
    with InProcessGrid(_counting_app(), 2, {"a": 1}) as grid:
        _ask(grid, content)
        assert "touched" not in content["config"]
        context = grid._contexts[FIRST_NODE + 1]
    assert context.run_config == {"a": 1}
    assert context.node_config == {"partition-id": 1, "num-partitions": 2}


def test_identity_ends_with_the_block():
    with InProcessGrid(_counting_app(), 1):
        Message(RecordDict(), FIRST_NODE, "train")
    with pytest.raises(RuntimeError):
        Message(RecordDict(), FIRST_NODE, "train")


def test_unknown_node_is_refused():
    with InProcessGrid(_counting_app(), 1) as grid, pytest.raises(SettingsError, match="no node 5"):
        grid.send_and_receive([Message(RecordDict(), 5, "train")])


def test_progress_is_told():
    told = []
    with InProcessGrid(_counting_app(), 3, on_reply=lambda *step: told.append(step)) as grid:
        _ask(grid, RecordDict({"config": ConfigRecord({})}))
    assert told == [(1, 3), (2, 3), (3, 3)]
