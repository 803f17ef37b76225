"""Truth: what honest nodes of every kind really answer, and what they must not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from builders import blobs
from fedcl_distill.engine import Budget
from fedcl_distill.errors import PayloadError, SettingsError
from fedcl_distill.methods import build_method
from fedcl_distill.parameterizations import Addressing
from fedcl_distill.synthetic import Expectation, SyntheticSet, decode, encode
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


@pytest.mark.parametrize("node", NODES.values(), ids=NODES)
@pytest.mark.parametrize("bits", [2, 8, 32])
@pytest.mark.parametrize("way", [WAYS["pixels"], WAYS["tiles"], WAYS["addressing"], WAYS["low rank"]], ids=str)
def test_honest_answers_of_some_bytes_have_room(way: dict[str, Any], bits: Any, node: Any) -> None:
    asked = replace(request(**way), byte_budget=4000, bits=bits)
    room = room_for(asked, asked.distiller(), DATA.sample_shape, DATA.num_classes)
    answer = asked.distil(node, seed=0, distiller=replace(asked.distiller(), budget=Budget(steps=0)))
    received = decode(encode(answer, bits, provenance=False), room.limits)
    Expectation(node.spec, max_samples=room.samples, store=room.store).check(received)


def test_what_decodes_to_more_than_was_asked_for_is_refused_before_it_is_decoded() -> None:
    """7.8 kB were 28,800 samples of one basis, with addresses of two bits each."""
    asked = replace(request(), byte_budget=8000, bits=2)
    room = room_for(asked, asked.distiller(), DATA.sample_shape, DATA.num_classes)
    assert room.samples == 8000 * 8 // 2 // 64
    arrays = {"bases": torch.zeros(1, 1, 4, 4), "addresses": torch.zeros(20_000, 1)}
    labels = torch.arange(4).repeat_interleave(5000)
    many = SyntheticSet(labels=labels, arrays=arrays, parameterization=Addressing(), spec=DATA.spec)
    payload = encode(many, 2, provenance=False)
    assert len(payload) < 8000
    with pytest.raises(PayloadError, match="20000 samples, at most 500"):
        decode(payload, room.limits)
    few = replace(many, labels=labels[::200], arrays={**arrays, "addresses": torch.zeros(100, 1)})
    with pytest.raises(PayloadError, match="stored as addressing, asked for was pixels"):
        Expectation(DATA.spec, max_samples=room.samples, store=room.store).check(few)


def test_what_a_node_may_choose_itself_is_bounded_by_bytes_alone() -> None:
    asked = DistilRequest(seed=0, method="random", byte_budget=5000, fit_to_budget=True)
    assert room_for(asked, asked.distiller(), (1, 8, 8), 4) == AnswerLimits(None, None, 5000)


def test_what_cannot_be_stored_is_told_before_any_node_is_asked() -> None:
    asked = request(parameterization="tiles")
    with pytest.raises(SettingsError, match="images"):
        room_for(asked, asked.distiller(), (13,), 2)
