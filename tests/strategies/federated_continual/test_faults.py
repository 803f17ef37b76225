"""Nodes that fail, lie or stay silent are rejected and counted; the stage goes on without them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedcl_distill.errors import SettingsError
from strategies.federated import QuorumError
from strategies.federated.answers import METRICS, PAYLOAD, SYNTHETIC, WEIGHTS
from strategies.federated.client import partition_of
from strategies.federated_continual.stages import stage_of
from streams import app_of, live, quick, train_and_test


def _payload(content: RecordDict) -> np.ndarray:
    return content[SYNTHETIC][PAYLOAD].numpy().copy()


def _truncated(content: RecordDict) -> None:
    content[SYNTHETIC] = ArrayRecord({PAYLOAD: Array(_payload(content)[:-9])})


def _of_floats(content: RecordDict) -> None:
    content[SYNTHETIC] = ArrayRecord({PAYLOAD: Array(_payload(content).astype(np.float32))})


def _empty(content: RecordDict) -> None:
    del content[SYNTHETIC]


def _boastful(content: RecordDict) -> None:
    content[METRICS]["num-examples"] = -5


@pytest.mark.parametrize("spoil", [_truncated, _of_floats, _empty, _boastful])
def test_a_bad_set_is_counted_and_the_stage_finishes(spoil: Callable[[RecordDict], None]):
    def tamper(reply: Message) -> Message:
        if SYNTHETIC in reply.content:
            spoil(reply.content)
        return reply

    result = live(quick(), {1: tamper})
    assert [(one.partition, one.server_round) for one in result.rejections] == [(1, 1), (1, 2), (1, 3)]
    assert result.learned_at == (0, 1, 2)
    assert result.matrix.average_accuracy > 0.8


def test_models_with_nan_are_counted_and_the_stage_finishes():
    def tamper(reply: Message) -> Message:
        if WEIGHTS in reply.content:
            name, array = next(iter(reply.content[WEIGHTS].items()))
            reply.content[WEIGHTS][name] = Array(np.full_like(array.numpy(), np.nan))
        return reply

    result = live(quick(strategy="fedavg", rounds=2), {2: tamper})
    assert len(result.rejections) == 6
    assert "NaN" in result.rejections[0].reason
    assert len(result.stages) == 3


@pytest.mark.parametrize(
    ("key", "value"), [("experience", 3), ("experience", -1), ("experience", 0.5), ("num-examples", -1)]
)
def test_a_node_that_lies_at_the_roll_call_is_counted_and_not_asked(key, value):
    def tamper(reply: Message) -> Message:
        if SYNTHETIC not in reply.content:
            reply.content[METRICS][key] = value
        return reply

    result = live(quick(), {0: tamper})
    assert [one.partition for one in result.rejections] == [0, 0, 0] or key == "num-examples"
    assert len(result.rejections) == 3
    assert [stage.asked for stage in result.stages] == [2, 2, 2]


def _failing(app: ClientApp, partition: int, stage: int, kind: str) -> ClientApp:
    def call(message: Message, context: Context) -> Message:
        at = (partition_of(context), stage_of(message.content), message.metadata.message_type)
        if at == (partition, stage, kind):
            raise RuntimeError("out of battery")
        return app(message, context)

    return call  # type: ignore[return-value]


@pytest.mark.parametrize(("kind", "asked"), [("train.distil", 3), ("query", 2)])
def test_a_node_that_fails_in_one_stage_is_back_in_the_next(kind, asked):
    settings = quick()
    result = live(settings, app=_failing(app_of(settings, train_and_test()[0]), 2, 1, kind))
    assert [stage.asked for stage in result.stages] == [3, asked, 3]
    (rejection,) = result.rejections
    assert (rejection.partition, rejection.server_round) == (2, 2)
    assert "out of battery" in rejection.reason


def test_a_stage_whose_only_node_fails_leaves_the_model_as_it_is():
    settings = quick(clients=1)
    failing = _failing(app_of(settings, train_and_test()[0]), 0, 1, "train.distil")
    result = live(settings, app=failing)
    assert result.stages[1].accuracies == result.stages[0].accuracies
    assert result.learned_at == (0, 3, 2)
    with pytest.raises(QuorumError):
        live(quick(clients=1, quorum=0.5), app=failing)


def test_a_dead_node_is_counted_at_every_roll_call():
    result = live(quick(), grid={"unavailable": {1}})
    assert len(result.rejections) == 3
    assert [stage.asked for stage in result.stages] == [2, 2, 2]


@pytest.mark.parametrize(
    "content", [{}, {"config": ConfigRecord({"stage": -1})}, {"config": MetricRecord({"stage": 1})}]
)
def test_a_request_without_a_stage_is_refused(content):
    with pytest.raises(SettingsError):
        stage_of(RecordDict(content))


def test_a_node_that_is_asked_though_it_has_nothing_says_so():
    """It lied at the roll call: what it then says is an error, not a set of something else."""

    def tamper(reply: Message) -> Message:
        if not reply.has_error() and SYNTHETIC not in reply.content:
            reply.content[METRICS]["num-examples"], reply.content[METRICS]["experience"] = 5, 0
        return reply

    train, _ = train_and_test()
    settings = quick(stream="late:clients=1,after=1")
    result = live(settings, {2: tamper}, app=app_of(settings, train))
    assert [stage.asked for stage in result.stages] == [3, 3, 3, 1]
    (rejection,) = result.rejections
    assert "nothing new at stage 0" in rejection.reason
