"""Truth: the set that was encoded, the stated error bound, the number of bytes, safetensors' own reader."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as numpy_arrays
from safetensors.numpy import load as safetensors_load
from safetensors.numpy import save as safetensors_save

from fedcl_distill.data.spec import DataSpec, Normalisation
from fedcl_distill.errors import DataError, PayloadError, SettingsError
from fedcl_distill.parameterizations import PARAMETERIZATIONS, Shape
from fedcl_distill.synthetic import (
    SyntheticSet,
    decode,
    encode,
    encoded_bytes,
    payload_bytes,
    quantisation_error,
)
from synthetic_builders import KEY, Scaled, make_set, take_apart

BITS = [2, 4, 8, 16, 32]
QUICK = settings(max_examples=60, deadline=None)


@pytest.fixture
def scaled() -> Iterator[SyntheticSet]:
    """A set of two arrays, one of them constant, under a parameterization with a setting."""
    PARAMETERIZATIONS.register(Scaled.name)(Scaled)
    pixels = make_set((3, 3, 2, 5), classes=3)
    yield replace(pixels, arrays=Scaled(0.5).start(pixels.inputs()), parameterization=Scaled(0.5))
    PARAMETERIZATIONS.unregister(Scaled.name)


def assert_same_but_for_values(one: SyntheticSet, other: SyntheticSet) -> None:
    assert one.parameterization == other.parameterization
    assert one.class_names == other.class_names
    assert one.normalisation == other.normalisation
    assert one.value_range == other.value_range
    assert dict(one.provenance) == dict(other.provenance)
    assert set(one.arrays) == set(other.arrays)
    assert one.labels.dtype == other.labels.dtype


def assert_round_trip(one: SyntheticSet, bits: int) -> None:
    payload = encode(one, bits)
    back = decode(payload)
    assert_same_but_for_values(one, back)
    bounds = quantisation_error(one, bits)
    values = dict(one.arrays) | ({"labels": one.labels} if one.labels.ndim == 2 else {})
    decoded = dict(back.arrays) | {"labels": back.labels}
    for name, array in values.items():
        assert decoded[name].shape == array.shape
        if array.numel():
            assert float((decoded[name].double() - array.double()).abs().max()) <= bounds[name]
            assert array.min() <= decoded[name].min()
            assert decoded[name].max() <= array.max()
    if one.labels.ndim == 1:
        assert torch.equal(one.labels, back.labels)
    assert encode(back, bits) == payload
    assert len(payload) == encoded_bytes(one, bits)


SHAPES = [
    (1, 1),
    (3, 7),
    (1, 1, 1, 1),
    (5, 1, 3, 3),
    (4, 3, 5, 2),
    (7, 2, 1, 3),
    (0, 1, 8, 8),
    (0, 3),
]


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("shape", SHAPES)
def test_round_trip_of_every_shape(shape, bits):
    assert_round_trip(make_set(shape, classes=3), bits)


FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


@QUICK
@given(
    values=numpy_arrays(np.float32, st.tuples(st.integers(1, 5), st.integers(1, 5)), elements=FINITE),
    bits=st.sampled_from(BITS),
)
def test_round_trip_of_any_finite_values(values, bits):
    assert_round_trip(make_set(pixels=torch.from_numpy(values)), bits)


@QUICK
@given(
    start=st.floats(-1e6, 1e6, width=32),
    steps=st.lists(st.integers(0, 300_000), min_size=2, max_size=40),
    bits=st.sampled_from(BITS),
)
def test_round_trip_where_float32_is_about_as_coarse_as_the_grid(start, steps, bits):
    first = np.abs(np.float32(start)).view(np.int32)
    values = (first + np.array(steps, dtype=np.int32)).view(np.float32)  # neighbours in float32
    assert_round_trip(make_set(pixels=torch.from_numpy(values)[None]), bits)


@pytest.mark.parametrize("bits", BITS)
def test_every_code_survives(bits):
    values = torch.linspace(-3, 5, 2 ** min(bits, 16))[:, None]
    assert_round_trip(make_set(pixels=values, labels=torch.zeros(len(values), dtype=torch.int64)), bits)


def test_32_bits_are_exact_to_the_last_bit():
    values = torch.tensor([[0.0, -0.0, 1e-45, -3.4028235e38, 3.4028235e38, 1 / 3]])
    back = decode(encode(make_set(pixels=values), 32)).arrays["pixels"]
    assert back.numpy().tobytes() == values.numpy().tobytes()
    assert quantisation_error(make_set(pixels=values), 32) == {"pixels": 0.0}


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("value", [0.0, -0.1, 3.4028235e38, 1e-45])
def test_constant_arrays_are_exact(value, bits):
    values = torch.tensor([[value] * 3] * 3)
    one = make_set(pixels=values)
    assert torch.equal(decode(encode(one, bits)).arrays["pixels"], values)
    assert quantisation_error(one, bits) == {"pixels": 0.0}


@pytest.mark.parametrize("bits", [2, 4, 8, 16])
def test_the_bound_is_half_a_step_and_is_reached(bits):
    levels = 2**bits - 1
    values = torch.tensor([[0.0, 1.0, 0.5 / levels]])  # the last is half way between two steps
    error = float((decode(encode(make_set(pixels=values), bits)).arrays["pixels"] - values).abs().max())
    bound = quantisation_error(make_set(pixels=values), bits)["pixels"]
    assert bound == pytest.approx(0.5 / levels, rel=0.01, abs=2e-7)
    assert error == pytest.approx(0.5 / levels, rel=0.01)


@pytest.mark.parametrize("bits", BITS)
def test_several_arrays_and_settings(scaled, bits):
    assert_round_trip(scaled, bits)
    assert decode(encode(scaled, bits)).parameterization == Scaled(0.5)


@pytest.mark.parametrize("bits", BITS)
def test_soft_labels_get_at_least_8_bits(bits):
    labels = torch.rand(5, 4, generator=torch.Generator().manual_seed(1)).softmax(dim=1)
    one = make_set((5, 3, 2, 2), classes=4, labels=labels)
    assert_round_trip(one, bits)
    assert payload_bytes(one, bits, coding="safetensors").labels == 5 * 4 * max(bits, 8) // 8


@pytest.mark.parametrize(("classes", "each"), [(2, 1), (256, 1), (257, 2), (65_536, 2), (65_537, 4)])
def test_hard_labels_take_the_smallest_integers(classes, each):
    labels = torch.tensor([classes - 1, 0, classes - 1])
    one = make_set((3, 2), classes=classes, labels=labels)
    assert payload_bytes(one, coding="safetensors").labels == 3 * each
    if classes <= 10_000:
        assert torch.equal(decode(encode(one)).labels, labels)


@pytest.mark.parametrize("counts", [[3, 0, 2], [0, 0, 0], [1, 1, 1], [0, 5, 0]])
def test_labels_in_order_travel_as_counts(counts):
    labels = torch.arange(3).repeat_interleave(torch.tensor(counts))
    one = make_set((sum(counts), 2), classes=3, labels=labels)
    assert payload_bytes(one, coding="safetensors").labels == 0
    assert_round_trip(one, 8)


def test_labels_in_order_of_many_classes_travel_as_an_array():
    one = make_set((5, 2), classes=1000, labels=torch.tensor([0, 1, 2, 3, 999]))
    assert payload_bytes(one, coding="safetensors").labels == 10
    assert_round_trip(one, 8)


def test_a_hundred_named_classes():
    names = tuple(f'class {label} «ü» "quoted"\n' for label in range(100))
    one = make_set((100, 3, 4, 6), classes=100, class_names=names)
    assert_round_trip(one, 8)


def test_bytes_are_accounted_for():
    one = make_set((3, 1, 3, 3), labels=torch.tensor([1, 0, 1]))
    for bits, arrays in [(2, 7), (4, 14), (8, 27), (16, 54), (32, 108)]:
        parts = payload_bytes(one, bits, coding="safetensors")
        assert (parts.arrays, parts.labels) == (arrays, 3)
        assert parts.total == len(encode(one, bits, coding="safetensors"))
        assert parts.header < 500


def test_size_does_not_depend_on_values_and_provenance_can_stay():
    one, zeros = make_set(), make_set(pixels=torch.zeros(4, 1, 3, 5))
    for bits in BITS:
        for coding in ("safetensors", "fixed"):
            assert len(encode(one, bits, coding=coding)) == encoded_bytes(zeros, bits, coding=coding)
        assert encoded_bytes(one, bits, provenance=False) == len(encode(one, bits, provenance=False))
    assert encoded_bytes(one, provenance=False) < encoded_bytes(one)
    assert decode(encode(one, provenance=False)).provenance == {}


@pytest.mark.parametrize("coding", ["safetensors", "fixed"])
@pytest.mark.parametrize("classes", [3, 10, 100, 300])
def test_size_grows_with_the_number_of_samples_in_order(classes, coding):
    sizes = []
    for count in range(1, 3 * classes, max(1, classes // 10)):
        labels = (torch.arange(count) % classes).sort().values
        sizes.append(encoded_bytes(make_set((count, 1, 8, 8), classes=classes, labels=labels), 4, coding=coding))
    assert sizes == sorted(sizes)


def test_encoding_ignores_the_order_of_dictionaries():
    one = make_set(provenance={"a": 1, "b": {"c": 2, "d": 3}})
    other = make_set(provenance={"b": {"d": 3, "c": 2}, "a": 1})
    assert encode(one) == encode(other)


def test_tensors_that_are_views_or_need_gradients_are_encoded():
    values = make_set((3, 4, 2, 5)).inputs()
    view = values.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0).requires_grad_()
    assert not view.is_contiguous()
    assert encode(make_set(pixels=view), 32) == encode(make_set(pixels=values), 32)


@pytest.mark.parametrize("bits", BITS)
def test_safetensors_reads_what_we_write(scaled, bits):
    for one in (scaled, make_set((3, 1, 3, 3), labels=torch.tensor([1, 0, 1]))):
        payload = encode(one, bits, coding="safetensors")
        assert set(safetensors_load(payload)) >= set(one.arrays)
        entries, _, _ = take_apart(payload)
        assert safetensors_load(payload).keys() == entries.keys()
        if bits == 32:
            for name, array in one.arrays.items():
                np.testing.assert_array_equal(safetensors_load(payload)[name], array.numpy())


def test_we_read_what_safetensors_writes():
    one = make_set((3, 1, 3, 3), labels=torch.tensor([1, 0, 1]))
    payload = encode(one, coding="safetensors")
    _, metadata, _ = take_apart(payload)
    rewritten = safetensors_save(safetensors_load(payload), {KEY: json.dumps(metadata)})
    assert torch.equal(decode(rewritten).arrays["pixels"], decode(payload).arrays["pixels"])


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_other_buffers_decode_and_are_not_kept(kind):
    payload = encode(make_set(), 32)
    assert encode(decode(kind(payload)), 32) == payload


@pytest.mark.parametrize("bits", [0, 1, 7, 64, 8.0, "8", None])
def test_unknown_depths_are_refused(bits):
    for function in (encode, quantisation_error, encoded_bytes):
        with pytest.raises(SettingsError, match="bits must be one of"):
            function(make_set(), bits)


@pytest.mark.parametrize(
    "provenance",
    [{"loss": float("nan")}, {"array": torch.zeros(2)}, {"half": "\ud800"}, {1: 2, "a": 3}],
)
def test_provenance_that_is_no_json_is_refused(provenance):
    with pytest.raises(PayloadError, match="cannot be written as JSON"):
        encode(make_set(provenance=provenance))


class TwoFeatures(Scaled):
    """Takes any arrays, to reach the codec's own check of their names."""

    def decoded_shape(self, shapes: Mapping[str, Shape]) -> Shape:
        return (3, 2)


def test_the_name_of_the_labels_is_taken():
    one = SyntheticSet(
        {"labels": torch.zeros(3, 2)},
        TwoFeatures(),
        torch.tensor([0, 0, 1]),
        DataSpec((2,), ("0", "1"), Normalisation((0.0, 0.0), (1.0, 1.0))),
    )
    with pytest.raises(DataError, match="no stored array may be called 'labels'"):
        encode(one)
