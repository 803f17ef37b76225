"""Statistics to bytes and back, and bytes that are none."""

from __future__ import annotations

import json
import struct
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from builders import blobs
from fedcl_distill.errors import DataError, PayloadError, SettingsError, StorageError
from fedcl_distill.statistics import (
    ClassStatistics,
    StatisticsExpectation,
    StatisticsSpec,
    Sums,
    class_statistics,
    decode_statistics,
    encode_statistics,
    load_statistics,
    save_statistics,
)
from fedcl_distill.synthetic import Limits

SPEC = StatisticsSpec(views=4, architecture="mlp:width=6", dimensions=5, moments=2, share=0.7)
CHARACTERISTIC = replace(SPEC, kind="characteristic", dimensions=4, share=1.0)


@pytest.fixture(scope="module")
def data():
    return blobs((4,), per_class=11)


@pytest.fixture(scope="module")
def statistics(data):
    return class_statistics(data, SPEC)


def _means(statistics, name):
    sums = statistics.sums[name]
    return sums.means[sums.counts > 0]


@pytest.mark.parametrize("bits", [8, 16, 32])
@pytest.mark.parametrize("spec", [SPEC, CHARACTERISTIC], ids=["share", "whole"])
def test_counts_are_exact_and_means_within_half_a_step(bits, spec, data):
    statistics = class_statistics(data, spec)
    found = decode_statistics(encode_statistics(statistics, bits))
    assert (found.spec, found.domain) == (statistics.spec, statistics.domain)
    for name, sums in statistics.sums.items():
        assert torch.equal(found.sums[name].counts, sums.counts)
        span = float(_means(statistics, name).max() - _means(statistics, name).min())
        bound = 1e-6 * span if bits == 32 else span / (2 * (2**bits - 1)) * 1.001
        assert float((_means(found, name) - _means(statistics, name)).abs().max()) <= bound + 1e-7


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_bytes_are_those_of_present_classes(bits, data):
    def arrays(rows):
        part = class_statistics(data.subset(torch.cat([data.indices_of(label) for label in rows])), CHARACTERISTIC)
        payload = encode_statistics(part, bits)
        (header,) = struct.unpack_from("<Q", payload)
        return len(payload) - 8 - header

    values = 4 * 4 + 4 + 10  # of a class: four views of four, the samples, their products
    assert arrays([0]) == values * bits // 8 + 3
    assert arrays([0, 2]) == 2 * values * bits // 8 + 3


@st.composite
def _any_statistics(draw):
    views, classes = draw(st.integers(2, 4)), draw(st.integers(1, 4))
    spec = StatisticsSpec(views=views, architecture="mlp:width=3", dimensions=2, moments=0)
    counts = torch.tensor(draw(st.lists(st.sampled_from([0, 1, 7, 300, 70_000]), min_size=classes, max_size=classes)))
    domain = blobs((2,), classes=classes).spec

    def sums(views, size):
        values = draw(
            st.lists(st.floats(-50, 50, width=32), min_size=views * classes * size, max_size=views * classes * size)
        )
        of_view = counts.expand(views, classes).clone()
        return Sums(of_view, torch.tensor(values).double().view(views, classes, size) * of_view[..., None])

    return ClassStatistics(spec, domain, {"features": sums(views, 2), "samples": sums(1, 2)})


@settings(max_examples=30, deadline=None)
@given(_any_statistics(), st.sampled_from([8, 16, 32]))
def test_what_was_decoded_encodes_to_the_same_means(statistics, bits):
    once = decode_statistics(encode_statistics(statistics, bits))
    twice = decode_statistics(encode_statistics(once, bits))
    for name, sums in once.sums.items():
        assert torch.equal(sums.counts, statistics.sums[name].counts)
        torch.testing.assert_close(twice.sums[name].means.float(), sums.means.float(), rtol=1e-6, atol=1e-6)


def test_files(tmp_path, statistics):
    path = tmp_path / "sums.safetensors"
    assert save_statistics(statistics, path) == path.stat().st_size
    assert load_statistics(path).class_counts.tolist() == [11, 11, 11]
    path.write_bytes(b"nonsense")
    with pytest.raises(PayloadError, match=r"sums\.safetensors"):
        load_statistics(path)
    with pytest.raises(StorageError):
        load_statistics(tmp_path / "nothing")


@pytest.mark.parametrize("bits", [4, 7, "8", None])
def test_other_depths_are_refused(bits, statistics):
    with pytest.raises(SettingsError, match="bits"):
        encode_statistics(statistics, bits)


def _with_header(payload, change):
    """``payload`` with its JSON header changed, and the length before it right."""
    (length,) = struct.unpack_from("<Q", payload)
    header = json.loads(payload[8 : 8 + length])
    metadata = json.loads(header["__metadata__"]["fedcl_distill"])
    change(metadata, header)
    header["__metadata__"]["fedcl_distill"] = json.dumps(metadata)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + payload[8 + length :]


def _set(**values):
    return lambda metadata, header: metadata.update(values)


def _spec(**values):
    return lambda metadata, header: metadata["spec"].update(values)


def _rename(metadata, header):
    header["other"] = header.pop("moments")


