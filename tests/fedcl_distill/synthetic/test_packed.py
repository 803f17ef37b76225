"""Truth: nothing is lost, equal values give equal bytes on every machine, and no payload takes more than it says."""

from __future__ import annotations

import hashlib
import math
import tracemalloc
import zlib
from dataclasses import replace
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedcl_distill.data.spec import Normalisation
from fedcl_distill.errors import PayloadError, SettingsError
from fedcl_distill.methods import build_method
from fedcl_distill.parameterizations import Tiles
from fedcl_distill.synthetic import Limits, SyntheticSet, decode, encode, encoded_bytes
from fedcl_distill.synthetic.binary import Reader, Writer
from fedcl_distill.synthetic.entropy import _tables, expand, squeeze
from fedcl_distill.synthetic.packed import MAGIC
from synthetic_builders import make_set

CODINGS = ("smallest", "fixed", "safetensors")


def smooth(count: int = 20, side: int = 12, channels: int = 1) -> SyntheticSet:
    """Images that change little from pixel to pixel."""
    across, down = torch.meshgrid(torch.linspace(0, 3, side), torch.linspace(0, 2, side), indexing="ij")
    phases = torch.arange(count * channels).view(count, channels, 1, 1)
    pixels = torch.sin(across + phases) + torch.cos(down * phases / 7)
    return make_set(pixels=pixels, labels=torch.arange(count) * 2 // count)


@pytest.mark.parametrize("depth", range(1, 9))
@pytest.mark.parametrize(
    "shape", [(0,), (7,), (5, 3), (4, 2, 6), (3, 1, 4, 5), (2, 3, 5, 4), (1, 1, 2, 1), (2, 2, 1, 3)]
)
def test_any_codes_come_back(shape, depth):
    random = np.random.default_rng(depth)
    codes = random.integers(0, 2**depth, shape).astype(np.uint8)
    for some in (codes, np.zeros_like(codes), np.full_like(codes, 2**depth - 1), codes // 2):
        for centre in (0, 2 ** (depth - 1), 2**depth - 1):
            data = squeeze(some, depth, centre)
            assert np.array_equal(expand(data, shape, depth, centre), some)


@settings(max_examples=60, deadline=None)
@given(
    codes=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=4, max_side=6), elements=st.integers(0, 15)),
    junk=st.binary(max_size=30),
)
def test_the_coder_takes_any_codes_and_any_bytes(codes, junk):
    assert np.array_equal(expand(squeeze(codes, 4, 8), codes.shape, 4, 8), codes)
    try:
        found = expand(junk, codes.shape, 4, 8)
    except PayloadError:  # more bytes than these codes need
        return
    assert found.shape == codes.shape
    assert found.max(initial=0) < 16


def test_tables_are_the_logistic_function_and_its_inverse():
    squash, stretch, _ = _tables()
    exact = [65536 / (1 + math.exp(-x / 256)) for x in range(-2047, 2048)]
    assert max(abs(found - min(max(value, 32), 65504)) for found, value in zip(squash, exact, strict=True)) <= 1
    for share in range(40, 4056):
        probability = (share + 0.5) / 4096
        assert abs(stretch[share] - 256 * math.log(probability / (1 - probability))) <= 1.5


def test_bytes_are_those_of_every_machine():
    sample, channel, row, column = np.ogrid[:4, :2, :9, :7]
    codes = (row * column + 3 * channel + sample * row) % 16
    digest = hashlib.sha256()
    for shape in ((4, 2, 9, 7), (8, 63), (4, 2, 63)):
        digest.update(squeeze(codes.reshape(shape).astype(np.uint8), 4, 5))
    assert digest.hexdigest()[:16] == "8358e75aa0b2553e"


@pytest.mark.parametrize("bits", [2, 4, 8, 16, 32])
@pytest.mark.parametrize(
    "one",
    [
        smooth(4, 8),
        smooth(3, 6, 3),
        make_set((3, 1, 3, 3), labels=torch.tensor([1, 0, 1])),
        make_set((6, 5), classes=3, labels=torch.rand(6, 3).softmax(dim=1), value_range=(-3.5, 0.1)),
        make_set((4, 1, 4, 6), parameterization=Tiles(2), labels=torch.arange(16) % 2, allow_hflip=True, tasks=(1, 0)),
        make_set((0, 2)),
        make_set(pixels=torch.full((3, 1, 2, 2), 0.1)),
        make_set((4, 2), class_names=("«ü»", "")),
    ],
    ids=["grey", "colour", "hard labels", "soft labels", "tiles", "empty", "constant", "names"],
)
def test_codings_agree_and_are_canonical(one, bits):
    sets = {}
    for coding in CODINGS:
        payload = encode(one, bits, coding=coding)
        sets[coding] = decode(payload)
        assert encode(sets[coding], bits, coding=coding) == payload
        assert len(payload) == encoded_bytes(one, bits, coding=coding)
        assert sets[coding].provenance == one.provenance
    assert sets["smallest"] == sets["fixed"] == sets["safetensors"]
    assert encoded_bytes(one, bits, coding="smallest") <= encoded_bytes(one, bits, coding="fixed")
    assert sets["fixed"].spec == one.spec


def test_smooth_images_take_less_than_half_and_headers_few_bytes():
    one = smooth(100)
    assert encoded_bytes(one, 4, coding="smallest") < encoded_bytes(one, 4, coding="fixed") / 2
    empty = make_set((10, 1, 28, 28))
    assert encoded_bytes(empty, 8, provenance=False, coding="fixed") - 7840 <= 48
    assert encoded_bytes(empty, 8, provenance=False, coding="safetensors") - 7840 >= 300


