"""Truth: whatever the bytes, decoding gives a valid set within limits or a PayloadError, in little memory."""

from __future__ import annotations

import copy
import json
import struct
import time
import tracemalloc

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcl_distill.errors import PayloadError, SettingsError
from fedcl_distill.synthetic import Limits, SyntheticSet, decode, encode
from synthetic_builders import KEY, make_set, put_together, take_apart, with_header

HARD = make_set((3, 1, 3, 3), labels=torch.tensor([1, 0, 1]))
SOFT = make_set((3, 3), labels=torch.tensor([[0.2, 0.8], [1.0, 0.0], [0.5, 0.5]]))
ORDERED = make_set((2, 3, 2, 1))
PAYLOADS = [encode(one, bits, coding="safetensors") for one in (HARD, SOFT, ORDERED) for bits in (4, 8, 16, 32)]
PAYLOADS += [encode(one, 2, coding="safetensors") for one in (HARD, SOFT, ORDERED)]
IDS = [f"{name}-{bits}" for name in ("hard", "soft", "ordered") for bits in (4, 8, 16, 32)]
IDS += [f"{name}-2" for name in ("hard", "soft", "ordered")]
MEBIBYTE = 2**20


def decodes_or_is_refused(payload: bytes) -> SyntheticSet | None:
    limits = Limits()
    try:
        one = decode(payload, limits)
    except PayloadError:  # any other exception fails the test
        return None
    assert len(one) <= limits.max_samples
    assert one.num_classes <= limits.max_classes
    assert all(torch.isfinite(array).all() for array in one.arrays.values())
    return one


@pytest.mark.parametrize("payload", PAYLOADS, ids=IDS)
def test_every_truncation_and_every_extension_is_refused(payload):
    for length in range(len(payload)):
        with pytest.raises(PayloadError):
            decode(payload[:length])
    for rest in (b"\0", b"rest", bytes(8)):
        with pytest.raises(PayloadError):
            decode(payload + rest)


@pytest.mark.parametrize("payload", PAYLOADS[::3], ids=IDS[::3])
@pytest.mark.parametrize("mask", [0x01, 0x10, 0x80])
def test_every_flipped_byte_is_harmless(payload, mask):
    for position in range(len(payload)):
        damaged = bytearray(payload)
        damaged[position] ^= mask
        decodes_or_is_refused(bytes(damaged))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_are_refused(payload):
    assert decodes_or_is_refused(payload) is None
    assert decodes_or_is_refused(with_header(payload)) is None


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["pixels", "labels", "hard", "soft", "U8", "F32", "0000c07f0000c07f", 4, 8, 16, 32, [], {}])
)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
)


@settings(max_examples=400, deadline=None)
@given(data=st.data(), payload=st.sampled_from(PAYLOADS), junk=JSON)
def test_any_value_anywhere_in_the_header_is_harmless(data, payload, junk):
    entries, metadata, body = take_apart(payload)
    tree = {"entries": entries, "metadata": metadata}
    node, key = tree, data.draw(st.sampled_from(["entries", "metadata"]))
    while isinstance(node[key], dict | list) and node[key] and data.draw(st.booleans()):
        node = node[key]
        key = data.draw(st.sampled_from(range(len(node)) if isinstance(node, list) else sorted(node)))
    node[key] = junk
    entries = tree["entries"] if isinstance(tree["entries"], dict) else {"pixels": tree["entries"]}
    decodes_or_is_refused(put_together(entries, tree["metadata"], body))


def crafted(change, payload=PAYLOADS[1]):
    entries, metadata, body = copy.deepcopy(take_apart(payload))
    result = change(entries, metadata)
    return put_together(entries, metadata if result is None else result, body)


def put(where, *path_and_value):
    *path, last, value = path_and_value

    def change(entries, metadata):
        node = entries if where == "entries" else metadata
        for key in path:
            node = node[key]
        node[last] = value

    return change


def drop(where, key):
    return lambda entries, metadata: (entries if where == "entries" else metadata).pop(key) and None


NAN, INFINITE, ONE, ZERO = (struct.pack("<f", value).hex() for value in (float("nan"), float("inf"), 1.0, 0.0))

