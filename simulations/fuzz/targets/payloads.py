"""Readers of the two payloads: synthetic sets and statistics."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from fedcl_distill.data import LabelledData
from fedcl_distill.engine import Budget
from fedcl_distill.errors import PayloadError
from fedcl_distill.methods import build_method
from fedcl_distill.statistics import (
    ClassStatistics,
    StatisticsSpec,
    class_statistics,
    decode_statistics,
    encode_statistics,
)
from fedcl_distill.synthetic import Expectation, Limits, SyntheticSet, decode, encode
from simulations.fuzz.containers import mutate_container
from simulations.fuzz.samples import features, images
from simulations.fuzz.target import Target

LIMITS = Limits(max_payload_bytes=2**20, max_metadata_bytes=2**16, max_samples=1000, max_values=2**20, max_classes=1000)
_STORES = (
    "pixels",
    "tiles:factor=2",
    "low-rank:rank=1",
    "addressing:bases=2",
    "generator:width=2,generator_steps=1,inversion_steps=1",
)
_MAX_DECODED = 2**16  # values that are worth decoding for every input


def _sets() -> list[bytes]:
    """Every parameterization, depth and kind of label."""
    made = []
    for store in _STORES:
        method = build_method("dm", architecture="convnet:width=2,depth=1", parameterization=store)
        made.append(method.distil(images(), 2, seed=0, budget=Budget(steps=1)))
    made.append(build_method("random").distil(features(), 2, seed=0))
    soft = torch.eye(3)[made[0].labels]
    made.append(SyntheticSet(made[0].arrays, made[0].parameterization, soft, made[0].spec))
    return [encode(one, bits) for one in made for bits in (4, 8, 32)]


def _check_set(one: SyntheticSet) -> None:
    assert len(one) <= LIMITS.max_samples
    assert one.num_classes <= LIMITS.max_classes
    again = decode(encode(one, 32), LIMITS)
    assert all(torch.equal(again.arrays[name], array) for name, array in one.arrays.items())
    assert torch.equal(again.labels, one.labels)
    assert again.spec == one.spec
    assert again.parameterization == one.parameterization
    if len(one) and len(one) * math.prod(one.sample_shape) <= _MAX_DECODED:
        assert one.inputs().shape == (len(one), *one.sample_shape)
        _expect(one)


def _expect(one: SyntheticSet) -> None:
    try:
        Expectation(one.spec).check(one)
    except PayloadError:
        return
    assert torch.isfinite(one.samples()).all()


def _statistics() -> list[bytes]:
    specs = [
        StatisticsSpec(views=2, architecture="convnet:width=2,depth=1", dimensions=4, moments=2),
        StatisticsSpec(views=2, architecture="convnet:width=2,depth=1", dimensions=4, kind="characteristic", share=0.5),
        StatisticsSpec(views=2, architecture="mlp:width=2", dimensions=2, moments=0, augment=False),
    ]
    data: Sequence[LabelledData] = (images(), images(), features())
    made = [class_statistics(one, spec) for one, spec in zip(data, specs, strict=True)]
    return [encode_statistics(one, bits) for one in made for bits in (8, 16, 32)]


def _check_statistics(one: ClassStatistics) -> None:
    payload = encode_statistics(one, 32)
    again = decode_statistics(payload, LIMITS)
    assert (again.spec, again.domain) == (one.spec, one.domain)
    assert torch.equal(again.class_counts, one.class_counts)
    assert encode_statistics(again, 32) == payload


SETS = Target("sets", _sets, lambda data: decode(data, LIMITS), (PayloadError,), _check_set, mutate_container)
STATISTICS = Target(
    "statistics",
    _statistics,
    lambda data: decode_statistics(data, LIMITS),
    (PayloadError,),
    _check_statistics,
    mutate_container,
)
