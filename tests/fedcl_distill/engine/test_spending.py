"""What a budget is spent on: never on more bytes than it has, and on more samples than whole images of eight bits."""

from __future__ import annotations

import pytest
import torch

from builders import blobs
from fedcl_distill.engine import BitAllocation, Budget, ByteBudget, allocate_bits, quantisation_aware
from fedcl_distill.methods import build_method
from fedcl_distill.synthetic import decode, encode


@pytest.mark.parametrize("total_bytes", [700, 1_500, 6_000, 40_000])
@pytest.mark.parametrize("shape", [(1, 12, 12), (3, 9, 7), (6,)])
def test_no_byte_more_than_the_budget_is_spent(total_bytes, shape):
    real = blobs(shape, classes=3, per_class=40)
    spending = allocate_bits(total_bytes, real)
    how = f"tiles:factor={spending.tiles}" if spending.tiles > 1 else None
    method = build_method("dm", architecture="mlp:width=4", **({"parameterization": how} if how else {}))
    distiller = quantisation_aware(method, spending.bits)
    made = distiller.distil(real, ByteBudget(total_bytes, spending.bits), seed=0, budget=Budget(steps=1))
    payload = encode(made, spending.bits, provenance=False)
    assert len(payload) <= total_bytes
    assert torch.equal(decode(payload).inputs(), made.inputs())


def test_what_matters_is_bytes_for_each_class_that_is_there():
    real = blobs((1, 12, 12), classes=4, per_class=40)
    some = real.subset((real.labels < 2).nonzero().flatten())
    for total_bytes in (100, 500, 2_500, 12_500):
        assert allocate_bits(total_bytes, some) == allocate_bits(2 * total_bytes, real)


def test_what_has_no_tiles_is_stored_whole():
    features, image = blobs((6,), classes=3, per_class=4), blobs((1, 1, 30), classes=3, per_class=4)
    for total_bytes in (50, 500, 5_000):
        assert allocate_bits(total_bytes, features) == BitAllocation(8)
        assert allocate_bits(total_bytes, image).tiles == 1
        assert allocate_bits(total_bytes, blobs((1, 12, 12), classes=3, per_class=4), tiles=False).tiles == 1
    assert BitAllocation(4, 2).parameterization.name == "tiles"
    assert BitAllocation(4).parameterization.name == "pixels"
