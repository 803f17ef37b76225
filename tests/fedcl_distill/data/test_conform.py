"""Data of one place in the terms of all: by name, or not at all."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch

from fedcl_distill.data import DataSpec, Normalisation, conform, from_arrays
from fedcl_distill.errors import DataError

AGREED = DataSpec((3,), ("cat", "dog", "cow"), Normalisation((1.0, 2.0, 3.0), (1.0, 1.0, 2.0)), (0.0, 10.0))
ROWS = [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]


def table(labels, names=("dog", "cow", "cat"), **more):
    return from_arrays(ROWS, labels, class_names=names, **more)


def test_labels_go_by_name_and_missing_classes_are_added():
    data = conform(table(["dog", "cat", "dog"], names=("dog", "cat")), AGREED)
    assert [data.class_names[label] for label in data.labels] == ["dog", "cat", "dog"]
    assert data.spec == AGREED
    assert data.class_counts.tolist() == [1, 2, 0]
    assert data.inputs()[0].tolist() == [0.0, 0.0, 0.0]


def test_what_is_of_that_kind_already_stays_the_same_object():
    data = conform(table(["dog", "cat", "dog"]), AGREED)
    assert conform(data, AGREED) is data


def test_columns_go_by_name():
    agreed = replace(AGREED, feature_names=("age", "sex", "pulse"))
    data = conform(table(["dog", "cat", "dog"], feature_names=("pulse", "age", "sex")), agreed)
    assert data.samples.tolist() == [[2, 3, 1], [5, 6, 4], [8, 9, 7]]
    assert data.spec.feature_names == agreed.feature_names


@pytest.mark.parametrize("names", [("pulse", "age", "height"), ("pulse", "pulse", "age")])
def test_columns_that_nobody_knows_are_named(names):
    agreed = replace(AGREED, feature_names=("age", "sex", "pulse"))
    with pytest.raises(DataError, match=r"missing are 'sex'|'sex'"):
        conform(table(["dog", "cat", "dog"], feature_names=names), agreed)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (table(["dog", "pig", "dog"], names=("dog", "pig")), "class 'pig' is none of those agreed on, 'cat', 'dog'"),
        (from_arrays(ROWS, [0, 1, 0]), "these data have numbers for names: give class_names"),
        (from_arrays([[1.0, 2.0]], ["dog"]), r"shape \(2,\), agreed on is \(3,\)"),
        (from_arrays(torch.zeros(1, 1, 2, 2), ["dog"]), "through a backbone"),
        (from_arrays([[1.0, 2.0, 900.0]], ["dog"]), "another unit"),
        (from_arrays(ROWS, [0, 1, 2], class_names=("dog", "dog", "cat")), "'dog' is there twice"),
    ],
)
def test_what_has_no_place_is_refused_with_a_reason(data, message):
    with pytest.raises(DataError, match=message):
        conform(data, AGREED)


def test_a_class_without_samples_needs_no_place():
    data = conform(table(["dog", "cat", "dog"], names=("cat", "pig", "dog")), AGREED)
    assert data.labels.tolist() == [1, 0, 1]


def test_values_beyond_the_range_are_kept_and_told(caplog):
    far = from_arrays([[1.0, 2.0, 30.0], [1.0, 1.0, 1.0]], ["dog", "cat"])
    with caplog.at_level(logging.WARNING):
        data = conform(far, AGREED)
    assert data.samples.tolist() == far.samples.tolist()
    assert data.value_range == (0.0, 30.0)
    assert "1 of 2 samples leave the range" in caplog.text


def test_bytes_are_no_values_of_another_range():
    pixels = from_arrays(torch.zeros(1, 1, 2, 2, dtype=torch.uint8), ["cat"])
    agreed = replace(pixels.spec, value_range=(0.0, 255.0))
    with pytest.raises(DataError, match="8-bit"):
        conform(pixels, agreed)
