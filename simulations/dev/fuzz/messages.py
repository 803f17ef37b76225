"""What reads Flower's messages; and all targets by name."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cache
from random import Random
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from fedcl_distill.errors import PayloadError, SettingsError
from fedcl_distill.methods import build_method
from fedcl_distill.networks import Architecture, Network
from fedcl_distill.statistics import (
    Shares,
    StatisticsExpectation,
    StatisticsSpec,
    class_statistics,
    encode_statistics,
)
from fedcl_distill.synthetic import Expectation
from simulations.dev.fuzz import files
from simulations.dev.fuzz.fuzzer import JUNK, Target, features, images, mutate_bytes, mutate_container, mutate_tree
from strategies.federated import requests
from strategies.federated.aggregation import ReplyCollector, SetAggregator
from strategies.federated.answers import (
    SUMS,
    UPDATE,
    ClientReport,
    pack_network,
    pack_payload,
    pack_set,
    pack_update,
    read_weights,
    unpack_network,
    unpack_payload,
    unpack_update,
    unpack_vector,
    unpack_weights,
    weights_of,
)
from strategies.federated.compression import CompressedRequest, read_codec
from strategies.federated.distillation import DistilRequest
from strategies.federated.feddm import SurrogateRequest
from strategies.federated.grid import name_message, run_identity
from strategies.federated.local_training import TrainRequest
from strategies.federated.private_statistics import StatisticsServer

_CODECS = ("plain", "topk:fraction=0.1", "topk:fraction=0.5,value_bits=32", "quantised:bits=2,bucket=8", "quantised")
_COUNT = 40
_KINDS: dict[str, type] = {"arrays": ArrayRecord, "metrics": MetricRecord, "config": ConfigRecord}
_SPEC = StatisticsSpec(views=2, architecture="mlp:width=2", dimensions=2, moments=0, augment=False)
_REQUESTS: dict[str, type[requests.Request]] = {
    "distil": DistilRequest,
    "statistics": requests.StatisticsRequest,
    "masked": requests.SecureStatisticsRequest,
    "private": requests.PrivateStatisticsRequest,
    "noised": requests.NoisyWordsRequest,
    "surrogate": SurrogateRequest,
    "train": TrainRequest,
    "compressed": CompressedRequest,
}


class NotSendable(Exception):
    """Flower's own records do not take this: it never arrives."""


@cache
def _network() -> Network:
    return Architecture("mlp", {"width": 4}).build((4,), 3, seed=0)


@cache
def _gathering() -> SetAggregator:
    return SetAggregator(Expectation(features().spec, max_samples=100, max_samples_per_class=50), files.LIMITS)


@cache
def _first() -> StatisticsServer:
    expectation = StatisticsExpectation(_SPEC, features().spec)
    return StatisticsServer(None, expectation, None, None, None)  # type: ignore[arg-type]


def _decoded_update(content: RecordDict) -> Any:
    codec = read_codec(_CODECS[1])
    return codec.decode(unpack_update(content, UPDATE, codec.size(_COUNT)), _COUNT)


_READ_ANSWER: dict[str, Callable[[RecordDict], Any]] = {
    "set": lambda content: _gathering().read(content),
    "payload": lambda content: unpack_payload(content, SUMS, files.LIMITS),
    "statistics": lambda content: _first()._read(content),
    "weights": lambda content: read_weights(unpack_weights(content), _network()),
    "weights in 8 bits": lambda content: unpack_network(_network(), unpack_weights(content), 8),
    "vector": lambda content: unpack_vector(content.get("control"), 3),
    "update": _decoded_update,
}


def _answers() -> list[bytes]:
    facts = ClientReport(1, 24, 0.5, (8, 8, 8)).to_record()
    contents = {
        "set": pack_set(build_method("random").distil(features(), 2, seed=0), 8),
        "statistics": pack_payload(SUMS, encode_statistics(class_statistics(features(), _SPEC), 16)),
        "payload": pack_payload(SUMS, b"any bytes"),
        "weights": RecordDict({"arrays": weights_of(_network())}),
        "weights in 8 bits": RecordDict({"arrays": pack_network(_network(), 8)}),
        "vector": RecordDict({"control": ArrayRecord({"values": Array(np.array([0.5, -1, 2], np.float32))})}),
        "update": RecordDict({UPDATE: pack_update(_encoded_update(read_codec(_CODECS[1])))}),
    }
    return [
        json.dumps({"reader": reader, "content": _as_json(RecordDict({**content, "metrics": facts}))}).encode()
        for reader, content in contents.items()
    ]


