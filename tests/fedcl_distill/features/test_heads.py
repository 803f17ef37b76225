"""Heads from sums against scikit-learn on the samples."""

import numpy as np
import pytest
import torch
from sklearn.covariance import OAS
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.linear_model import Ridge as SklearnRidge
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import NearestCentroid

from fedcl_distill.errors import DataError, SettingsError
from fedcl_distill.features import HEADS, LDA, Logistic, NaiveBayes, NearestMean, Ridge, measure

NAMES = tuple("0123456789")


@pytest.fixture(scope="module")
def digits():
    features, labels = load_digits(return_X_y=True)
    features = features / 16 + 1e-3 * np.random.default_rng(0).standard_normal(features.shape)
    return torch.tensor(features), torch.tensor(labels)


@pytest.fixture(scope="module")
def train(digits):
    return digits[0][:1200], digits[1][:1200]


@pytest.fixture(scope="module")
def test(digits):
    return digits[0][1200:], digits[1][1200:]


def agreement(head, reference, features):
    return float((head.predict(features).numpy() == reference.predict(features.numpy())).mean())


def test_nearest_mean_is_scikit_learns_nearest_centroid(train, test):
    reference = NearestCentroid().fit(*(one.numpy() for one in train))
    assert agreement(NearestMean().fit(measure(*train, NAMES, "means")), reference, test[0]) == 1


@pytest.mark.parametrize("shrinkage", [0.0, 0.1, 0.7])
def test_lda_is_scikit_learns(train, test, shrinkage):
    reference = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(*(one.numpy() for one in train))
    head = LDA(shrinkage=shrinkage, priors="empirical").fit(measure(*train, NAMES))
    if shrinkage:  # scikit-learn shrinks every class by its own level, of which ours is the mean
        assert agreement(head, reference, test[0]) > 0.99
    else:
        np.testing.assert_allclose(head.weight, reference.coef_, rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(head.bias, reference.intercept_, rtol=1e-3)


def test_the_share_of_the_identity_is_oas(train):
    """The same head with scikit-learn's own estimate for deviations from class means."""
    features, labels = train
    sums = measure(*train, NAMES)
    centred = (features - sums.means[labels]).numpy()
    estimate = OAS(assume_centered=True).fit(centred).covariance_
    expected = np.linalg.solve(estimate, sums.means.numpy().T).T
    np.testing.assert_allclose(LDA().fit(sums).weight, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shrinkage", ["oas", 0.05, 1.0])
def test_full_rank_and_the_whole_matrix_give_the_same_lda(train, shrinkage):
    whole = LDA(shrinkage=shrinkage).fit(measure(*train, NAMES, "full"))
    factor = LDA(shrinkage=shrinkage).fit(measure(*train, NAMES, "low-rank:rank=64"))
    np.testing.assert_allclose(factor.weight, whole.weight, rtol=1e-4, atol=1e-4)


def test_ridge_is_scikit_learns(train, test):
    features, labels = train
    gram = (features.T @ features).diagonal().mean()
    head = Ridge(regularisation=0.01).fit(measure(*train, NAMES))
    targets = torch.nn.functional.one_hot(labels).double()
    reference = SklearnRidge(alpha=0.01 * float(gram), fit_intercept=False).fit(features.numpy(), targets.numpy())
    np.testing.assert_allclose(head.weight, reference.coef_, atol=1e-4)


def test_naive_bayes_is_scikit_learns(train, test):
    features, labels = train
    smoothing = 1e-2
    variances = np.stack([features[labels == label].numpy().var(0) for label in range(10)])
    share = smoothing * variances.max() / features.numpy().var(0).max()
    reference = GaussianNB(priors=np.full(10, 0.1), var_smoothing=share).fit(features.numpy(), labels.numpy())
    head = NaiveBayes(smoothing=smoothing).fit(measure(*train, NAMES, "diagonal"))
    assert agreement(head, reference, test[0]) > 0.995


def test_logistic_regression_is_scikit_learns(train, test):
    features, labels = train
    decay = 1e-3
    reference = LogisticRegression(C=1 / (decay * len(features)), max_iter=2000, tol=1e-8)
    reference.fit(features.numpy(), labels.numpy())
    head = Logistic(weight_decay=decay, max_iterations=1000).fit_samples(features, labels, NAMES)
    np.testing.assert_allclose(head.weight - head.weight.mean(0), reference.coef_ - reference.coef_.mean(0), atol=2e-2)
    assert agreement(head, reference, test[0]) > 0.99


@pytest.mark.parametrize(("name", "fewest"), [("ncm", 0.85), ("lda", 0.9), ("ridge", 0.85), ("naive-bayes", 0.82)])
def test_every_head_follows_from_low_rank_sums(train, test, name, fewest):
    sums = measure(*train, NAMES, "low-rank:rank=8")
    assert HEADS.build(name).fit(sums).accuracy(*test) > fewest


def test_draws_from_gaussians_train_a_head(train, test):
    assert Logistic(draws=50).fit(measure(*train, NAMES, "diagonal")).accuracy(*test) > 0.85


def test_a_class_nobody_has_is_never_predicted(train, test):
    features, labels = train
    known = labels != 3
    for name in HEADS.names():
        head = HEADS.build(name).fit(measure(features[known], labels[known], NAMES, "diagonal"))
        assert not (head.predict(test[0]) == 3).any()
        assert head.accuracy(test[0], test[1]) > 0.6


def test_a_linear_head_becomes_a_layer(train, test):
    head = LDA().fit(measure(*train, NAMES))
    np.testing.assert_allclose(head.as_linear()(test[0].float()).detach(), head.logits(test[0]), rtol=1e-4, atol=1e-3)
    with pytest.raises(DataError, match="no linear layer"):
        NaiveBayes().fit(measure(*train, NAMES, "diagonal")).as_linear()


def test_nothing_to_learn_from_is_an_error():
    empty = measure(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), NAMES)
    for name in ("lda", "ridge", "naive-bayes", "logistic"):
        with pytest.raises(DataError):
            HEADS.build(name).fit(empty)
    with pytest.raises(DataError, match="means alone"):
        Ridge().fit(measure(torch.ones(2, 3), torch.tensor([0, 1]), NAMES, "means"))


@pytest.mark.parametrize("setting", [{"shrinkage": 1.5}, {"shrinkage": "ledoit"}, {"priors": "none"}])
def test_settings_out_of_range_are_named(setting):
    with pytest.raises(SettingsError, match=next(iter(setting))):
        LDA(**setting)