CRAFTED = {
    "huge shape": (put("entries", "pixels", "shape", [2**62, 2**62]), "no integer in"),
    "huge product": (put("entries", "pixels", "shape", [2**20, 2**20]), "values, at most"),
    "huge empty shape": (put("entries", "pixels", "shape", [2**26, 0]), "but 27 bytes"),
    "negative shape": (put("entries", "pixels", "shape", [-3, -1, 3, 3]), "no integer in"),
    "boolean shape": (put("entries", "pixels", "shape", [True, 27]), "no integer in"),
    "many dimensions": (put("entries", "pixels", "shape", [27] + [1] * 20), "at most 8 dimensions"),
    "other dimensions": (put("entries", "pixels", "shape", [27]), "2 or 4 dimensions"),
    "reordered shape": (put("entries", "pixels", "shape", [9, 1, 3, 1]), "labels must have shape"),
    "unknown dtype": (put("entries", "pixels", "dtype", "F16"), "has dtype 'F16'"),
    "list as dtype": (put("entries", "pixels", "dtype", ["U8"]), "has dtype"),
    "wide labels": (put("entries", "labels", "dtype", "F32"), "but 3 bytes"),
    "gap": (put("entries", "pixels", "data_offsets", [4, 31]), "gap or overlaps"),
    "overlap": (put("entries", "labels", "data_offsets", [1, 4]), "gap or overlaps"),
    "negative offsets": (put("entries", "labels", "data_offsets", [-3, 0]), "but 3 bytes|declares"),
    "far offsets": (put("entries", "pixels", "data_offsets", [2**70, 2**70 + 27]), "gap or overlaps"),
    "float offsets": (put("entries", "pixels", "data_offsets", [3.0, 30.0]), "integer data_offsets"),
    "superfluous entry key": (put("entries", "pixels", "stride", 1), "needs exactly"),
    "superfluous array": (
        put("entries", "more", {"dtype": "U8", "shape": [0], "data_offsets": [30, 30]}),
        "ranges for",
    ),
    "missing array": (drop("entries", "pixels"), "bytes after its last array|gap"),
    "missing labels": (put("metadata", "labels", "soft"), "ranges for"),
    "labels nobody announced": (put("metadata", "labels", [1, 2]), "does not announce"),
    "negative counts": (put("metadata", "labels", [4, -1]), "a count a class"),
    "no format": (drop("metadata", "format"), "format None is unknown"),
    "next format": (put("metadata", "format", 3), "format 3 is unknown"),
    "boolean format": (put("metadata", "format", True), "format True is unknown"),
    "no mean": (drop("metadata", "mean"), "missing"),
    "superfluous key": (put("metadata", "pickle", "gASVBAAAAAAAAABLAS4="), "superfluous"),
    "odd bits": (put("metadata", "bits", 7), "bits must be one of"),
    "other bits": (put("metadata", "bits", 16), "has dtype uint8, expected uint16"),
    "more bits": (put("metadata", "bits", 32), "ranges for"),
    "packed bits": (put("metadata", "bits", 4), "shapes for"),
    "unknown parameterization": (put("metadata", "store", "os.system"), "unknown parameterization"),
    "number as parameterization": (put("metadata", "store", 1), "must be a string"),
    "unknown setting": (put("metadata", "settings", {"a": 1}), "unknown setting"),
    "nested setting": (put("metadata", "settings", {"a": [1]}), "must be a single value"),
    "settings list": (put("metadata", "settings", [1]), "must be an object"),
    "no classes": (put("metadata", "classes", 0), "number of classes"),
    "absurd number of classes": (put("metadata", "classes", 10**12), "number of classes"),
    "absurd digits": (put("metadata", "classes", 10**4000), "number of classes|cannot be decoded"),
    "boolean classes": (put("metadata", "classes", True), "number of classes"),
    "nameless classes": (put("metadata", "classes", [1, 2]), "must be strings"),
    "too few classes": (put("metadata", "classes", 1), "labels outside"),
    "labels of too few bytes": (put("metadata", "classes", 300), "has dtype uint8, expected uint16"),
    "NaN mean": (put("metadata", "mean", [float("nan")]), "NaN is not a number"),
    "text mean": (put("metadata", "mean", ["0"]), "list of numbers"),
    "huge integer mean": (put("metadata", "mean", [10**400]), "out of range"),
    "two means": (put("metadata", "mean", [0.0, 0.0]), "std needs 2 numbers"),
    "other channels": (
        lambda entries, metadata: metadata.update(mean=[0.0] * 2, std=[1.0] * 2),
        "normalisation for 2 channels",
    ),
    "zero std": (put("metadata", "std", [0.0]), "positive, finite"),
    "negative std": (put("metadata", "std", [-1.0]), "positive, finite"),
    "reversed value range": (put("metadata", "range", [1.0, 0.0]), "must ascend"),
    "long value range": (put("metadata", "range", [0.0, 1.0, 2.0]), "needs 2 numbers"),
    "NaN range": (put("metadata", "ranges", "pixels", NAN + NAN), "must be finite"),
    "infinite range": (put("metadata", "ranges", "pixels", ZERO + INFINITE), "must be finite"),
    "reversed range": (put("metadata", "ranges", "pixels", ONE + ZERO), "must ascend"),
    "short range": (put("metadata", "ranges", "pixels", "00"), "bad quantisation range"),
    "range of numbers": (put("metadata", "ranges", "pixels", [0, 1]), "bad quantisation range"),
    "no ranges": (drop("metadata", "ranges"), "ranges for"),
    "deep list": (lambda *_: "[" * 100_000, "not valid JSON"),
    "deep provenance": (
        lambda _, metadata: json.dumps(metadata)[:-1] + ', "x": ' + "[" * 40 + "]" * 40 + "}",
        "nested deeper",
    ),
    "list metadata": (lambda *_: "[]", "not a JSON object"),
    "no JSON": (lambda *_: "{", "not valid JSON"),
    "duplicate key": (lambda _, metadata: '{"format": 1, ' + json.dumps(metadata)[1:], "duplicate key"),
    "half a character": (put("metadata", "classes", ["a", "\ud800"]), "not valid JSON"),
    "overflowing number": (
        lambda _, metadata: json.dumps(metadata).replace("0.1307", "1e999"),
        "out of range",
    ),
}


