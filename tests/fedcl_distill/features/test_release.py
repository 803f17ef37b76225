"""Sums as words: exact totals whoever adds them, and noise of the size that the guarantee says."""

import math

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from fedcl_distill.data import LabelledData, Normalisation
from fedcl_distill.errors import DataError, PayloadError, SettingsError
from fedcl_distill.features import LDA, Diagonal, Full, LowRank, Means, Projected, measure_data, second_moments
from fedcl_distill.features.release import SECOND, SumWords, admit_storage, measure_within
from fedcl_distill.privacy import NoiseSource, PrivacyTarget

STORAGES = (Means(), Diagonal(), Full(), Projected(16))


def unit(features, labels):
    rows = torch.nn.functional.normalize(torch.as_tensor(features).float(), dim=1)
    plain = Normalisation((0.0,) * rows.shape[1], (1.0,) * rows.shape[1])
    names = tuple("0123456789")
    return LabelledData.from_tensors(
        rows, torch.as_tensor(labels), class_names=names, normalisation=plain, value_range=(-1.0, 1.0)
    )


@pytest.fixture(scope="module")
def digits():
    return unit(*load_digits(return_X_y=True))


def words_of(data, storage, **more):
    return SumWords(storage, data.class_names, data.sample_shape[0], **more)


def parts_of(data, count):
    return [data.subset(torch.arange(start, len(data), count)) for start in range(count)]


@pytest.mark.parametrize("storage", STORAGES, ids=lambda one: type(one).__name__)
def test_a_total_of_words_is_the_sum_of_all(digits, storage):
    fixed = words_of(digits, storage, parties=5, max_samples=200)
    total = np.zeros(fixed.length, fixed.dtype)
    for part in parts_of(digits, 5):
        total += fixed.words(measure_within(part, storage))
    found, exact = fixed.total(total, 5), measure_data(digits, storage)
    assert found.counts.tolist() == exact.counts.tolist()
    torch.testing.assert_close(found.means, exact.means, atol=1e-5, rtol=1e-5)
    if storage != Means():
        torch.testing.assert_close(second_moments(found), second_moments(exact), atol=1e-3, rtol=1e-4)


def test_features_are_shortened_to_the_unit_ball_and_no_further():
    data = unit(torch.eye(10), torch.arange(10))
    long = LabelledData(3 * data.samples, data.labels, data.with_spec(value_range=(-3.0, 3.0)).spec)
    short = LabelledData(0.5 * data.samples, data.labels, data.spec)
    torch.testing.assert_close(measure_within(long, Means()).means, torch.eye(10, dtype=torch.float64))
    torch.testing.assert_close(measure_within(short, Means()).means, 0.5 * torch.eye(10, dtype=torch.float64))
    assert float(measure_within(long, Means()).means.norm(dim=1).max()) < 1


@pytest.mark.parametrize("storage", STORAGES, ids=lambda one: type(one).__name__)
def test_one_record_moves_the_release_by_no_more_than_its_noise_is_made_for(digits, storage):
    """Each block is measured in its own deviation: together they are one noise multiplier apart at most."""
    target = PrivacyTarget(1.0, 1e-5)
    fixed = words_of(digits, storage, max_samples=200, target=target)
    plain, unit_noise = target.guarantee(1.0).mechanism.noise_multiplier, fixed.deviations(1)
    for row in (0, 700, 1500):
        others = torch.cat([torch.arange(row), torch.arange(row + 1, len(digits))])
        with_it, without = (fixed.words(measure_within(one, storage)) for one in (digits, digits.subset(others)))
        apart = torch.from_numpy((with_it - without).view("<i4").astype(np.float64))
        squares = 0.0
        for (name, shape), part in zip(fixed._shapes.items(), fixed_split(fixed, apart), strict=True):
            assert part.numel() == math.prod(shape)
            squares += float(part.square().sum()) * (fixed._steps[name] / unit_noise[name]) ** 2
        assert math.sqrt(squares) <= 1 / plain


def fixed_split(fixed, vector):
    return torch.split(vector, [math.prod(shape) for shape in fixed._shapes.values()])


@pytest.mark.parametrize("fewest", [1, 4])
def test_noise_of_a_total_has_the_deviation_it_says(fewest):
    data = unit(torch.eye(10), torch.arange(10))
    fixed = words_of(data, Projected(9), parties=4, fewest=fewest, max_samples=5, target=PrivacyTarget(2.0, 1e-5))
    draws = []
    for seed in range(40):
        total = np.zeros(fixed.length, fixed.dtype)
        for party in range(4):
            total += fixed.noised(np.zeros(fixed.length, fixed.dtype), NoiseSource.seeded(1000 * seed + party))
        draws.append(torch.from_numpy(total.view("<i4").astype(np.float64)))
    blocks = zip(fixed._shapes, fixed_split(fixed, torch.stack(draws).T), strict=True)
    for name, part in ((name, part) for name, part in blocks if name == SECOND):
        found = float(part.std()) * fixed._steps[name]
        assert found == pytest.approx(fixed.deviations(4)[name], rel=0.06)


def test_a_release_with_room_for_noise_still_knows_digits(digits):
    fixed = words_of(digits, Projected(32), max_samples=200, target=PrivacyTarget(8.0, 1e-5))
    words = fixed.noised(fixed.words(measure_within(digits, Projected(32))), NoiseSource.seeded(0))
    sums = fixed.total(words, 1)
    assert LDA().fit(sums).accuracy(digits.samples, digits.labels) > 0.8
    assert fixed.guarantee().holds
    assert not fixed.guarantee(seeded=True).holds


def test_classes_that_noise_hides_count_as_absent(digits):
    none = digits.subset(digits.indices_of(0)[:1])
    fixed = words_of(digits, Means(), max_samples=200, target=PrivacyTarget(1.0, 1e-5))
    sums = fixed.total(fixed.noised(fixed.words(measure_within(none, Means())), NoiseSource.seeded(1)), 1)
    assert sums.total == 0


def test_what_does_not_add_up_or_fit_is_refused(digits):
    with pytest.raises(SettingsError, match=r"low-rank.* does not add up number by number"):
        admit_storage(LowRank())
    with pytest.raises(SettingsError, match="centres"):
        admit_storage("centres:per_class=2")
    fixed = words_of(digits, Means(), parties=2, max_samples=100)
    with pytest.raises(DataError, match="at most 100 were agreed on"):
        fixed.words(measure_within(digits, Means()))
    with pytest.raises(PayloadError, match="words of 32 bits"):
        fixed.total(np.zeros(3, fixed.dtype), 1)
    with pytest.raises(PayloadError, match="words of 1 to 2 parties"):
        fixed.total(np.zeros(fixed.length, fixed.dtype), 3)
    with pytest.raises(SettingsError, match="do not fit words"):
        words_of(digits, Means(), parties=2**20)