HOSTILE = {
    "format": _set(format=2),
    "bits": _set(bits=16),
    "bits of another kind": _set(bits=True),
    "another key": _set(more=1),
    "shape": _set(shape=[5]),
    "huge shape": _set(shape=[10**9]),
    "no shape": _set(shape=[]),
    "empty shape": _set(shape=[0]),
    "classes": _set(classes=4),
    "many classes": _set(classes=10**9),
    "range": _set(range=[1, 0]),
    "mean": _set(mean=[0, 0, 0]),
    "std": _set(std=[0, 0, 0, 0]),
    "mirror": _set(allow_hflip=1),
    "ranges": _set(ranges={}),
    "nan range": _set(ranges=dict.fromkeys(("features", "samples", "moments"), "0000c07f0000c07f")),
    "unknown setting": _spec(other=1),
    "views": _spec(views=5),
    "very many views": _spec(views=100_000),
    "dimensions": _spec(dimensions=4),
    "huge network": _spec(architecture="mlp:width=999999999"),
    "large network": _spec(architecture="mlp:width=1024,depth=1024", dimensions=0),
    "network for images": _spec(architecture="convnet:width=4"),
    "kind": _spec(kind="characteristic", dimensions=6),
    "share": _spec(share=1.0),
    "arrays": _rename,
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE.keys())
def test_headers_that_lie_are_refused(change, statistics):
    payload = encode_statistics(statistics, 8)
    assert decode_statistics(_with_header(payload, lambda *_: None)).spec == SPEC
    with pytest.raises(PayloadError):
        decode_statistics(_with_header(payload, change))


def test_bounded_features_beyond_their_bound_are_refused(data):
    statistics = class_statistics(data, CHARACTERISTIC)
    payload = _with_header(
        encode_statistics(statistics, 8), _set(ranges=dict.fromkeys(statistics.sums, "000080bf00000040"))
    )
    with pytest.raises(PayloadError, match="larger than its count"):
        decode_statistics(payload)


def test_nan_and_truncation_are_refused(statistics):
    payload = bytearray(encode_statistics(statistics, 32))
    for end in range(0, len(payload), 37):
        with pytest.raises(PayloadError):
            decode_statistics(payload[:end])
    (length,) = struct.unpack_from("<Q", payload)
    payload[8 + length : 12 + length] = struct.pack("<f", float("nan"))
    with pytest.raises(PayloadError, match="NaN"):
        decode_statistics(payload)
    with pytest.raises(PayloadError, match="bytes"):
        decode_statistics("text")


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_flipped_bytes_decode_or_raise_one_error(statistics, data):
    payload = bytearray(encode_statistics(statistics, 8))
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        found = decode_statistics(payload)
    except PayloadError:
        return
    assert all(torch.isfinite(sums.values).all() for sums in found.sums.values())


def test_limits_bind_before_anything_is_read(statistics):
    payload = encode_statistics(statistics, 8)
    with pytest.raises(PayloadError, match="at most"):
        decode_statistics(payload, Limits(max_payload_bytes=len(payload) - 1))
    with pytest.raises(PayloadError, match="values"):
        decode_statistics(payload, Limits(max_values=60))


def test_an_honest_answer_is_welcome_at_every_depth(data, statistics):
    expectation = StatisticsExpectation(SPEC, data.spec)
    for bits in (8, 16, 32):
        expectation.check(decode_statistics(encode_statistics(statistics, bits), expectation.limits))


@pytest.mark.parametrize(("name", "factor"), [("features", 1e4), ("samples", 30.0), ("moments", 1e3)])
def test_means_beyond_what_data_can_give_are_unwelcome(name, factor, data, statistics):
    sums = statistics.sums[name]
    changed = replace(statistics, sums={**statistics.sums, name: Sums(sums.counts, sums.values * factor)})
    with pytest.raises(PayloadError, match=f"means of {name} span"):
        StatisticsExpectation(SPEC, data.spec).check(changed)


def test_other_specifications_domains_and_nothing_are_unwelcome(data, statistics):
    domain = data.spec
    with pytest.raises(PayloadError, match="another specification"):
        StatisticsExpectation(replace(SPEC, seed=1), domain).check(statistics)
    with pytest.raises(PayloadError, match="another kind of data"):
        StatisticsExpectation(SPEC, replace(domain, class_names=("a", "b", "c"))).check(statistics)
    with pytest.raises(PayloadError, match="no samples"):
        StatisticsExpectation(SPEC, domain).check(class_statistics(data.subset(torch.tensor([]).long()), SPEC))


def test_statistics_that_contradict_themselves_cannot_be_built(statistics):
    sums = dict(statistics.sums)
    features = sums["features"]
    for wrong in (
        {**sums, "more": features},
        {name: one for name, one in sums.items() if name != "moments"},
        {**sums, "features": Sums(features.counts + 100, features.values)},
        {**sums, "features": Sums(features.counts - 100, features.values)},
        {**sums, "features": Sums(features.counts, features.values.float())},
        {**sums, "features": Sums(features.counts, features.values[:, :, :3])},
        {**sums, "features": Sums(torch.zeros_like(features.counts), features.values)},
        {**sums, "moments": Sums(sums["moments"].counts - 1, sums["moments"].values)},
    ):
        with pytest.raises(DataError, match="statistics"):
            replace(statistics, sums=wrong)
