"""Truth: specs that differ in one thing each, and what JSON gives back."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from builders import blobs
from fedcl_distill.augmentation import augmentation_for
from fedcl_distill.data import PARTITIONERS, DataSpec, LabelledData, Normalisation, Splits, partition, spec_of
from fedcl_distill.engine.size import ByteBudget, bytes_of_counts, counts_within_bytes
from fedcl_distill.errors import DataError, SettingsError
from fedcl_distill.parameterizations import Pixels
from fedcl_distill.synthetic import SyntheticSet

SPEC = DataSpec((1, 4, 6), ("a", "b"), Normalisation((0.5,), (0.25,)), allow_hflip=True, tasks=(0, 1))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sample_shape": (1, 6, 4)}, r"shape \(1, 6, 4\), expected \(1, 4, 6\)"),
        ({"class_names": ("a", "b", "c"), "tasks": None}, "3 classes, expected 2"),
        ({"class_names": ("a", "c")}, "a class 'c' where 'b' was expected"),
        ({"normalisation": Normalisation((0.5,), (0.26,))}, "another mean or standard deviation"),
        ({"value_range": (0.0, 2.0)}, r"value range \(0.0, 2.0\)"),
        ({"tasks": (0, 0)}, "other tasks"),
    ],
)
def test_what_differs_is_said(changes, said) -> None:
    other = replace(SPEC, **changes)
    with pytest.raises(DataError, match=said):
        SPEC.check(other)
    with pytest.raises(DataError, match=f"cannot unite.*{said}"):
        DataSpec.common([SPEC, other])


def test_permission_unknown_tasks_and_rounding_are_no_difference() -> None:
    close = Normalisation((0.5 + 1e-12,), (0.25,))  # the same in float32, in which it is applied
    other = replace(SPEC, allow_hflip=False, tasks=None, normalisation=close)
    SPEC.check(other)
    assert DataSpec.common([other, SPEC]) == replace(other, tasks=(0, 1))


@pytest.mark.parametrize(
    "changes",
    [
        {"sample_shape": (4, 6)},
        {"sample_shape": (1, 0, 6)},
        {"class_names": ()},
        {"normalisation": Normalisation((0.5,) * 3, (0.25,) * 3)},
        {"value_range": (1.0, 0.0)},
        {"value_range": (0.0, float("nan"))},
        {"tasks": (0,)},
        {"feature_names": ("x",)},
    ],
)
def test_what_does_not_fit_itself_is_refused(changes) -> None:
    with pytest.raises(DataError):
        replace(SPEC, **changes)


def test_json_and_back() -> None:
    features = DataSpec((2,), ("x",), Normalisation((0.1, 1e-7), (3.0, 1.0)), (-5.0, 7.5), feature_names=("u", "v"))
    for spec in (SPEC, features):
        read = DataSpec.from_record(json.loads(json.dumps(spec.as_record())))
        assert (read, read.feature_names) == (spec, spec.feature_names)
    for broken in ({}, {**SPEC.as_record(), "more": 1}, {**SPEC.as_record(), "mean": "x"}):
        with pytest.raises(DataError):
            DataSpec.from_record(broken)


def test_the_spec_of_everything_that_carries_one() -> None:
    data = blobs(allow_hflip=True)
    for one in (data, data.spec, SyntheticSet.of_real(data), Splits(data, data), data.subset(torch.tensor([0]))):
        assert spec_of(one) == data.spec
    with pytest.raises(DataError, match="from_dataset"):
        spec_of([1, 2])


def test_a_spec_stands_for_data_where_no_sample_is_looked_at() -> None:
    data = blobs(allow_hflip=True)
    assert augmentation_for(data.spec) == augmentation_for(data)
    assert bytes_of_counts([1, 2, 0], data.spec, 8) == bytes_of_counts([1, 2, 0], data, 8)
    counts = counts_within_bytes(ByteBudget(2000), data.spec, Pixels(), [20] * 3)
    assert counts == counts_within_bytes(ByteBudget(2000), data, Pixels(), [20] * 3)


@pytest.mark.parametrize("value_range", [(0.0, 1.0), (6.0, 25.0), (-3.0, -1.0)])
def test_blank_data_lie_within_the_range(value_range) -> None:
    blank = LabelledData.blank(replace(SPEC, value_range=value_range), [2, 1])
    assert (blank.class_counts.tolist(), blank.spec.value_range) == ([2, 1], value_range)
    assert value_range[0] <= float(blank.unit().min()) <= float(blank.unit().max()) <= value_range[1]


def test_a_partitioner_of_ones_own_by_name() -> None:
    @PARTITIONERS.register("halves")
    class Halves:
        def split(self, data, clients, *, seed, min_size=1):
            return list(torch.arange(len(data)).tensor_split(clients))

    try:
        assert [len(part) for part in partition(blobs(), "halves", 4)] == [15] * 4
        assert partition(blobs(), {"name": "dirichlet", "alpha": 0.5}, 2, seed=1) == partition(
            blobs(), "dirichlet:0.5", 2, seed=1
        )
    finally:
        PARTITIONERS._entries.pop("halves")
    with pytest.raises(SettingsError, match="did you mean 'dirichlet'"):
        partition(blobs(), "dirichlett:0.1", 2)
    with pytest.raises(SettingsError, match="no partitioner"):
        partition(blobs(), 5, 2)