def _encoded_update(codec: Any) -> Any:
    return codec.encode(np.linspace(-1, 1, _COUNT, dtype=np.float32), np.random.default_rng(0))


def _as_json(content: RecordDict) -> dict[str, Any]:
    return {key: [_kind_of(record), _record_as_json(record)] for key, record in content.items()}


def _kind_of(record: Any) -> str:
    return next(name for name, kind in _KINDS.items() if isinstance(record, kind))


def _record_as_json(record: Any) -> dict[str, Any]:
    if isinstance(record, ArrayRecord):
        return {
            name: [array.dtype, list(array.shape), array.stype, array.data.decode("latin-1")]
            for name, array in record.items()
        }
    return dict(record)


def _from_json(content: Any) -> RecordDict:
    """The message that a JSON text describes.

    Raises:
        NotSendable: Flower cannot hold it.
    """
    try:
        return RecordDict({key: _record(kind, values) for key, (kind, values) in content.items()})
    except Exception as error:
        raise NotSendable from error


def _record(kind: str, values: dict[str, Any]) -> Any:
    if kind != "arrays":
        return _KINDS[kind](values)
    return ArrayRecord(
        {
            name: Array(dtype, tuple(shape), stype, data.encode("latin-1"))
            for name, (dtype, shape, stype, data) in values.items()
        }
    )


