"""Codecs of updates: what they lose, what they take, and what they reject."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcl_distill.errors import PayloadError, SettingsError
from strategies.federated.compression import (
    Plain,
    Quantised,
    TopK,
    decode_positions,
    encode_positions,
    positions_bytes,
    read_codec,
)

COUNT = 1300
VALUES = np.random.default_rng(0).normal(size=COUNT).astype(np.float32)


def _coded(codec, values=VALUES, seed=0):
    return codec.encode(values, np.random.default_rng(seed))


def _through(codec, values=VALUES, seed=0):
    return codec.decode(_coded(codec, values, seed), len(values))


@pytest.mark.parametrize("codec", [Plain(), TopK(1.0, 32), TopK(0.1), Quantised(2), Quantised(4), Quantised(8, 100)])
@pytest.mark.parametrize("count", [1, 2, 511, 513])
def test_sizes_are_known_before(codec, count):
    assert _coded(codec, VALUES[:count]).nbytes == codec.size(count)
    assert _through(codec, VALUES[:count]).shape == (count,)


def test_nothing_is_lost_where_nothing_is_left_out():
    for codec in (Plain(), TopK(1.0, value_bits=32)):
        assert np.array_equal(_through(codec), VALUES)
        assert codec.size(COUNT) == 4 * COUNT


def test_the_largest_values_are_kept():
    decoded = _through(TopK(0.1, value_bits=32))
    order = np.argsort(-np.abs(VALUES))
    assert np.array_equal(decoded[order[:130]], VALUES[order[:130]])
    assert not decoded[order[130:]].any()


def test_kept_values_take_half_the_bytes_as_halves():
    whole, half = TopK(0.1, value_bits=32), TopK(0.1)
    assert whole.size(COUNT) - half.size(COUNT) == 2 * 130
    kept = _through(whole)
    assert np.array_equal(_through(half), kept.astype(np.float16).astype(np.float32))
    assert np.isfinite(_through(half, np.full(4, 1e30, np.float32))).all()


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1), min_size=1))))
@settings(max_examples=150, deadline=None)
def test_positions_come_back_in_few_bits(case):
    length, chosen = case
    positions = np.array(sorted(chosen))
    coded = encode_positions(positions, length)
    assert np.array_equal(decode_positions(coded, len(positions), length), positions)
    bound = len(positions) * (2 + math.log2(length / len(positions))) / 8 + 2  # Elias–Fano, and two paddings
    assert coded.nbytes == positions_bytes(len(positions), length) <= bound


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_bytes_are_bits_and_scales(bits):
    assert Quantised(bits).size(COUNT) == math.ceil(COUNT * bits / 8) + 4 * math.ceil(COUNT / 512)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_rounding_goes_to_a_neighbour_and_has_the_right_mean(bits):
    values, codec, draws = VALUES[:300], Quantised(bits), 400
    step = float(np.abs(values).max()) / (2 ** (bits - 1) - 1)
    decoded = np.stack([_through(codec, values, seed) for seed in range(draws)])
    assert np.abs(decoded - values).max() <= step * (1 + 1e-5)
    assert len(np.unique(decoded)) <= 2**bits - 1
    error = np.abs(decoded.mean(axis=0) - values)
    assert error.max() < 5 * step / 2 / math.sqrt(draws), "a rounding of one step deviates by half a step at most"


def test_each_bucket_has_its_scale():
    values = np.concatenate([np.full(512, 1000.0), np.full(512, 0.001)]).astype(np.float32)
    assert np.allclose(_through(Quantised(2), values), values, rtol=1e-6)
    assert not _through(Quantised(2), np.zeros(3, np.float32)).any()


def test_seeds_fix_roundings():
    assert np.array_equal(_coded(Quantised(4), seed=1), _coded(Quantised(4), seed=1))
    assert not np.array_equal(_coded(Quantised(4), seed=1), _coded(Quantised(4), seed=2))


@pytest.mark.parametrize("codec", [Plain(), TopK(0.1), Quantised(4)])
def test_truncated_and_padded_payloads_are_refused(codec):
    payload = _coded(codec)
    for wrong in (payload[:-1], np.append(payload, np.uint8(0)), payload[:0]):
        with pytest.raises(PayloadError, match="expected"):
            codec.decode(wrong, COUNT)


def test_another_fraction_or_depth_is_refused():
    with pytest.raises(PayloadError, match="expected"):
        TopK(0.1).decode(_coded(TopK(0.2)), COUNT)
    with pytest.raises(PayloadError, match="expected"):
        Quantised(4).decode(_coded(Quantised(8)), COUNT)


@pytest.mark.parametrize(
    ("codec", "dtype"), [(Plain(), "<f4"), (TopK(0.1), "<f2"), (TopK(0.1, 32), "<f4"), (Quantised(4), "<f4")]
)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_and_infinity_are_refused(codec, dtype, value):
    payload = _coded(codec)
    first = np.array([value], dtype).view(np.uint8)
    payload[: len(first)] = first
    with pytest.raises(PayloadError, match="NaN or infinity"):
        codec.decode(payload, COUNT)


def test_negative_scales_and_codes_of_no_level_are_refused():
    codec, payload = Quantised(4), _coded(Quantised(4))
    negative, above = payload.copy(), payload.copy()
    negative[:4] = np.array([-1.0], "<f4").view(np.uint8)
    above[-1] = 0xFF
    with pytest.raises(PayloadError, match="negative scale"):
        codec.decode(negative, COUNT)
    with pytest.raises(PayloadError, match="code above 14"):
        codec.decode(above, COUNT)


def test_padding_must_be_zero():
    payload = _coded(Quantised(4), VALUES[:3])
    payload[-1] |= 1
    with pytest.raises(PayloadError, match="padding"):
        Quantised(4).decode(payload, 3)


@pytest.mark.parametrize("flip", [0, 1, 7])
def test_positions_repeated_missing_or_out_of_range_are_refused(flip):
    coded = encode_positions(np.array([3, 9, 90]), 100)
    bitmap = coded[-1:].copy() if flip else np.zeros(1, np.uint8)
    bitmap ^= np.uint8(flip)
    wrong = np.concatenate([coded[:-1], bitmap])
    with pytest.raises(PayloadError, match=r"position|padding"):
        decode_positions(wrong, 3, 100)


@given(st.binary(min_size=positions_bytes(5, 77), max_size=positions_bytes(5, 77)))
@settings(max_examples=200, deadline=None)
def test_whatever_is_accepted_is_canonical(payload):
    coded = np.frombuffer(payload, np.uint8)
    try:
        positions = decode_positions(coded, 5, 77)
    except PayloadError:
        return
    assert (np.diff(positions) > 0).all()
    assert 0 <= positions[0] <= positions[-1] < 77
    assert encode_positions(positions, 77).tobytes() == payload


BAD_CODECS = """
other plain:bits=8 topk:fraction=0 topk:fraction=2 topk:fraction=x topk:value_bits=8 quantised:bits=3 quantised:bucket=0
"""


@pytest.mark.parametrize("text", BAD_CODECS.split())
def test_settings_are_checked(text):
    with pytest.raises(SettingsError):
        read_codec(text)
