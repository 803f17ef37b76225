"""Projections, cluster centres and byte budgets: what is kept of second moments, and that it still adds up."""

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits

from fedcl_distill.errors import DataError, PayloadError, SettingsError
from fedcl_distill.features import (
    LDA,
    Logistic,
    NaiveBayes,
    Ridge,
    Within,
    decode_sums,
    encode_sums,
    encoded_size,
    measure,
    second_moments,
    within_scatter,
)
from fedcl_distill.features.sums import Centres, Factor, Gram, Sketch, projection

NAMES = tuple("0123456789")


@pytest.fixture(scope="module")
def digits():
    features, labels = load_digits(return_X_y=True)
    return torch.nn.functional.normalize(torch.tensor(features), dim=1), torch.tensor(labels)


def halves(digits):
    """One half has the classes below 5, the other all that begin at 3."""
    features, labels = digits
    first = (labels < 3) | ((labels < 5) & (torch.arange(len(labels)) % 2 == 0))
    return (features[first], labels[first]), (features[~first], labels[~first])


def dense(scatter):
    if isinstance(scatter, Factor):
        return scatter.rows.T @ scatter.rows + scatter.floor * torch.eye(scatter.rows.shape[1], dtype=torch.float64)
    return scatter


@pytest.mark.parametrize("head", [LDA(), Ridge()])
def test_a_head_behind_a_projection_reads_features_as_they_are(digits, head):
    """It says of features what a head that was fitted to projected features says of projected ones."""
    features, labels = digits
    seen = features @ projection(64, 16, 3)
    lifted = head.fit(measure(features, labels, NAMES, "projected:dimensions=16,seed=3"))
    plain = head.fit(measure(seen, labels, NAMES))
    torch.testing.assert_close(lifted.logits(features), plain.logits(seen), rtol=1e-4, atol=1e-3)
    assert lifted.weight.shape == (10, 64)


def test_projected_sums_add_up_and_are_taken_off_again(digits):
    one, other = (measure(*half, NAMES, "projected:dimensions=16") for half in halves(digits))
    whole = measure(*digits, NAMES, "projected:dimensions=16")
    torch.testing.assert_close((one + other).second.matrix, whole.second.matrix)
    torch.testing.assert_close((one + other).means, whole.means)
    torch.testing.assert_close((whole - other).second.matrix, one.second.matrix, rtol=0, atol=1e-9)
    with pytest.raises(DataError, match="behind the same one"):
        one + measure(*digits, NAMES, "projected:dimensions=16,seed=1")


def test_directions_of_a_projection_are_orthonormal_and_those_of_its_seed():
    one = projection(30, 7, 0)
    torch.testing.assert_close(one.T @ one, torch.eye(7, dtype=torch.float64))
    assert not torch.allclose(one, projection(30, 7, 1))


def test_a_projection_must_leave_fewer_dimensions(digits):
    with pytest.raises(DataError, match="cannot be projected to 64"):
        measure(*digits, NAMES, "projected:dimensions=64")
    with pytest.raises(DataError, match="naive Bayes"):
        NaiveBayes().fit(measure(*digits, NAMES, "projected:dimensions=8"))


def test_centres_are_those_of_scikit_learn_from_the_same_start(digits):
    features, labels = digits
    own = features[labels == 0]
    found = measure(own, torch.zeros(len(own), dtype=torch.int64), ("a",), "centres:per_class=3").second
    expected = KMeans(3, init=found.rows.numpy(), n_init=1).fit(own.numpy())
    np.testing.assert_allclose(np.sort(expected.cluster_centers_, 0), np.sort(found.rows.numpy(), 0), atol=1e-6)
    assert found.residual == pytest.approx(expected.inertia_, rel=1e-6)
    assert found.counts.sum() == len(own)


def test_centres_keep_class_means_and_the_trace_of_their_scatter(digits):
    exact, kept = (measure(*digits, NAMES, storage) for storage in ("full", "centres:per_class=4"))
    weighted = torch.zeros_like(exact.means).index_add_(
        0, kept.second.labels, kept.second.rows * kept.second.counts[:, None]
    )
    torch.testing.assert_close(weighted / exact.counts[:, None], exact.means)
    assert float(dense(within_scatter(kept)).trace()) == pytest.approx(float(within_scatter(exact).trace()))
    assert LDA().fit(kept).accuracy(*digits) > LDA().fit(measure(*digits, NAMES, "means")).accuracy(*digits)


def test_a_centre_for_each_sample_is_exact(digits):
    features, labels = digits[0][:100], digits[1][:100]
    kept, exact = (measure(features, labels, NAMES, one) for one in ("centres:per_class=100", "full"))
    torch.testing.assert_close(second_moments(kept), second_moments(exact))
    both = measure(features[:50], labels[:50], NAMES, "centres:per_class=50")
    both = both + measure(features[50:], labels[50:], NAMES, "centres:per_class=50")
    torch.testing.assert_close(second_moments(both), second_moments(exact))
    with pytest.raises(DataError, match="centres, cannot be subtracted"):
        both - kept


