"""Sums as a continual learner: exact ones end where all data at once end, bounded ones keep their bytes."""

import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge as SklearnRidge

from fedcl_distill.data import LabelledData, Normalisation, Splits
from fedcl_distill.errors import SettingsError
from fedcl_distill.features import ClusterCentres, LowRank, Means, RandomFeatures
from strategies.continual import ContinualSettings, FeatureSumMemory, run_stream


def unit(data):
    rows = torch.nn.functional.normalize(data.unit().flatten(1), dim=1)
    plain = Normalisation((0.0,) * 64, (1.0,) * 64)
    return LabelledData.from_tensors(
        rows, data.labels, class_names=data.class_names, normalisation=plain, value_range=(-1.0, 1.0)
    )


@pytest.fixture
def vectors(digits):
    return Splits(unit(digits.train), unit(digits.test))


def life(splits, strategy, **changes):
    own = changes.pop("own", {})
    return run_stream(ContinualSettings(strategy=strategy, strategy_settings=own, **changes), splits)


def test_slda_ends_as_the_analysis_of_all_data_at_once(vectors):
    train, test = vectors.train, vectors.test
    own = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.01, priors=[0.1] * 10)
    expected = own.fit(train.samples.numpy(), train.labels.numpy()).score(test.samples.numpy(), test.labels.numpy())
    reached = life(vectors, "slda", own={"shrinkage": 0.01}).test_accuracy
    assert reached == pytest.approx(expected, abs=0.012)


@pytest.mark.parametrize("order_seed", [None, 3])
def test_ridge_and_ranpac_do_not_know_in_which_order_classes_came(vectors, order_seed):
    train, test = vectors.train, vectors.test
    rows, seen = RandomFeatures(300)(train.samples), RandomFeatures(300)(test.samples)
    penalty = 1e-3 * float(rows.double().square().sum()) / 300
    onehot = torch.nn.functional.one_hot(train.labels, 10).numpy()
    fitted = SklearnRidge(alpha=penalty, fit_intercept=False).fit(rows.numpy(), onehot)
    expected = (fitted.predict(seen.numpy()).argmax(1) == test.labels.numpy()).mean()
    reached = life(vectors, "ranpac", own={"count": 300}, order_seed=order_seed)
    assert reached.test_accuracy == pytest.approx(expected, abs=0.004)
    assert reached.matrix.forgetting < 0.1


def test_the_same_head_online_and_in_experiences(vectors):
    few = Splits(vectors.train.subset(torch.arange(300)), vectors.test)
    once = life(few, "ncm", online=True, batch_size=16)
    assert once.test_accuracy == pytest.approx(life(few, "ncm").test_accuracy, abs=0.003)


@pytest.mark.parametrize("strategy", ["low-rank", "clustered"])
def test_a_budget_is_filled_and_kept_while_classes_come(vectors, strategy):
    small, large = (life(vectors, strategy, byte_budget=budget) for budget in (1_600, 6_000))
    assert max(small.bytes_kept) <= 1_600
    assert 5_000 < large.bytes_kept[-1] <= 6_000
    assert large.test_accuracy > 0.9
    with pytest.raises(SettingsError, match="bytes at least"):
        life(vectors, strategy, byte_budget=300)


def test_a_class_that_comes_back_adds_to_what_is_known(vectors):
    train = vectors.train
    half = torch.arange(len(train)) % 2 == 0
    parts = [train.subset(half.nonzero().flatten()), train.subset((~half).nonzero().flatten())]
    for storage, budget in ((Means(), None), (LowRank(), 3_000), (ClusterCentres(), 4_000)):
        memory = FeatureSumMemory(storage, 32, 32, budget)
        for part in parts:
            memory.add(part)
        assert memory.sums.counts.tolist() == train.class_counts.tolist()
        means = torch.stack([train.samples[train.labels == label].mean(0) for label in range(10)])
        torch.testing.assert_close(memory.sums.means.float(), means, atol=1e-5, rtol=1e-4)
        assert budget is None or memory.bytes_kept <= budget
