"""Packed codes against Python's own big integers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcl_distill.synthetic.quantise import pack, packed_bytes, padding_is_zero, unpack


@given(st.integers(0, 32).flatmap(lambda bits: st.tuples(st.just(bits), st.lists(st.integers(0, 2**bits - 1)))))
@settings(max_examples=100, deadline=None)
def test_codes_stand_side_by_side_in_one_large_number(case: tuple[int, list[int]]) -> None:
    bits, codes = case
    packed = pack(np.array(codes, np.uint32), bits)
    length = packed_bytes(len(codes), bits)
    number = 0
    for code in codes:
        number = number << bits | code
    number <<= 8 * length - bits * len(codes)
    assert packed.tobytes() == number.to_bytes(length, "big")
    assert unpack(packed, bits, len(codes)).tolist() == codes
    assert padding_is_zero(packed, bits, len(codes))


@pytest.mark.parametrize("bits", [1, 3, 4, 13])
def test_arrays_larger_than_a_chunk(bits: int) -> None:
    codes = np.random.default_rng(0).integers(0, 2**bits, 2**17 + 5).astype(np.uint32)
    assert np.array_equal(unpack(pack(codes, bits), bits, codes.size), codes)


def test_set_padding_is_seen() -> None:
    packed = pack(np.array([1, 2, 3], np.uint8), 4)
    assert padding_is_zero(packed, 4, 3)
    packed[-1] |= 1
    assert not padding_is_zero(packed, 4, 3)
