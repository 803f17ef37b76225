"""Streams of experiences, and the way from Avalanche's datasets back to labelled data."""

from __future__ import annotations

import pytest
import torch
from avalanche.benchmarks.utils import as_classification_dataset
from torch.utils.data import TensorDataset

from builders import blobs
from fedcl_distill.data import Normalisation, Splits
from fedcl_distill.errors import DataError, SettingsError
from strategies.continual import class_incremental, class_order, inputs_dataset, labelled_data

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")


def _groups(benchmark, stream="train"):
    return [sorted(set(one.dataset.targets)) for one in getattr(benchmark, f"{stream}_stream")]


@pytest.mark.parametrize(("classes", "experiences", "sizes"), [(10, 5, [2] * 5), (10, 3, [4, 3, 3]), (3, 1, [3])])
def test_no_class_is_left_out_and_none_comes_twice(classes, experiences, sizes):
    data = blobs(classes=classes, per_class=3)
    benchmark = class_incremental(Splits(data, data), experiences, order_seed=1)
    groups = _groups(benchmark)
    assert [len(group) for group in groups] == sizes
    assert sorted(label for group in groups for label in group) == list(range(classes))
    assert _groups(benchmark, "test") == groups


def test_experiences_hold_every_sample_of_their_classes():
    data = blobs(classes=5, per_class=7)
    for experience in class_incremental(Splits(data, data), 2).train_stream:
        back = labelled_data(experience.dataset, data)
        wanted = data.subset(torch.isin(data.labels, back.labels.unique()).nonzero().flatten())
        assert torch.equal(back.samples, wanted.samples), "uint8 images come back exactly"
        assert torch.equal(back.labels, wanted.labels)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 8, 12), (5,)])
def test_data_survive_the_way_to_avalanche_and_back(shape):
    data = blobs(shape, classes=3, per_class=4, allow_hflip=False)
    back = labelled_data(inputs_dataset(data), data)
    assert back.samples.dtype == data.samples.dtype
    torch.testing.assert_close(back.samples, data.samples, rtol=0, atol=1e-5)
    assert torch.equal(back.labels, data.labels)
    for what in ("class_names", "normalisation", "value_range", "allow_hflip"):
        assert getattr(back, what) == getattr(data, what)


def test_images_normalised_otherwise_are_refused_instead_of_rounded():
    data = blobs((3, 8, 8))
    other = data.with_spec(normalisation=Normalisation((0.5, 0.5, 0.5), (0.31, 0.31, 0.31)))
    with pytest.raises(DataError, match="does not hold 8-bit images normalised as blobs"):
        labelled_data(inputs_dataset(data), other)


def test_random_views_of_training_are_not_what_a_memory_gets():
    data = blobs()
    dataset = as_classification_dataset(
        inputs_dataset(data), transform_groups={"train": (lambda inputs: inputs + 9, None), "eval": (None, None)}
    )
    assert torch.equal(labelled_data(dataset.train(), data).samples, data.samples)


def test_classes_come_as_numbered_or_in_an_order_that_a_seed_fixes():
    assert class_order(6, None) == [0, 1, 2, 3, 4, 5]
    assert class_order(20, 1) == class_order(20, 1) != class_order(20, 2)
    assert sorted(class_order(20, 1)) == list(range(20))


@pytest.mark.usefixtures("untouched_global_rng")
def test_the_global_generator_is_left_alone():
    data = blobs(classes=4, per_class=3)
    benchmark = class_incremental(Splits(data, data), 2, order_seed=3)
    labelled_data(benchmark.train_stream[0].dataset, data)


@pytest.mark.parametrize("experiences", [0, 4])
def test_a_number_of_experiences_that_the_classes_do_not_allow_is_refused(experiences):
    data = blobs(classes=3)
    with pytest.raises(SettingsError, match="3 classes, so 1 to 3 experiences"):
        class_incremental(Splits(data, data), experiences)


def test_a_class_without_training_samples_is_refused():
    data = blobs(classes=3)
    with pytest.raises(DataError, match="no samples of class 1"):
        class_incremental(Splits(data.subset((data.labels != 1).nonzero().flatten()), data), 2)


def test_labels_of_an_experience_stay_as_they_are_where_nobody_describes_the_data():
    """A later experience holds some classes alone; that their labels leave a gap below says nothing."""
    dataset = TensorDataset(torch.rand(6, 1, 4, 4), torch.tensor([2, 3, 2, 3, 2, 3]))
    data = labelled_data(dataset)
    assert data.labels.tolist() == [2, 3, 2, 3, 2, 3]
    assert data.class_names == ("0", "1", "2", "3")
