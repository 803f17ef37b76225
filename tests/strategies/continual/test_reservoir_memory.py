"""Reservoir memories: real samples, uniformly chosen, within the bytes that a distilled memory gets."""

from __future__ import annotations

import pytest
import torch

from builders import blobs
from fedcl_distill.data import LabelledData
from fedcl_distill.errors import SettingsError
from fedcl_distill.synthetic import encode
from strategies.continual import ReservoirMemory


def _numbered(count, classes=2):
    """Feature vectors that say which sample they are."""
    samples = torch.arange(float(count))[:, None].repeat(1, 2)
    return LabelledData.from_tensors(
        samples, torch.arange(count) % classes, class_names=[str(c) for c in range(classes)]
    )


def _parts(data, *sizes):
    return [data.subset(rows) for rows in torch.arange(len(data)).split(list(sizes))]


def test_every_sample_is_as_likely_to_stay_whenever_it_came():
    """Chi-square of how often each of 40 samples of three unequal experiences stays, over 400 seeds."""
    data, hits = _numbered(40), torch.zeros(40)
    for seed in range(400):
        memory = ReservoirMemory(byte_budget=110, bits=32, seed=seed)
        for part in _parts(data, 25, 5, 10):
            memory.add(part)
        kept = memory.recall().samples()[:, 0].round().long()
        assert len(kept) == len(kept.unique()), "no sample is held twice"
        hits[kept] += 1
    chance = float(hits.mean()) / 400
    assert 0.1 < chance < 0.5
    # Each sample stays with the same chance, and exactly a fixed number does: 39 degrees of freedom.
    chi_square = float((hits - hits.mean()).square().sum()) / (400 * chance * (1 - chance)) * 39 / 40
    assert 16.3 < chi_square < 72.1, "between the 0.1 % and the 99.9 % quantile"


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 12), (9,)])
@pytest.mark.parametrize("bits", [4, 8, 32])
@pytest.mark.parametrize("byte_budget", [2999, 4444, 8191])
def test_what_is_kept_is_what_encoding_takes_and_never_exceeds_the_budget(shape, bits, byte_budget):
    data = blobs(shape, classes=6, per_class=30)
    memory = ReservoirMemory(byte_budget, bits)
    shuffled = data.subset(torch.randperm(len(data), generator=torch.Generator().manual_seed(3)))
    for part in _parts(shuffled, 100, 1, 79):
        memory.add(part)
        held = memory.recall()
        assert memory.bytes_kept == len(encode(held, bits, provenance=False, coding="fixed")) <= byte_budget


def test_the_budget_is_used_up():
    memory = ReservoirMemory(5000)
    for part in _parts(blobs((1, 8, 8), classes=3, per_class=100), 100, 200):
        memory.add(part)
        assert memory.bytes_kept > 5000 - 64 - 16, "another sample of 64 bytes would have fitted"


def test_it_holds_real_samples_with_their_labels():
    data = blobs((1, 8, 8), classes=3, per_class=30)
    memory = ReservoirMemory(2000)
    for part in _parts(data, 40, 50):
        memory.add(part)
    held = memory.recall()
    nearest = torch.cdist(held.samples().flatten(1), data.unit().flatten(1)).min(dim=1)
    assert nearest.values.max() < 0.05
    assert torch.equal(data.labels[nearest.indices], held.hard_labels)


def test_a_budget_below_one_sample_is_refused():
    with pytest.raises(SettingsError, match="hold no sample"):
        ReservoirMemory(100).add(blobs())


def test_a_seed_fixes_the_choice():
    data = blobs((1, 8, 8), classes=3, per_class=30)

    def payload(seed):
        memory = ReservoirMemory(2000, seed=seed)
        memory.add(data)
        return encode(memory.recall())

    assert payload(1) == payload(1)
    assert payload(1) != payload(2)