def test_values_on_few_steps_stay_exact_at_any_depth_that_has_as_many():
    steps = torch.arange(60).view(4, 1, 3, 5) % 11 * 0.25 - 1
    one = make_set(pixels=steps)
    for bits in (4, 8, 16):
        assert torch.equal(decode(encode(one, bits)).arrays["pixels"], steps)
    assert encoded_bytes(one, 8) == encoded_bytes(one, 4)


def test_moments_of_features_take_four_bytes_a_number_and_are_exact():
    moments = torch.rand(2, 1280, generator=torch.Generator().manual_seed(0)) + 0.5
    spec = Normalisation(tuple(moments[0].tolist()), tuple(moments[1].tolist()))
    one = make_set((10, 1280), normalisation=spec)
    payload = encode(one, 8, provenance=False, coding="fixed")
    assert decode(payload).normalisation == spec
    assert len(payload) < 12_800 + 4 * 2560 + 60


def test_sizes_of_sets_under_a_guarantee_and_of_fixed_coding_tell_nothing():
    told = {"privacy": {"epsilon": 1.0}}
    shapes = [torch.zeros(4, 1, 8, 8), torch.randn(4, 1, 8, 8), smooth(4, 8).arrays["pixels"]]
    sets = [make_set(pixels=pixels, provenance=told) for pixels in shapes]
    for bits in (2, 4, 8, 16):
        assert len({len(encode(one, bits)) for one in sets}) == 1
        assert len({len(encode(one, bits, provenance=False)) for one in sets}) == 1
        assert len({encoded_bytes(replace(one, provenance={}), bits, coding="fixed") for one in sets}) == 1
    assert len({len(encode(replace(one, provenance={}), 8)) for one in sets}) == 3


def test_unknown_codings_are_refused():
    for call in (encode, encoded_bytes):
        with pytest.raises(SettingsError, match="coding must be one of smallest, fixed, safetensors, got 'zip'"):
            call(make_set(), coding="zip")


SOFT = make_set((3, 3), labels=torch.tensor([[0.2, 0.8], [1.0, 0.0], [0.5, 0.5]]))
PAYLOADS = [
    encode(one, bits, coding=coding)
    for one, bits in ((smooth(3, 6), 4), (make_set(), 4), (make_set(), 32), (SOFT, 2), (SOFT, 16))
    for coding in CODINGS[:2]
]


def signed(body: bytes) -> bytes:
    return body + zlib.crc32(body).to_bytes(4, "little")


def is_refused(payload: bytes) -> bool:
    try:
        one = decode(payload)
    except PayloadError:  # any other exception fails the test
        return True
    assert all(torch.isfinite(array).all() for array in one.arrays.values())
    assert decode(encode(one, 32)) == one
    return False


@pytest.mark.parametrize("payload", PAYLOADS)
def test_damage_is_refused_and_forgery_is_harmless(payload):
    random = Random(len(payload))
    for length in range(len(payload)):
        with pytest.raises(PayloadError):
            decode(payload[:length])
        assert is_refused(signed(payload[:length])) or length == len(payload) - 4
    for position in range(len(payload)):
        changed = bytearray(payload)
        changed[position] ^= 1 << random.randrange(8)
        with pytest.raises(PayloadError):
            decode(bytes(changed))
        if position % 2:
            is_refused(signed(bytes(changed[:-4])))
    with pytest.raises(PayloadError):
        decode(signed(payload[:-4] + b"\0"))


def test_claims_of_work_and_size_are_refused_before_anything_is_allocated():
    header = Writer(bytearray(MAGIC + bytes([0, 0])))
    for number in (1, 2, 1):  # pixels; two classes; one channel
        header.whole(number)
    header.reals([0.0, 1.0])
    for number in (2**19, 1, 1, 4, 2**20, 1, 28, 28, 2):  # samples a class; an array of pixels, its shape; coded
        header.whole(number)
    claim = bytes(header.parts) + bytes([255, 0]) + bytes(8) + b"\1\0"
    tracemalloc.start()
    try:
        with pytest.raises(PayloadError, match=r"values|entropy-coded"):
            decode(signed(claim))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**20
    payload = encode(smooth(), 8, provenance=False)
    coded = 20 * 12 * 12 * 8
    with pytest.raises(PayloadError, match=f"more than {coded - 1} bits are entropy-coded"):
        decode(payload, Limits(max_coded_bits=coded - 1))
    assert len(decode(payload, Limits(len(payload), 60, 20, 2880, 2, coded))) == 20


@settings(max_examples=300, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.1307, -0.0, 1e300, 2**53, 0.1 + 0.2]))
def test_numbers_are_exact(value):
    writer = Writer()
    writer.real(value)
    assert len(writer.parts) <= 9
    found = Reader(memoryview(bytes(writer.parts))).real()
    assert np.float64(found).tobytes() == np.float64(value).tobytes()


@given(st.integers(-(2**63), 2**63 - 1))
def test_whole_numbers_are_exact(value):
    writer = Writer()
    writer.signed(value)
    assert Reader(memoryview(bytes(writer.parts))).signed() == value


def test_core_sets_of_digits_shrink_without_loss(digits):
    one = build_method("random").distil(digits.train, 10, seed=0)
    small, plain = encode(one, 4), encode(one, 4, coding="safetensors")
    assert decode(small) == decode(plain)
    assert len(small) < 0.8 * len(plain)
