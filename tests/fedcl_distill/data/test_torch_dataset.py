"""PyTorch data sets of many forms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import IterableDataset, TensorDataset

from fedcl_distill.data import Normalisation, from_dataset
from fedcl_distill.errors import DataError

ALL_BYTES = torch.arange(256, dtype=torch.uint8).reshape(2, 8, 16)


class Listed:
    """A data set that, like many, never raises IndexError."""

    def __init__(self, items: Sequence[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index % len(self.items)]


def test_totensor_is_undone_exactly() -> None:
    image_module = pytest.importorskip("PIL.Image")
    transforms = pytest.importorskip("torchvision.transforms")
    images = [image_module.fromarray(page.numpy()) for page in ALL_BYTES]
    as_tensors = from_dataset(Listed([(transforms.ToTensor()(image), 1) for image in images]))
    as_images = from_dataset(Listed([(image, 1) for image in images]))
    for data in (as_tensors, as_images):
        assert data.samples.dtype == torch.uint8
        assert torch.equal(data.samples[:, 0], ALL_BYTES)
        assert data.value_range == (0.0, 1.0)


def test_multiplying_by_the_inverse_counts_as_exact() -> None:
    data = from_dataset(TensorDataset(ALL_BYTES.unsqueeze(1).float() * (1 / 255), torch.tensor([0, 1])))
    assert torch.equal(data.samples[:, 0], ALL_BYTES)


def test_other_floats_stay_floats() -> None:
    images = torch.rand(4, 3, 5, 5)
    data = from_dataset(TensorDataset(images, torch.arange(4)))
    assert data.samples.dtype == torch.float32
    assert torch.equal(data.samples, images)
    assert data.value_range == (0.0, 1.0)
    normalised = from_dataset(TensorDataset(images * 4 - 2, torch.arange(4)))
    assert normalised.value_range[0] < 0 < normalised.value_range[1]


def test_features_that_happen_to_be_bytes_stay_features() -> None:
    data = from_dataset(TensorDataset(torch.tensor([[0.0, 1.0], [1.0, 0.0]]), torch.tensor([0, 1])))
    assert data.samples.dtype == torch.float32
    assert data.sample_shape == (2,)


def test_extra_elements_class_names_and_label_types() -> None:
    items = [
        (np.zeros((3, 4, 4), np.uint8), np.int32(1), 7),
        [torch.zeros(3, 4, 4).byte(), torch.tensor(0), 7],
    ]
    dataset = Listed(items)
    assert from_dataset(dataset).labels.tolist() == [1, 0]
    assert from_dataset(dataset).class_names == ("0", "1")
    dataset.classes = ["cat", "dog", "emu"]  # type: ignore[attr-defined]
    assert from_dataset(dataset).class_names == ("cat", "dog", "emu")
    assert from_dataset(dataset, class_names="ab", name="pets").class_names == ("a", "b")
    assert from_dataset(dataset).name == "Listed"


def test_test_data_take_the_training_datas_normalisation() -> None:
    shared = Normalisation((0.5,), (0.25,))
    data = from_dataset(TensorDataset(ALL_BYTES.unsqueeze(1), torch.zeros(2).long()), normalisation=shared)
    assert data.normalisation is shared


def test_an_avalanche_experience_can_be_read() -> None:
    avalanche = pytest.importorskip("avalanche.benchmarks.utils")
    plain = TensorDataset(ALL_BYTES.unsqueeze(1).float() / 255, torch.tensor([0, 1]))
    plain.targets = [0, 1]  # type: ignore[attr-defined]
    data = from_dataset(avalanche.as_classification_dataset(plain))
    assert torch.equal(data.samples[:, 0], ALL_BYTES)


class Stream(IterableDataset):  # type: ignore[type-arg]
    def __iter__(self) -> Any:
        yield torch.zeros(3), 0


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (Stream(), "map-style"),
        (Listed([]), "no samples"),
        (Listed([torch.zeros(3)]), r"item 0 is a Tensor, expected \(sample, label"),
        (Listed([{"picture": 1, "label": 2}]), "item 0 is a dict"),
        (Listed([(torch.zeros(3),)]), "item 0 is a tuple"),
        (Listed([(torch.zeros(3), 0), (torch.zeros(4), 0)]), r"item 1 is .*\(4,\), item 0"),
        (Listed([(torch.zeros(3), 0), (torch.zeros(3).double(), 0)]), "item 1 is torch.float64"),
        (Listed([(torch.zeros(3), 0.5)]), r"whole numbers or texts, got 0.5 \(item 0\)"),
        (Listed([(torch.zeros(3), torch.tensor([1, 1]))]), "item 0 has 2 classes at once; multi-label"),
        (Listed([(torch.zeros(3), np.array([0.25, 0.75]))]), "got probabilities"),
        (Listed([(torch.zeros(3), [0, 1]), (torch.zeros(3), [0, 1, 0])]), "labels differ in length"),
        (Listed([(torch.zeros(3), None)]), "item 0 has no label"),
        (Listed([(torch.zeros(1, 16000), 0)]), "look like waveforms"),
        (Listed([(torch.zeros(28, 28, 28), 0)]), "volumes are not supported"),
        (Listed([(torch.zeros(1, 28, 28, 28), 0)]), "samples must be"),
        (Listed([(torch.zeros(3).to_sparse(), 0)]), "dense tensor with values, got a sparse_coo one"),
        (Listed([(torch.zeros(3, device="meta"), 0)]), "got a meta one"),
        (Listed([(torch.zeros(3), "cat"), (torch.zeros(3), 1)]), "label 1 stands among labels such as 'cat'"),
        (Listed([(torch.zeros(3), -1)]), "must not be negative"),
        (Listed([("a picture", 0)]), "no image, tensor or array"),
        (Listed([(torch.full((3,), torch.nan), 0)]), "NaN"),
        (Listed([(torch.full((1, 3, 3), torch.nan), 0)]), "NaN"),
        (Listed([(torch.zeros(3).long(), 0)]), "floating point"),
    ],
)
def test_unfit_items_are_data_errors(dataset: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        from_dataset(dataset)
