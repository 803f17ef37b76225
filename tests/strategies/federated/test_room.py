"""Truth: what honest nodes of every kind really answer, and what they must not."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from builders import blobs
from fedcl_distill.engine import Budget
from fedcl_distill.errors import PayloadError, SettingsError
from fedcl_distill.methods import build_method
from fedcl_distill.synthetic import Expectation, decode, encode
from strategies.federated.aggregation import AnswerLimits, room_for
from strategies.federated.distillation import DistilRequest

DATA = blobs((1, 8, 8), classes=4, per_class=12)
NODES = {
    "all classes": DATA,
    "one class": DATA.subset(torch.arange(12)),
    "imbalanced": DATA.subset(torch.cat([torch.arange(12), torch.tensor([12, 24, 25, 26])])),
}
WAYS: dict[str, dict[str, Any]] = {
    "pixels": {},
    "tiles": {"parameterization": "tiles:factor=2"},
    "addressing": {"parameterization": "addressing"},
    "low rank": {"parameterization": "low-rank"},
    "a teacher's labels": {"labels": "teacher:temperature=2,architecture=mlp:width=4"},
}


def request(**settings: Any) -> DistilRequest:
    return DistilRequest(
        seed=0,
        method="dm",
        method_settings={"architecture": "convnet:width=4", "real_batch_per_class": 4, **settings},
        images_per_class=3,
    )


@pytest.mark.parametrize("node", NODES.values(), ids=NODES)
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_honest_answers_have_room(way: dict[str, Any], node: Any) -> None:
    asked = request(**way)
    room = room_for(asked, asked.distiller(), DATA.sample_shape, DATA.num_classes)
    distiller = build_method(asked.method, **asked.method_settings)
    answer = distiller.distil(node, asked.size, seed=0, budget=Budget(steps=0), absent_classes="skip")
    received = decode(encode(answer, 32), room.limits)
    Expectation(node.spec, max_samples=room.samples, max_samples_per_class=room.samples_per_class).check(received)


def test_pixels_with_hard_labels_have_exactly_what_was_asked_for() -> None:
    room = room_for(request(), request().distiller(), DATA.sample_shape, DATA.num_classes)
    assert (room.samples, room.samples_per_class) == (12, 3)
    too_many = build_method("random").distil(DATA, 4, seed=0)
    with pytest.raises(PayloadError, match="samples"):
        decode(encode(too_many, 8), room.limits)


def test_a_byte_budget_bounds_bytes_alone() -> None:
    asked = DistilRequest(seed=0, method="random", byte_budget=5000)
    assert room_for(asked, asked.distiller(), (1, 8, 8), 4) == AnswerLimits(None, None, 5000)


def test_what_cannot_be_stored_is_told_before_any_node_is_asked() -> None:
    asked = request(parameterization="tiles")
    with pytest.raises(SettingsError, match="images"):
        room_for(asked, asked.distiller(), (13,), 2)
