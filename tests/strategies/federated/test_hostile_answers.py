"""Whatever one node sends, the round goes on without it, and the log tells who and why."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from fedcl_distill.data import Normalisation
from fedcl_distill.synthetic import decode, encode
from federations import quick, run

BAD = 2


def _payload(reply: Message) -> bytes:
    return reply.content["synthetic"]["payload"].numpy().tobytes()


def _send(reply: Message, array: Array, metrics: dict | None = None) -> Message:
    facts = {**reply.content["metrics"], **(metrics or {})}
    content = {"synthetic": ArrayRecord({"payload": array}), "metrics": MetricRecord(facts)}
    reply.content = RecordDict(content)
    return reply


def _send_bytes(reply: Message, payload: bytes) -> Message:
    return _send(reply, Array(np.frombuffer(payload, np.uint8)))


def _send_set(reply: Message, **changes) -> Message:
    sent = decode(_payload(reply))
    traits = {name: changes.pop(name) for name in ("class_names", "normalisation", "sample_shape") if name in changes}
    synthetic = replace(sent, spec=replace(sent.spec, **traits), **changes)
    return _send_bytes(reply, encode(synthetic, 32, provenance=False))


def raising(reply):
    raise ZeroDivisionError("the client's own mistake")


def error_reply(reply):
    error = Error(2, "\x1b[36mTraceback\x1b[0m\n  line\nValueError: sensor off")
    return Message(metadata=reply.metadata, error=error)


def answer_to_nothing(reply):
    reply.metadata.__dict__["_reply_to_message_id"] = "another"
    return reply


def nan_pixels(reply):
    synthetic = decode(_payload(reply))
    payload = bytearray(encode(synthetic, 32, provenance=False, coding="safetensors"))
    first = np.float32(synthetic.arrays["pixels"].flatten()[0]).tobytes()
    position = payload.index(first)
    payload[position : position + 4] = np.float32("nan").tobytes()
    return _send_bytes(reply, bytes(payload))


def labels_out_of_range(reply):
    payload = encode(decode(_payload(reply)), provenance=False, coding="safetensors")
    assert b'"labels":[2,2,2]' in payload.replace(b"\\", b"")
    return _send_bytes(reply, payload.replace(b"[2,2,2]", b"[2,2,9]"))


def other_classes(reply):
    return _send_set(reply, class_names=("a", "b", "c"))


def wrong_shape(reply):
    pixels = torch.zeros(6, 7)
    normalisation = Normalisation((0.0,) * 7, (1.0,) * 7)
    return _send_set(reply, arrays={"pixels": pixels}, sample_shape=(7,), normalisation=normalisation)


def other_normalisation(reply):
    return _send_set(reply, normalisation=Normalisation((0.0,) * 6, (1.0,) * 6))


def far_out_of_range(reply):
    return _send_set(reply, arrays={"pixels": torch.full((6, 6), 1e6)})


def empty_set(reply):
    nothing = {"pixels": torch.zeros(0, 6)}
    return _send_set(reply, arrays=nothing, labels=torch.zeros(0, dtype=torch.int64))


def many_samples(reply):
    pixels, labels = torch.zeros(6000, 6), torch.zeros(6000, dtype=torch.int64)
    return _send_set(reply, arrays={"pixels": pixels}, labels=labels)


def more_of_a_class_than_asked(reply):
    return _send_set(reply, labels=torch.zeros_like(decode(_payload(reply)).labels))


def truncated(reply):
    return _send_bytes(reply, _payload(reply)[:-5])


def lying_shape(reply):
    array = reply.content["synthetic"]["payload"]
    return _send(reply, Array(array.dtype, (10**9,), array.stype, array.data))


def lying_dtype(reply):
    array = reply.content["synthetic"]["payload"]
    return _send(reply, Array("float32", array.shape, array.stype, array.data))


def allocation_bomb(reply):
    array = reply.content["synthetic"]["payload"]
    size, header = array.shape[0], array.data[:128]
    bomb = header.replace(f"({size},)".encode(), b"(9999999999999,)".ljust(len(f"({size},)")))[:128]
    return _send(reply, Array("uint8", (9999999999999,), array.stype, bomb + array.data[128:]))


def pickled(reply):
    return _send(reply, Array("object", (1,), "numpy.ndarray", b"\x80\x04."))


def other_serialisation(reply):
    return _send(reply, Array("uint8", (1,), "pickle", b"x"))


def no_arrays(reply):
    reply.content = RecordDict({"metrics": reply.content["metrics"]})
    return reply


def config_instead_of_arrays(reply):
    metrics = reply.content["metrics"]
    reply.content = RecordDict({"synthetic": ConfigRecord({"payload": b"x"}), "metrics": metrics})
    return reply


def no_facts(reply):
    reply.content = RecordDict({"synthetic": reply.content["synthetic"]})
    return reply


def huge_sample_count(reply):
    return _send(reply, reply.content["synthetic"]["payload"], {"num-examples": 10**15})


def negative_sample_count(reply):
    return _send(reply, reply.content["synthetic"]["payload"], {"num-examples": -1})


def list_of_sample_counts(reply):
    return _send(reply, reply.content["synthetic"]["payload"], {"num-examples": [1, 2]})


def nan_seconds(reply):
    return _send(reply, reply.content["synthetic"]["payload"], {"seconds": float("nan")})


CASES = [
    (raising, "ZeroDivisionError: the client's own mistake"),
    (error_reply, "ValueError: sensor off"),
    (nan_pixels, "NaN"),
    (labels_out_of_range, "label counts"),
    (other_classes, "class"),
    (wrong_shape, "shape"),
    (other_normalisation, "normalised"),
    (far_out_of_range, "samples span"),
    (empty_set, "no samples"),
    (many_samples, "at most"),
    (more_of_a_class_than_asked, "at most 2"),
    (truncated, "truncated"),
    (lying_shape, "declares uint8 of shape"),
    (lying_dtype, "declares float32"),
    (allocation_bomb, "needs 9999999999999|truncated"),
    (pickled, "no valid .npy header"),
    (other_serialisation, "serialised as 'pickle'"),
    (no_arrays, "no arrays 'synthetic'"),
    (config_instead_of_arrays, "no arrays 'synthetic'"),
    (no_facts, "partition-id"),
    (huge_sample_count, "num-examples 1000000000000000"),
    (negative_sample_count, "num-examples -1"),
    (list_of_sample_counts, "num-examples"),
    (nan_seconds, "seconds nan"),
]


@pytest.fixture(scope="module")
def without_the_bad_node():
    return run(quick(), unavailable=[BAD])


@pytest.mark.parametrize(("tamper", "reason"), CASES, ids=lambda case: getattr(case, "__name__", ""))
def test_round_goes_on(tamper, reason, without_the_bad_node, caplog):
    result = run(quick(), tampers={BAD: tamper})
    (rejection,) = result.rejections
    assert (rejection.node, rejection.server_round) == (1000 + BAD, 1)
    assert any(part in rejection.reason for part in reason.split("|")), rejection.reason
    assert "\x1b" not in rejection.reason
    assert f"node {1000 + BAD}" in caplog.text
    assert torch.equal(result.synthetic.inputs(), without_the_bad_node.synthetic.inputs())
    assert result.accuracy == without_the_bad_node.accuracy
    assert result.as_record()["rejections"][0]["reason"] == rejection.reason


def test_all_of_them_at_once():
    tampers = {position: tamper for position, (tamper, _) in enumerate(CASES)}
    result = run(quick(clients=len(CASES) + 1), tampers=tampers)
    assert len(result.rejections) == len(CASES)
    assert result.synthetic.provenance["union_of"] == [len(CASES)]


@pytest.mark.parametrize("claim", [1, [], {"epsilon": -1}])
def test_a_claim_that_is_no_guarantee_costs_one_answer_and_not_the_run(claim: object) -> None:
    def claiming(reply: Message) -> Message:
        sent = decode(_payload(reply))
        return _send_bytes(reply, encode(replace(sent, provenance={"privacy": claim}), 32))

    result = run(quick(strategy="one-shot"), {BAD: claiming})
    (rejection,) = result.rejections
    assert (rejection.node, "no privacy guarantee" in rejection.reason) == (1000 + BAD, True)
