"""Truth: a run without the node that lies. A finite model of 1e38 is no model: it is refused, and its sender named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Message, RecordDict
from torch import nn

from fedcl_distill.errors import PayloadError
from federations import quick, run
from strategies.federated.answers import LargestModel

BAD = 1

_STRATEGIES: dict[str, dict[str, Any]] = {
    "fedavg": {},
    "fedavg with a share": {"strategy_settings": {"client_share": 0.3}},
    "fedprox": {},
    "fedavgm": {},
    "scaffold": {},
    "median": {},
}


def scaled(factor: float, key: str = "arrays") -> Callable[[Message], Message]:
    """Every value of a float32 record far away, and finite."""

    def far(values: Any) -> Array:
        return Array(np.clip(values.astype(np.float64) * factor, -3e38, 3e38).astype(values.dtype))

    def tamper(reply: Message) -> Message:
        record = ArrayRecord({name: far(array.numpy()) for name, array in reply.content[key].items()})
        reply.content = RecordDict({**reply.content, key: record})
        return reply

    return tamper


@pytest.mark.parametrize("factor", [1e38, 1e4], ids=str)
@pytest.mark.parametrize("name", _STRATEGIES)
def test_one_huge_model_costs_one_answer(name: str, factor: float) -> None:
    settings = quick(strategy=name.partition(" ")[0], rounds=2, **_STRATEGIES[name])
    result = run(settings, {BAD: scaled(factor)})
    assert [(one.node, one.server_round) for one in result.rejections] == [(1000 + BAD, 1), (1000 + BAD, 2)]
    assert "is believed" in result.rejections[0].reason
    assert result.accuracy == run(settings, unavailable=[BAD]).accuracy


def test_a_huge_control_variate_costs_one_answer() -> None:
    settings = quick(strategy="scaffold", rounds=2)
    result = run(settings, {BAD: scaled(1e30, "control")})
    assert {one.node for one in result.rejections} == {1000 + BAD}
    assert "variate" in result.rejections[0].reason


@pytest.mark.parametrize("strategy", ["topk", "quantised"])
def test_a_huge_coded_update_costs_one_answer(strategy: str) -> None:
    def far(reply: Message) -> Message:
        payload = reply.content["update"]["payload"].numpy().copy()
        count = 4 if strategy == "quantised" else 8
        codes = np.frombuffer(payload.tobytes(), np.uint8).copy()
        codes[:count] = np.frombuffer(np.array([3e38] * (count // 4), np.float32).tobytes(), np.uint8)
        reply.content = RecordDict({**reply.content, "update": ArrayRecord({"payload": Array(codes)})})
        return reply

    result = run(quick(strategy=strategy, rounds=2), {BAD: far})
    assert {one.node for one in result.rejections} == {1000 + BAD}


def test_what_honest_training_makes_is_within_the_bounds_and_a_hundredfold_is_not() -> None:
    network = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    sent = {name: one for name, one in network.state_dict().items() if one.is_floating_point()}
    largest = LargestModel.after(sent, network)
    for factor in (0.0, 1.0, 50.0):
        largest.check({name: factor * one for name, one in sent.items()}, network)
    with pytest.raises(PayloadError, match="parameters"):
        largest.check({name: 101 * one for name, one in sent.items()}, network)
    with pytest.raises(PayloadError, match="buffers"):
        largest.check({**sent, "1.running_var": torch.full((3,), 1e8)}, network)