def test_a_logistic_head_is_trained_on_centres_as_often_as_they_weigh(digits):
    kept = measure(*digits, NAMES, "centres:per_class=5")
    centres = kept.second
    by_hand = Logistic().fit_samples(centres.rows, centres.labels, NAMES, weights=centres.counts)
    torch.testing.assert_close(Logistic().fit(kept).weight, by_hand.weight)


@pytest.mark.parametrize("storage", ["projected:dimensions=16,seed=9", "centres:per_class=3"])
def test_they_come_back_from_bytes(digits, storage):
    sums = measure(*digits, NAMES, storage, backbone="b")
    payload = encode_sums(sums, 32)
    back = decode_sums(payload, NAMES, 64, "b")
    torch.testing.assert_close(second_moments(back), second_moments(sums), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(back.means, sums.means, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(LDA().fit(back).weight, LDA().fit(sums).weight, rtol=1e-2, atol=1e-2)
    rows = len(sums.second.rows) if isinstance(sums.second, Centres) else 0
    assert len(payload) == encoded_size(10, sums.dimensions, type(sums.second), 32, 32, rows=rows)
    with pytest.raises(PayloadError):
        decode_sums(payload[:-1], NAMES, 64, "b")


def test_centres_that_do_not_add_up_to_their_class_are_refused(digits):
    payload = bytearray(encode_sums(measure(*digits, NAMES, "centres:per_class=2"), 8))
    start = encoded_size(10, 0)  # header and counts of classes
    for at, byte in ((start, 250), (start + 6, payload[start + 6] ^ 1)):  # a class that is not there; another count
        damaged = payload.copy()
        damaged[at] = byte
        with pytest.raises(PayloadError, match="centre"):
            decode_sums(bytes(damaged), NAMES, 64)


def test_a_projection_of_more_dimensions_than_there_are_is_refused(digits):
    payload = encode_sums(measure(*digits, NAMES, "projected:dimensions=16"), 8)
    with pytest.raises(PayloadError, match="16 dimensions, expected 10 and 16"):
        decode_sums(payload, NAMES, 16)


@pytest.mark.parametrize("bits", [4, 8, 32])
@pytest.mark.parametrize("budget", [600, 900, 1500, 3000, 20_000])
def test_a_byte_budget_is_kept_and_never_more_than_the_features_themselves(digits, budget, bits):
    for half in (halves(digits)[0], (digits[0][:30], digits[1][:30])):
        storage = Within(budget, bits, 32 if bits == 32 else 8)
        if encoded_size(10, 64, bits=bits, present=len(half[1].unique())) > budget:
            with pytest.raises(SettingsError, match="do not hold the means"):
                measure(*half, NAMES, storage)
            continue
        sums = measure(*half, NAMES, storage)
        payload = encode_sums(sums, bits)
        features = encoded_size(10, 0) + len(half[0]) * encoded_size(0, 64, bits=bits, present=1)
        assert len(payload) <= min(budget, features)
        assert len(payload) == budget or not isinstance(sums.second, Factor) or _one_more(payload, sums, bits) > budget


def _one_more(payload, sums, bits):
    """Bytes with another direction; without bound where there is none."""
    full = len(sums.second.rows) >= min(sums.dimensions, int(sums.total) - int((sums.counts > 0).sum()))
    return 1e9 if full else len(payload) + encoded_size(1, 64, bits=bits) - encoded_size(1, 0)


def test_a_budget_chooses_the_matrix_where_it_fits_and_all_add_up(digits):
    large, small = halves(digits)
    whole, few = measure(*large, NAMES, Within(10_000)), measure(*small, NAMES, "low-rank:rank=64")
    assert isinstance(whole.second, Gram)
    assert isinstance(few.second, Factor)
    torch.testing.assert_close((whole + few).second.matrix, measure(*digits, NAMES).second.matrix)
    torch.testing.assert_close((few + whole).second.matrix, measure(*digits, NAMES).second.matrix)
    with pytest.raises(SettingsError, match="do not hold the means of 5 classes"):
        measure(*large, NAMES, Within(200))


def test_truncated_sums_keep_the_trace_and_the_largest_directions(digits):
    whole = measure(*digits, NAMES)
    cut = whole.truncated(8)
    direct = measure(*digits, NAMES, "low-rank:rank=8")
    torch.testing.assert_close(dense(cut.second), dense(direct.second), rtol=1e-6, atol=1e-6)
    again = cut.truncated(4)
    assert len(again.second.rows) == 4
    assert float(dense(again.second).trace()) == pytest.approx(float(dense(cut.second).trace()))


def test_sketches_do_not_mix_with_whole_matrices(digits):
    one = measure(*digits, NAMES, "projected:dimensions=16")
    assert isinstance(one.second, Sketch)
    with pytest.raises(DataError, match="dimensions"):
        one + measure(*digits, NAMES)