@pytest.mark.parametrize("name", CRAFTED)
def test_crafted_headers_are_refused_for_the_right_reason(name):
    change, said = CRAFTED[name]
    assert decode(PAYLOADS[1]) is not None
    with pytest.raises(PayloadError, match=said):
        decode(crafted(change))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (put("metadata", "shapes", "pixels", [2**27, 2**27]), "values, at most"),
        (put("metadata", "shapes", "pixels", [3, 1, 3, 9]), "4-bit values of shape"),
        (put("metadata", "shapes", "pixels", [2**40]), "no integer in"),
        (put("metadata", "shapes", {}), "shapes for"),
        (put("metadata", "ranges", "labels", ZERO + ONE), "ranges for"),
    ],
)
def test_crafted_4_bit_headers_are_refused(change, said):
    with pytest.raises(PayloadError, match=said):
        decode(crafted(change, PAYLOADS[0]))


def test_floats_that_are_not_finite_are_refused():
    payload = PAYLOADS[3]
    for value in ("nan", "inf", "-inf"):
        entries, metadata, body = take_apart(payload)
        with pytest.raises(PayloadError, match="NaN or infinity"):
            decode(put_together(entries, metadata, struct.pack("<f", float(value)) + body[4:]))


def test_labels_out_of_range_are_refused():
    entries, metadata, body = take_apart(PAYLOADS[1])
    start, _ = entries["labels"]["data_offsets"]
    with pytest.raises(PayloadError, match="labels outside"):
        decode(put_together(entries, metadata, body[:start] + b"\x07" + body[start + 1 :]))


