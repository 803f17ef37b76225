"""FedAvg with coded messages: what arrives, what waits for the next round, and what it costs."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, RecordDict

from fedcl_distill.errors import SettingsError
from federations import data_and_test, quick, run
from plain_federated import network_of, parts_of, start_of, vector_of
from strategies.federated import ReplyCollector
from strategies.federated.answers import pack_update
from strategies.federated.compression import CompressedFedAvg, CompressedRequest, read_codec, train_compressed
from strategies.federated.requests import Task

SOME = {"partition": "dirichlet:1.0", "clients": 3, "rounds": 3, "local_batch_size": 8}
NPY_HEADER = 128


def _with(strategy: str, **chosen):
    return quick(**SOME, strategy=strategy, strategy_settings=chosen)


def test_all_values_in_full_are_fedavg():
    settings = _with("topk", fraction=1.0, value_bits=32)
    expected = vector_of(run(_with("fedavg")))
    np.testing.assert_allclose(vector_of(run(settings)), expected, rtol=1e-5, atol=1e-7)


def test_more_bits_come_closer_to_fedavg():
    expected = vector_of(run(_with("fedavg")))
    distances = [float((vector_of(run(_with("quantised", bits=bits))) - expected).norm()) for bits in (2, 4, 8)]
    assert distances == sorted(distances, reverse=True)
    moved = float((expected - start_of(_with("fedavg"), data_and_test()[0])).norm())
    assert 0 < distances[-1] < 0.05 * moved < distances[0]


def test_a_single_topk_round_moves_only_the_largest_changes():
    settings = quick(**{**SOME, "rounds": 1, "clients": 1, "partition": "iid"}, strategy="topk")
    whole = quick(**{**SOME, "rounds": 1, "clients": 1, "partition": "iid"}, strategy="fedavg")
    start = start_of(settings, data_and_test()[0])
    change, sparse = vector_of(run(whole)) - start, vector_of(run(settings)) - start
    kept = sparse.abs() > 0
    assert int(kept.sum()) == max(1, round(0.01 * len(start)))
    assert change[kept].abs().min() >= change[~kept].abs().max()
    np.testing.assert_allclose(sparse[kept], change[kept], rtol=1e-3)


class _Node:
    """One node that is asked round after round, from another model each time."""

    def __init__(self, upload: str) -> None:
        self.settings = quick(**SOME)
        train, _ = data_and_test()
        self.part = parts_of(self.settings, train)[0]
        self.count = start_of(self.settings, train).numel()
        plain = self.settings.local.request(self.settings.seed, self.settings.architecture)
        self.request = CompressedRequest(**vars(plain), upload=upload)
        self.codec, self.state = read_codec(upload), RecordDict()

    def model(self, server_round: int) -> np.ndarray:
        return np.random.default_rng(server_round).normal(size=self.count).astype(np.float32)

    def sent(self, server_round: int, used_round: int) -> np.ndarray:
        config = self.request.to_record(server_round)
        config["used-round"] = used_round
        arrays = pack_update(self.model(server_round).view(np.uint8))
        content = RecordDict({"arrays": arrays, "config": config})
        answer = train_compressed(Task(content, self.part, 0, "cpu", self.state))
        return self.codec.decode(answer["update"]["payload"].numpy(), self.count).astype(np.float64)

    def waiting(self, server_round: int) -> np.ndarray:
        return self.state[f"kept-in-round-{server_round}"]["values"].numpy().astype(np.float64)


@pytest.mark.parametrize("upload", ["topk:fraction=0.05", "topk:fraction=0.2,value_bits=32"])
@pytest.mark.parametrize("unused", [set(), {2}, {1, 3, 4}])
def test_what_was_sent_and_what_waits_are_all_updates(upload, unused):
    node, exact = _Node(upload), _Node("plain")
    sent, updates, used_round = 0.0, 0.0, 0
    for server_round in range(1, 7):
        answer = node.sent(server_round, used_round)
        if server_round not in unused:
            sent, updates, used_round = sent + answer, updates + exact.sent(server_round, 0), server_round
    assert np.abs(node.waiting(used_round)).max() > 0
    np.testing.assert_allclose(sent + node.waiting(used_round), updates, rtol=1e-4, atol=1e-5)


def test_without_feedback_nothing_waits():
    node = _Node("topk:fraction=0.05,error_feedback=false")
    node.sent(1, 0)
    assert not node.state


def test_a_node_that_restarted_goes_on_without_what_waited():
    node, fresh = _Node("topk:fraction=0.05"), _Node("topk:fraction=0.05")
    node.sent(1, 0)
    node.state = RecordDict()
    assert np.array_equal(node.sent(2, 1), fresh.sent(2, 0))


@pytest.mark.parametrize("chosen", [{"bits": 4}, {"bits": 2, "download_bits": 8}, {"bits": 8, "download_bits": 4}])
def test_the_ledger_counts_packed_bytes(chosen):
    result = run(_with("quantised", **chosen))
    count = len(vector_of(result))
    scales = 4 * math.ceil(count / 512)
    down = chosen.get("download_bits")
    expected = {
        "up": math.ceil(count * chosen["bits"] / 8) + scales + NPY_HEADER,
        "down": (4 * count if down is None else math.ceil(count * down / 8) + scales) + NPY_HEADER,
    }
    assert result.rejections == ()
    assert {(entry.direction, entry.arrays) for entry in result.ledger.entries} == set(expected.items())
    assert {entry.kind for entry in result.ledger.entries} == {"train.compressed"}


def test_the_servers_model_is_not_rounded_by_what_it_sends():
    """A model that does not change (no learning to speak of) stays as it was, however coarsely it is sent."""
    settings = quick(**SOME, strategy="quantised", strategy_settings={"download_bits": 2}, local_learning_rate=1e-12)
    np.testing.assert_allclose(vector_of(run(settings)), start_of(settings, data_and_test()[0]), atol=1e-6)


def _payload(change):
    def tamper(reply):
        reply.content["update"] = ArrayRecord({"payload": change(reply.content["update"]["payload"].numpy())})
        return reply

    return tamper


def _nan_scale(payload):
    return Array(np.concatenate([np.array([np.nan], "<f4").view(np.uint8), payload[4:]]))


def _huge_scale(payload):
    return Array(np.concatenate([np.array([-1.0], "<f4").view(np.uint8), payload[4:]]))


def _lying(payload):
    return Array("uint8", (10**12,), "numpy.ndarray", Array(payload).data)


def _no_update(reply):
    reply.content = RecordDict({"metrics": reply.content["metrics"]})
    return reply


def _nothing_in_it(reply):
    reply.content["update"] = ArrayRecord({})
    return reply


HOSTILE = [
    (_payload(_nan_scale), "NaN or infinity"),
    (_payload(_huge_scale), "negative scale"),
    (_payload(_lying), "declares uint8"),
    (_payload(lambda payload: Array(payload[:-1])), "expected uint8 of shape"),
    (_payload(lambda payload: Array(np.repeat(payload, 2))), "expected uint8 of shape"),
    (_payload(lambda payload: Array(payload.astype(np.float32))), "holds float32"),
    (_payload(lambda payload: Array(payload | np.uint8(0xFF))), "NaN|code above"),
    (_no_update, "no arrays 'update'"),
    (_nothing_in_it, "no array 'payload'"),
]


@pytest.mark.parametrize(("tamper", "reason"), HOSTILE)
def test_bad_updates_are_left_out(tamper, reason):
    one = {"strategy_settings": {"bits": 4}, "rounds": 1}
    settings = quick(**{**SOME, **one}, strategy="quantised")
    result = run(settings, tampers={1: tamper})
    (rejection,) = result.rejections
    assert any(part in rejection.reason for part in reason.split("|")), rejection.reason
    assert torch.equal(vector_of(result), vector_of(run(settings, unavailable=[1])))


def test_positions_that_repeat_are_left_out():
    def repeated(payload):
        return Array(np.concatenate([payload[:-1], np.zeros(1, np.uint8)]))

    (rejection, *_) = run(_with("topk", fraction=0.1), tampers={1: _payload(repeated)}).rejections
    assert "position" in rejection.reason


@pytest.mark.parametrize("strategy", ["topk", "quantised"])
def test_the_same_seed_gives_the_same_bytes(strategy, untouched_global_rng):
    first, second = (run(_with(strategy, download_bits=8)) for _ in range(2))
    assert torch.equal(vector_of(first), vector_of(second))
    assert first.ledger.entries == second.ledger.entries


def test_networks_with_buffers_are_refused():
    settings, (train, _) = quick(**SOME), data_and_test()
    network = network_of(settings, train)
    network.register_buffer("seen", torch.zeros(1))
    request = CompressedRequest(**vars(settings.local.request(settings.seed, settings.architecture)))
    with pytest.raises(SettingsError, match="buffers"):
        CompressedFedAvg(request, network, ReplyCollector(3))