def _hear(data: bytes) -> tuple[bool, ReplyCollector]:
    """A collector of two nodes, of which the first sends ``data`` and the second an honest answer."""
    try:
        given = json.loads(data)
        reader, content = _READ_ANSWER[given["reader"]], _from_json(given["content"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise NotSendable from error
    with run_identity(1):
        asked = [Message(RecordDict(), node, "train") for node in (1, 2)]
        for message in asked:
            name_message(message, f"message {message.metadata.dst_node_id}")
        honest = RecordDict({"metrics": ClientReport(0, 5, 1.0).to_record(), "honest": ConfigRecord({"yes": 1})})
        replies = [Message(one, reply_to=message) for one, message in zip((content, honest), asked, strict=True)]
    collector = ReplyCollector(nodes=2)
    collector.expect_answers(asked)
    heard = collector.iter_replies(1, replies, lambda one: None if "honest" in one else reader(one))
    assert 2 in [answer.node for answer in heard], "the honest answer was lost"
    return len(heard) == 2, collector


def _read_answer(data: bytes) -> ReplyCollector:
    accepted, collector = _hear(data)
    _check_reception(accepted, collector)
    if not accepted:
        raise PayloadError("rejected")
    return collector


def _check_reception(accepted: bool, collector: ReplyCollector) -> None:
    assert len(collector.rejections) == (0 if accepted else 1)
    for rejection in collector.rejections:
        assert len(rejection.reason) <= 301
        assert rejection.reason.isprintable()


def _mutate_answer(data: bytes, random: Random) -> bytes:
    """Whatever stands anywhere in the message is changed, and so are payloads within, in their own way."""
    try:
        given = json.loads(data)
        records = [record for kind, record in given["content"].values() if kind == "arrays"]
        arrays = [array for record in records for array in record.values()]
        if arrays and random.randrange(2):
            array = random.choice(arrays)
            array[3] = _mutate_npy(array[3].encode("latin-1"), random).decode("latin-1")
            if random.randrange(2):
                array[1] = [max(0, len(array[3]) - 128)]
            return json.dumps(given).encode()
    except Exception:  # an earlier change took its form
        return mutate_bytes(data, random)
    return json.dumps(mutate_tree(given, random)).encode()


def _mutate_npy(data: bytes, random: Random) -> bytes:
    """An ``.npy`` file with its header or its payload changed; the header often says the new length."""
    header, payload = data[:128], data[128:]
    if random.randrange(3) == 0:
        return mutate_bytes(header, random) + payload
    changed = mutate_container(payload, random)
    old = f"({len(payload)},)".encode()
    new = f"({len(changed)},)".encode()
    return header.replace(old, new)[:127].ljust(127) + b"\n" + changed


def _requests() -> list[bytes]:
    normal: dict[str, Any] = {"seed": 1}
    sums: dict[str, Any] = {**normal, "statistics": _SPEC.settings(), "bits": 32}
    noise: dict[str, Any] = {"epsilon": 4.0, "delta": 1e-5, "shares": asdict(Shares())}
    made = {
        "distil": DistilRequest(**normal, method_settings={"learning_rate": 0.5}, steps=3),
        "statistics": requests.StatisticsRequest(**sums),
        "masked": requests.SecureStatisticsRequest(**sums, max_samples=50, bounds={"features": 4.0}),
        "private": requests.PrivateStatisticsRequest(**sums, **noise),
        "noised": requests.NoisyWordsRequest(**sums, **noise, max_samples=50),
        "surrogate": SurrogateRequest(**normal, architecture="mlp:width=4"),
        "train": TrainRequest(**normal, architecture="convnet:width=4"),
        "compressed": CompressedRequest(**normal, architecture="mlp", upload=_CODECS[2]),
    }
    return [json.dumps({"kind": kind, "config": dict(one.to_record(2))}).encode() for kind, one in made.items()]


def _read_request(data: bytes) -> tuple[str, requests.Request]:
    try:
        given = json.loads(data)
        kind, form = given["kind"], _REQUESTS[given["kind"]]
        content = RecordDict({requests.CONFIG: ConfigRecord(given["config"])})
    except Exception as error:
        raise NotSendable from error
    request = form.of(content)
    requests.round_of(content)
    if isinstance(request, DistilRequest):
        _ = request.distiller(), request.size
    if isinstance(request, requests.StatisticsRequest):
        _ = request.specification
    if isinstance(request, requests.SecureStatisticsRequest):
        request.fixed_point(3)
    if isinstance(request, requests.PrivateStatisticsRequest):
        _ = request.target, request.precision
    if isinstance(request, requests.NoisyWordsRequest):
        request.fixed_point(3, 2)
    if isinstance(request, TrainRequest | SurrogateRequest):
        Architecture.parse(request.architecture)
    if isinstance(request, TrainRequest):
        request.train_config_for(images())
    if isinstance(request, CompressedRequest):
        _ = read_codec(request.upload), read_codec(request.download)
    return kind, request


def _check_request(found: tuple[str, requests.Request]) -> None:
    kind, request = found
    again = _REQUESTS[kind].of(RecordDict({requests.CONFIG: request.to_record(1)}))
    assert repr(again) == repr(request)


def _mutate_json(data: bytes, random: Random) -> bytes:
    try:
        return json.dumps(mutate_tree(json.loads(data), random, (*JUNK, "[" * 20_000, "{}", "[]", "null"))).encode()
    except (ValueError, RecursionError):
        return mutate_bytes(data, random)


def _updates() -> Sequence[bytes]:
    return [bytes([place, _COUNT]) + _encoded_update(read_codec(text)).tobytes() for place, text in enumerate(_CODECS)]


def _read_update(data: bytes) -> Any:
    if len(data) < 2:
        raise PayloadError("no codec")
    count = data[1] or 1000
    return count, read_codec(_CODECS[data[0] % len(_CODECS)]).decode(np.frombuffer(data[2:], np.uint8), count)


def _check_update(found: Any) -> None:
    count, values = found
    assert values.dtype == np.float32
    assert values.shape == (count,)
    assert np.isfinite(values).all()


ANSWERS = Target("answers", _answers, _read_answer, (NotSendable, PayloadError), mutate=_mutate_answer)
REQUESTS = Target("requests", _requests, _read_request, (NotSendable, SettingsError), _check_request, _mutate_json)
UPDATES = Target("updates", _updates, _read_update, (PayloadError,), _check_update)


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        *(files.SETS, files.STATISTICS),
        *(ANSWERS, REQUESTS, UPDATES),
        *(files.SETTINGS, files.NAMES),
        *(files.IDX, files.NPZ, files.CSV, files.IMAGES),
        *(files.CHECKPOINTS, files.EXPERTS, files.RESULTS),
    )
}
