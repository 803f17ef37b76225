"""Truth: the codec itself. What training saw is what its payload decodes to, and gradients do not notice."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from builders import blobs
from fedcl_distill.data import LabelledData, Splits
from fedcl_distill.engine import Budget, Engine
from fedcl_distill.engine.loop import fake_quantize
from fedcl_distill.errors import SettingsError
from fedcl_distill.methods import build_method
from fedcl_distill.networks import Architecture
from fedcl_distill.synthetic import decode, encode
from synthetic_builders import make_set


def _method(bits: int, **settings: object) -> Engine:
    method = build_method("dm", architecture="convnet:width=8,depth=2", real_batch_per_class=16, **settings)
    assert isinstance(method, Engine)
    return replace(method, bits=bits)


@given(
    values=arrays("float32", array_shapes(min_dims=2, max_dims=2), elements=st.floats(-1e6, 1e6, width=32)),
    bits=st.sampled_from([2, 4, 8, 16, 32]),
)
def test_it_is_the_way_through_the_codec(values: object, bits: int) -> None:
    pixels = torch.from_numpy(values)  # type: ignore[arg-type]
    labels = torch.zeros(len(pixels), dtype=torch.int64)
    sent = decode(encode(make_set(pixels=pixels, labels=labels), bits)).inputs()
    assert torch.equal(fake_quantize({"pixels": pixels}, bits)["pixels"], sent)


def test_gradients_pass_as_if_nothing_was_rounded() -> None:
    array = torch.randn(5, 7, generator=torch.Generator().manual_seed(0)).requires_grad_()
    pull = torch.randn(5, 7, generator=torch.Generator().manual_seed(1))
    (fake_quantize({"a": array}, 2)["a"] * pull).sum().backward()
    assert torch.equal(array.grad, pull)


@pytest.mark.parametrize("parameterization", ["pixels", "tiles:factor=2", "addressing:bases=2", "low-rank:rank=2"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_result_survives_its_payload_to_the_last_bit(bits: int, parameterization: str) -> None:
    method = _method(bits, parameterization=parameterization)
    synthetic = method.distil(blobs(), 2, seed=0, budget=Budget(steps=3))
    assert torch.equal(decode(encode(synthetic, bits)).inputs(), synthetic.inputs())
    assert synthetic.provenance.get("bits", 32) == bits


def test_few_bits_serve_better_where_training_saw_them(digits: Splits) -> None:
    """The loss of distribution matching, on fresh networks, of what two bits leave of either set."""
    budget = Budget(steps=60)
    naive = _method(32, learning_rate=3.0).distil(digits.train, 5, seed=0, budget=budget)
    aware = _method(2, learning_rate=3.0).distil(digits.train, 5, seed=0, budget=budget)
    left = [decode(encode(one, 2)).as_labelled_data() for one in (naive, aware)]
    assert _mismatch(left[1], digits.train) < 0.9 * _mismatch(left[0], digits.train)


def test_an_unknown_depth_is_refused() -> None:
    with pytest.raises(SettingsError, match="bits must be one of 2, 4, 8, 16, 32, got 3"):
        _method(3)


def _mismatch(synthetic: LabelledData, real: LabelledData) -> float:
    total = 0.0
    for seed in range(5):
        network = Architecture.parse("convnet:width=8,depth=2").build(real.sample_shape, real.num_classes, seed=seed)
        with torch.no_grad():
            for label in range(real.num_classes):
                means = [network.embed(data.inputs(data.indices_of(label))).mean(dim=0) for data in (real, synthetic)]
                total += float((means[0] - means[1]).square().sum())
    return total
