"""Feature sums and heads as bytes: sizes, rounding, and bytes that nobody vouches for."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from fedcl_distill.errors import PayloadError, SettingsError
from fedcl_distill.features import (
    LDA,
    NaiveBayes,
    decode_head,
    decode_sums,
    encode_head,
    encode_sums,
    encoded_size,
    measure,
    within_scatter,
)

NAMES = tuple("0123456789")
STORAGES = ("means", "low-rank:rank=8", "diagonal", "full")


@pytest.fixture(scope="module")
def digits():
    features, labels = load_digits(return_X_y=True)
    return torch.tensor(features / 16), torch.tensor(labels)


@pytest.mark.parametrize("storage", STORAGES)
@pytest.mark.parametrize("bits", [8, 16, 32])
def test_sums_come_back_within_their_rounding(digits, storage, bits):
    sums = measure(*digits, NAMES, storage, backbone="b")
    payload = encode_sums(sums, bits)
    back = decode_sums(payload, NAMES, 64, "b")
    step = {8: 1 / 127, 16: 1 / 32767, 32: 1e-7}[bits]
    assert back.counts.tolist() == sums.counts.tolist()
    assert float((back.means - sums.means).abs().max()) <= step * float(sums.means.abs().max())
    kind = None if sums.second is None else type(sums.second)
    assert len(payload) == encoded_size(10, 64, kind, bits, bits, rows=8)


def test_the_header_is_short(digits):
    sums = measure(*digits, NAMES, "means")
    assert len(encode_sums(sums, 8)) - 10 * (64 + 4 + 4) < 50


def test_a_whole_matrix_keeps_its_head_in_eight_bits(digits):
    """Correlations are sent, not second moments around 0: those of 8 bits lose ten points here."""
    sums = measure(*digits, NAMES, "full")
    exact, rounded = (LDA().fit(one) for one in (sums, decode_sums(encode_sums(sums, 8), NAMES, 64)))
    assert abs(exact.accuracy(*digits) - rounded.accuracy(*digits)) < 0.005


def test_absent_classes_cost_a_count(digits):
    features, labels = digits
    few = measure(features[labels < 2], labels[labels < 2], NAMES, "means")
    assert len(encode_sums(few, 8)) == encoded_size(10, 64, present=2)
    assert decode_sums(encode_sums(few, 8), NAMES, 64).counts[2:].sum() == 0


def test_features_that_do_not_vary_survive(digits):
    """The corners of digits are always black: their deviation is 0."""
    sums = measure(*digits, NAMES, "full")
    assert bool((within_scatter(sums).diagonal() < 1e-12).any())
    assert np.isfinite(LDA().fit(decode_sums(encode_sums(sums, 16), NAMES, 64)).weight).all()


@pytest.mark.parametrize("bits", [4, 8, 16, 32])
def test_heads_come_back(digits, bits):
    for head in (
        LDA().fit(measure(*digits, NAMES)),
        NaiveBayes(0.1).fit(measure(*digits, NAMES, "diagonal")),
        LDA().fit(measure(digits[0][digits[1] < 5], digits[1][digits[1] < 5], NAMES)),
    ):
        back = decode_head(encode_head(head, bits), NAMES, 64)
        assert back.bias.isinf().tolist() == head.bias.isinf().tolist()
        if bits >= 16:
            assert (back.predict(digits[0]) == head.predict(digits[0])).double().mean() > 0.99


def test_other_classes_dimensions_or_backbones_are_refused(digits):
    payload = encode_sums(measure(*digits, NAMES, backbone="mine"))
    for names, size, backbone, message in (
        (NAMES[:9], 64, "mine", "9 and 64"),
        (NAMES, 32, "mine", "10 and 32"),
        (NAMES[::-1], 64, "mine", "other class names"),
        (NAMES, 64, "yours", "another backbone"),
    ):
        with pytest.raises(PayloadError, match=message):
            decode_sums(payload, names, size, backbone)


def test_sums_are_no_head_and_a_head_is_no_sums(digits):
    sums = measure(*digits, NAMES)
    with pytest.raises(PayloadError, match="not a head"):
        decode_head(encode_sums(sums), NAMES, 64)
    with pytest.raises(PayloadError, match="not feature sums"):
        decode_sums(encode_head(LDA().fit(sums)), NAMES, 64)


@pytest.mark.parametrize(("storage", "second"), [("full", 2), ("means", 3), ("low-rank", 5)])
def test_bits_that_do_not_do_are_refused(digits, storage, second):
    with pytest.raises(SettingsError, match="bits"):
        encode_sums(measure(*digits, NAMES, storage), 8, second_bits=second)


@given(st.data())
def test_any_damage_is_found_or_harmless(data):
    """Cut, longer or altered bytes give a PayloadError, or finite sums of the right shape."""
    generator = torch.Generator().manual_seed(1)
    sums = measure(torch.randn(20, 5, generator=generator), torch.arange(20) % 3, ("a", "b", "c"), "low-rank:rank=2")
    payload = bytearray(encode_sums(sums, 4))
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    payload = payload[: data.draw(st.integers(0, len(payload)))] + data.draw(st.binary(max_size=3))
    try:
        back = decode_sums(bytes(payload), ("a", "b", "c"), 5)
    except PayloadError:
        return
    assert back.means.shape == (3, 5)
    assert torch.isfinite(back.means).all()