@pytest.mark.parametrize("counts", [[2], [1, 1, 0], [2, 1], [0, 0], [2**80, 0]])
def test_label_counts_that_do_not_fit_are_refused(counts):
    with pytest.raises(PayloadError, match="label counts do not fit"):
        decode(crafted(put("metadata", "labels", counts), PAYLOADS[9]))


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        (Limits(max_payload_bytes=100), "bytes, at most 100"),
        (Limits(max_metadata_bytes=100), "bytes, at most 100"),
        (Limits(max_samples=2), "3 samples, at most 2"),
        (Limits(max_values=26), "27 values, at most 26|integer in"),
        (Limits(max_classes=1), r"classes must be in \[1, 1\]"),
    ],
)
def test_every_limit_holds_and_is_named(limits, said):
    with pytest.raises(PayloadError, match=said):
        decode(PAYLOADS[1], limits)


def test_limits_that_are_just_enough_are_enough():
    payload = encode(HARD, coding="safetensors")
    (header,) = struct.unpack_from("<Q", payload)
    limits = Limits(len(payload), header, max_samples=3, max_values=27, max_classes=2)
    assert len(decode(payload, limits)) == 3


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "1"])
def test_limits_must_be_positive_integers(value):
    with pytest.raises(SettingsError, match="max_samples"):
        Limits(max_samples=value)


@pytest.mark.parametrize("payload", [None, "text", 5, [1, 2], object(), memoryview(bytes(8))[::2]])
def test_what_is_not_bytes_is_refused(payload):
    with pytest.raises(PayloadError):
        decode(payload)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"[]",
        b"null",
        b"\xff\xfe{\x00}\x00",
        b'{"__metadata__":{}}',
        b'{"__metadata__":[]}',
        b'{"__metadata__":{"fedcl_distill":1}}',
        b'{"__metadata__":{"fedcl_distill":"{}","other":"x"}}',
        b'{"a":1,"a":2}',
        b"{" * 100_000,
        b'{"a":' * 50_000,
    ],
)
def test_headers_of_other_kinds_are_refused(header):
    with pytest.raises(PayloadError):
        decode(with_header(header))


HOSTILE_SIZES = {
    "header length": struct.pack("<Q", 2**63) + bytes(100),
    "nested lists": with_header(b'{"a":[' + b"[]," * 80_000 + b"[]]}"),
    "deep lists": with_header(b"[" * 250_000),
    "many entries": with_header(json.dumps({str(i): {} for i in range(20_000)}).encode()),
    "shape": crafted(put("entries", "pixels", "shape", [2**13, 2**13])),
    "packed shape": crafted(put("metadata", "shapes", "pixels", [2**13, 2**13]), PAYLOADS[0]),
    "classes": crafted(put("metadata", "classes", 2**40)),
    "counts": crafted(put("metadata", "labels", [2**40, 2**40]), PAYLOADS[9]),
    "digits": with_header(b'{"a":' + b"9" * 250_000 + b"}"),
}


@pytest.mark.parametrize("name", HOSTILE_SIZES)
def test_claims_of_size_cost_neither_memory_nor_time(name):
    tracemalloc.start()
    try:
        started = time.perf_counter()
        assert decodes_or_is_refused(HOSTILE_SIZES[name]) is None
        assert time.perf_counter() - started < 5
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 32 * MEBIBYTE


@pytest.mark.parametrize("coding", ["safetensors", "fixed"])
@pytest.mark.parametrize("bits", [2, 4, 8, 16, 32])
def test_memory_of_an_honest_payload_is_as_stated(bits, coding):
    values = 2**21
    payload = encode(make_set(pixels=torch.linspace(-1, 1, values).view(2, 1, 1024, 1024)), bits, coding=coding)
    tracemalloc.start()
    try:
        decode(payload)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 6 * values + 6 * MEBIBYTE


def test_errors_do_not_repeat_what_a_hostile_payload_says_at_length():
    with pytest.raises(PayloadError) as caught:
        decode(crafted(put("metadata", "store", "x" * 100_000)))
    assert len(str(caught.value)) < 400
    assert KEY not in str(caught.value)


def test_array_names_are_not_repeated_at_length():
    entries, metadata, body = take_apart(PAYLOADS[1])
    entries["x" * 100_000] = entries.pop("pixels")
    with pytest.raises(PayloadError) as caught:
        decode(put_together(entries, metadata, body))
    assert len(str(caught.value)) < 400
