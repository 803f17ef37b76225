"""Truth: numpy's means and deviations, and every way to break the type."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from builders import blobs
from fedcl_distill.data import DataSpec, LabelledData, Normalisation
from fedcl_distill.errors import DataError

PLAIN = Normalisation((0.0,), (1.0,))


def make(**changes: Any) -> LabelledData:
    fields: dict[str, Any] = {
        "samples": torch.zeros(4, 1, 2, 3, dtype=torch.uint8),
        "labels": torch.tensor([0, 1, 1, 0]),
        **changes,
    }
    traits = {one.name for one in dataclasses.fields(DataSpec)}
    spec = {
        "sample_shape": tuple(fields["samples"].shape[1:]),
        "class_names": ("a", "b"),
        "normalisation": PLAIN,
        **{name: value for name, value in fields.items() if name in traits},
    }
    kept = {name: value for name, value in fields.items() if name not in traits}
    return LabelledData(**kept, spec=DataSpec(**spec))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"samples": torch.tensor([[0.0], [1.0], [float("nan")], [0.5]])}, "1 samples hold NaN or infinity.*index 2"),
        ({"samples": torch.tensor([[0.0], [float("inf")], [0.0], [0.0]])}, "NaN or infinity"),
        ({"samples": torch.tensor([[0.0], [1.0], [3.0], [0.5]])}, r"span \[0, 3\], outside the stated range"),
        ({"samples": torch.zeros(4, 2, 3, dtype=torch.uint8)}, "samples must be"),
        ({"samples": torch.zeros(4, 1, 0, 3, dtype=torch.uint8)}, "got shape"),
        ({"samples": torch.zeros(4, 1, dtype=torch.int32)}, "uint8 or floating point"),
        ({"samples": torch.zeros(4, 3, 2, 2, dtype=torch.uint8)}, "normalisation for 1 channels, samples have 3"),
        ({"labels": torch.tensor([0, 1, 2, 0])}, r"labels span \[0, 2\], expected \[0, 1\]"),
        ({"labels": torch.tensor([0, -1, 1, 0])}, "labels span"),
        ({"labels": torch.tensor([0, 1, 1])}, "need labels of shape"),
        ({"labels": torch.tensor([0.0, 1.0, 1.0, 0.0])}, "int64"),
        ({"class_names": ()}, "no classes"),
        ({"groups": torch.tensor([0, 1, 1, 5]), "group_names": ("x", "y")}, "groups"),
    ],
)
def test_bad_data_give_one_clear_error(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(DataError, match=match):
        make(**changes)


@pytest.mark.parametrize(
    ("mean", "std"), [((0.0,), (0.0,)), ((0.0,), (-1.0,)), ((float("nan"),), (1.0,)), ((0.0,), ())]
)
def test_bad_normalisations_are_refused(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    with pytest.raises(DataError, match="normalisation"):
        Normalisation(mean, std)


def test_normalisation_is_what_numpy_says_and_inverts() -> None:
    unit = torch.rand(50, 3, 4, 5)
    measured = Normalisation.of(unit)
    np.testing.assert_allclose(measured.mean, unit.numpy().mean((0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(measured.std, unit.numpy().std((0, 2, 3)), rtol=1e-5)
    torch.testing.assert_close(measured.invert(measured.apply(unit)), unit)
    assert Normalisation.of(torch.ones(5, 2)).std == (1.0, 1.0)  # a constant feature must not divide by zero


def test_inputs_are_normalised_unit_values() -> None:
    data = make(
        samples=torch.tensor([0, 51, 102, 255], dtype=torch.uint8).reshape(4, 1, 1, 1),
        normalisation=Normalisation((0.5,), (0.25,)),
    )
    assert data.inputs().flatten().tolist() == pytest.approx([-2.0, -1.2, -0.4, 2.0])
    assert data.unit(torch.tensor([1])).item() == pytest.approx(0.2)


def test_subsets_keep_what_all_must_share() -> None:
    data = make(groups=torch.tensor([0, 0, 1, 1]), group_names=("x", "y"), allow_hflip=False)
    part = data.subset(torch.tensor([3, 1]), name="part")
    assert part.labels.tolist() == [0, 1]
    assert part.groups is not None
    assert part.groups.tolist() == [1, 0]
    assert (part.normalisation, part.allow_hflip, part.class_names) == (PLAIN, False, ("a", "b"))
    assert (part.name, data.subset(torch.tensor([0])).name) == ("part", "data")


def test_counts_and_absent_classes() -> None:
    data = blobs(classes=3, per_class=4).subset(torch.arange(4))
    assert data.class_counts.tolist() == [4, 0, 0]
    assert data.indices_of(1).tolist() == []
    with pytest.raises(DataError, match="no samples of class 1, 2"):
        data.require_every_class()


def test_from_tensors_measures_what_is_missing() -> None:
    grey = LabelledData.from_tensors(torch.randint(0, 256, (6, 5, 4), dtype=torch.uint8), torch.arange(6) % 3)
    assert (grey.sample_shape, grey.num_classes, grey.value_range) == ((1, 5, 4), 3, (0.0, 1.0))
    features = LabelledData.from_tensors(torch.randn(6, 2).double(), (torch.arange(6) % 2).to(torch.int32))
    assert features.samples.dtype == torch.float32
    assert features.value_range == (features.samples.min().item(), features.samples.max().item())
    assert not features.is_image
    with pytest.raises(DataError, match="no samples"):
        LabelledData.from_tensors(torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64))
