"""Domains and scenarios: what changes from one experience to the next, and what does not."""

from __future__ import annotations

import pytest
import torch

from builders import blobs
from fedcl_distill.data import Splits
from fedcl_distill.errors import SettingsError
from strategies.continual import domain_incremental, labelled_data, task_incremental
from strategies.continual.benchmarks import in_mini_batches
from strategies.continual.streams import DOMAINS, inversion, permutation, rotation

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")

IMAGES = blobs((3, 6, 6), classes=3, per_class=5)


def test_a_quarter_turn_is_a_quarter_turn():
    turned = rotation(IMAGES, 1, 2).samples
    exact = [torch.rot90(IMAGES.samples, times, (2, 3)) for times in (1, 3)]
    assert min(int((turned.int() - one.int()).abs().max()) for one in exact) <= 1


def test_rectangles_turn_without_being_stretched():
    """A centred square in a wide image stays a square of the same size after a quarter turn."""
    data = blobs((1, 8, 12), classes=2, per_class=2)
    data.samples.zero_()
    data.samples[:, :, 2:6, 4:8] = 255
    assert torch.equal(rotation(data, 1, 2).samples, data.samples)


def test_a_permutation_moves_pixels_alike_in_every_sample_and_channel():
    moved = permutation(IMAGES, 1, 2).samples.flatten(2)
    plain = IMAGES.samples.flatten(2)
    assert torch.equal(moved.sort(dim=2).values, plain.sort(dim=2).values)
    columns = {tuple(column.tolist()) for column in moved.flatten(0, 1).T}
    assert columns == {tuple(column.tolist()) for column in plain.flatten(0, 1).T}
    assert not torch.equal(moved, plain)
    assert not torch.equal(permutation(IMAGES, 2, 3).samples, permutation(IMAGES, 1, 3).samples)


def test_features_are_permuted_in_their_normalised_values():
    data = blobs((5,), classes=3, per_class=9)
    moved = permutation(data, 1, 2)
    torch.testing.assert_close(moved.inputs().sort(dim=1).values, data.inputs().sort(dim=1).values)
    assert not torch.allclose(moved.inputs(), data.inputs())


def test_inversion_turns_every_second_experience():
    assert torch.equal(inversion(IMAGES, 1, 3).samples, 255 - IMAGES.samples)
    assert torch.equal(inversion(IMAGES, 2, 3).samples, IMAGES.samples)
    features = blobs((5,), classes=3, per_class=9)
    assert inversion(features, 1, 2).value_range == features.value_range


@pytest.mark.parametrize("domain", DOMAINS)
def test_every_experience_has_all_classes_and_the_first_is_as_it_was(domain):
    benchmark = domain_incremental(Splits(IMAGES, IMAGES), 3, domain=domain)
    parts = [labelled_data(experience.dataset, IMAGES) for experience in benchmark.train_stream]
    assert len(parts) == len(list(benchmark.test_stream)) == 3
    assert torch.equal(parts[0].samples, IMAGES.samples)
    assert not torch.equal(parts[1].samples, IMAGES.samples)
    for part in parts:
        assert torch.equal(part.labels, IMAGES.labels)
    inputs, label, task = next(iter(benchmark.train_stream)).dataset[0]
    assert (inputs.dtype, type(label), task) == (torch.float32, int, 0)


def test_domains_that_do_not_fit_are_refused():
    with pytest.raises(SettingsError, match="unknown domain"):
        domain_incremental(Splits(IMAGES, IMAGES), 2, domain="other")
    with pytest.raises(SettingsError, match="cannot be turned"):
        rotation(blobs((4,)), 1, 2)
    with pytest.raises(SettingsError, match="needs an experience"):
        domain_incremental(Splits(IMAGES, IMAGES), 0)


def test_tasks_are_told_and_labels_stay():
    data = blobs(classes=5, per_class=4)
    for stage, experience in enumerate(task_incremental(Splits(data, data), 2).train_stream):
        items = [experience.dataset[index] for index in range(len(experience.dataset))]
        assert {item[2] for item in items} == {stage}
        assert {item[1] for item in items} == ({0, 1, 2} if stage == 0 else {3, 4})


def test_mini_batches_hold_every_sample_once_in_an_order_that_a_seed_fixes():
    data = blobs(classes=3, per_class=7)
    experience = next(iter(domain_incremental(Splits(data, data), 1).train_stream))

    def batches(seed):
        return [labelled_data(one.dataset, data).samples for one in in_mini_batches(experience, 4, seed=seed)]

    sizes = [len(one) for one in batches(1)]
    assert sizes == [4] * 5 + [1]
    rows = {tuple(row.tolist()) for row in torch.cat(batches(1)).flatten(1)}
    assert rows == {tuple(row.tolist()) for row in data.samples.flatten(1)}
    assert torch.equal(torch.cat(batches(1)), torch.cat(batches(1)))
    assert not torch.equal(torch.cat(batches(1)), torch.cat(batches(2)))
