"""Every strategy, ten nodes that fail in ten ways in one round: it goes on as if they had not been there."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict

from fedcl_distill.data import LabelledData, Splits, partition
from fedcl_distill.synthetic import decode, encode
from federations import serve, tampered
from simulations.settings import FederatedSettings
from strategies.federated import InProcessGrid, list_strategies, make_client_app
from strategies.federated.client import partition_of
from strategies.federated.requests import round_of

ON_FEATURES = ("feature-sums", "fedncm", "fed3r", "afl", "fedcgs", "fedpft")  # which have tests of their own
ON_IMAGES = [name for name in list_strategies() if name not in ON_FEATURES]
HONEST = 3
ONE_ROUND = ("one-shot", "one-shot-average", "one-shot-ensemble", "statistics")
CHOSEN: dict[str, dict[str, Any]] = {
    "one-shot-average": {"epochs": 2},
    "one-shot-ensemble": {"epochs": 2},
    "topk": {"fraction": 0.1},
    "bulyan": {"malicious": 0},  # three honest answers are left
    "feddm": {"radius": 0.1},
    "dynafed": {"collect_rounds": 2, "segment": 1, "student_steps": 2, "distil_steps": 2, "finetune_epochs": 1},
    "statistics": {"views": 2, "architecture": "mlp:width=4", "dimensions": 4},
}


def _changed(reply: Message, change: Callable[[Array], Array]) -> Message:
    """Every array of the answer, changed."""
    content = {
        key: ArrayRecord({name: change(array) for name, array in record.items()})
        if isinstance(record, ArrayRecord)
        else record
        for key, record in reply.content.items()
    }
    reply.content = RecordDict(content)
    return reply


def raises(reply):
    raise ZeroDivisionError("the client's own mistake")


def not_a_number(reply):
    """All bits of all values are 1: NaN in every width of floats; what is coded keeps its header."""

    def change(array: Array) -> Array:
        values = array.numpy().copy()
        raw = values.view(np.uint8).reshape(-1)
        is_container = values.dtype == np.uint8 and bytes(raw[8:9]) == b"{"
        raw[8 + int.from_bytes(bytes(raw[:8]), "little") if is_container else 0 :] = 255
        return Array(values)

    return _changed(reply, change)


def wrong_shapes(reply):
    return _changed(reply, lambda array: Array(array.numpy().reshape(-1)[:-1].copy()))


def dtype_that_lies(reply):
    lie = "float64"
    return _changed(reply, lambda array: Array(lie, array.shape, array.stype, array.data))


def empty_answer(reply):
    reply.content = RecordDict()
    return reply


def stale_round(reply):
    """An answer to what was asked in another round."""
    reply.metadata.__dict__["_reply_to_message_id"] = "message-of-another-round"
    return reply


def impossible_count(reply):
    reply.content["metrics"] = MetricRecord({**reply.content["metrics"], "num-examples": 10**10})
    return reply


def no_reply(reply):
    """Killed at work: the grid below loses it."""
    return reply


def labels_out_of_range(reply):
    def change(payload: bytes) -> bytes:
        """Eight labels more than samples, beyond the last class."""
        payload = encode(decode(payload), provenance=False, coding="safetensors")
        end = payload.index(b"]", payload.index(b"labels"))
        assert payload[end - 1 : end] == b"1"
        return payload[: end - 1] + b"9" + payload[end:]

    return _recoded(reply, change)


def a_hundred_times_too_many(reply):
    def change(payload: bytes) -> bytes:
        one = decode(payload)
        pixels = one.arrays["pixels"].repeat(100, *[1] * (one.arrays["pixels"].ndim - 1))
        return encode(replace(one, arrays={"pixels": pixels}, labels=one.labels.repeat(100)), 32, provenance=False)

    return _recoded(reply, change)


def _recoded(reply: Message, change: Callable[[bytes], bytes]) -> Message:
    payload = change(reply.content["synthetic"]["payload"].numpy().tobytes())
    record = ArrayRecord({"payload": Array(np.frombuffer(payload, np.uint8))})
    reply.content = RecordDict({**reply.content, "synthetic": record})
    return reply


ANY = [raises, not_a_number, wrong_shapes, dtype_that_lies, empty_answer, stale_round, impossible_count, no_reply]
OF_SETS = [labels_out_of_range, a_hundred_times_too_many]
SENDS_SETS = ("one-shot", "feddm", "one-shot-ensemble")
REASONS = {
    "raises": "ZeroDivisionError: the client's own mistake",
    "dtype_that_lies": "declares float64",
    "empty_answer": "answer has partition-id None",
    "impossible_count": "num-examples 10000000000",
    "no_reply": "no reply",
    "stale_round": "answers nothing that was asked",
    "labels_out_of_range": "label counts",
    "a_hundred_times_too_many": "at most",
}


class LosingGrid(InProcessGrid):
    """Loses the replies of one node in one round, as where it was killed at work."""

    lost: tuple[int, int] = (0, 0)

    def send_and_receive(self, messages, *, timeout=None):
        asked = list(messages)
        replies = super().send_and_receive(asked, timeout=timeout)
        lost = {node for in_round, node in [self.lost] if asked and round_of(asked[0].content) == in_round}
        return (reply for reply in replies if reply.metadata.src_node_id not in lost)


@pytest.mark.parametrize("strategy", ON_IMAGES)
def test_ten_faults_at_once(strategy: str, digits: Splits, caplog: pytest.LogCaptureFixture) -> None:
    faults = ANY + OF_SETS if strategy in SENDS_SETS else ANY
    one_round = strategy in ONE_ROUND
    settings = FederatedSettings(
        strategy=strategy,
        strategy_settings=CHOSEN.get(strategy, {}),
        rounds=1 if one_round else 3,
        clients=HONEST + len(faults),
        partition="iid",
        method="dm" if strategy in ("feddm", "statistics") else "random",
        method_settings={"learning_rate": 0.05} if strategy == "feddm" else {},
        distil_steps=2,
        images_per_class=1,
        bits=32,
        architecture="mlp:width=8",
        wait_seconds=0.0,
    )
    bad_round = 1 if one_round else 2
    bad = {HONEST + position: fault for position, fault in enumerate(faults)}
    small = digits.train.subset(torch.arange(600))
    faulty = _run(settings, small, digits.test, bad, bad_round)
    absent = _run(settings, small, digits.test, bad, bad_round, absent=True)

    rejected: dict[int, list[str]] = {}
    for rejection in faulty.rejections:
        assert rejection.server_round == bad_round
        assert str(rejection) in caplog.text
        rejected.setdefault(rejection.node - 1000, []).append(rejection.reason)
    assert {index: bad[index].__name__ for index in rejected} == {index: one.__name__ for index, one in bad.items()}
    for index, fault in bad.items():
        assert REASONS.get(fault.__name__, "") in rejected[index][0], rejected[index]
    assert len(faulty.as_record()["rejections"]) == len(bad) + 1  # the stale node did not answer, either
    # Not only near to a round without them: the same, state of nodes and server included.
    for name, array in absent.weights.items():
        assert np.array_equal(faulty.weights[name].numpy(), array.numpy()), name
    assert [one.accuracy for one in faulty.rounds] == [one.accuracy for one in absent.rounds]
    assert faulty.rounds[bad_round].answers == HONEST


def _run(settings, train: LabelledData, test: LabelledData, bad, bad_round: int, absent: bool = False):
    parts = partition(train, settings.partition, settings.clients, seed=0)
    honest = make_client_app(lambda context: parts[partition_of(context)])

    def app(message, context):
        """Nodes that are to be absent do not even look at what they are asked."""
        if absent and partition_of(context) in bad and round_of(message.content) == bad_round:
            raise RuntimeError("not there")
        return honest(message, context)

    def in_bad_round(fault):
        return lambda reply: fault(reply) if counted[id(fault)] == bad_round else reply

    counted: dict[int, int] = dict.fromkeys(map(id, bad.values()), 0)

    def counting(message, context):
        fault = bad.get(partition_of(context))
        if fault is not None:
            counted[id(fault)] = round_of(message.content)
        return app(message, context)

    tampers = {} if absent else {index: in_bad_round(fault) for index, fault in bad.items()}
    silent = next(index for index, fault in bad.items() if fault is no_reply)
    with LosingGrid(tampered(counting, tampers), settings.clients) as grid:
        grid.lost = (0, 0) if absent else (bad_round, 1000 + silent)
        logging.getLogger("flwr").propagate = True
        return serve(grid, settings, test)
