"""Distillation from sums against the same done on the data, step by step."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from builders import blobs
from fedcl_distill import Architecture, Budget, evaluate
from fedcl_distill.augmentation import NoAugmentation
from fedcl_distill.data import DataSpec, LabelledData, Normalisation, partition
from fedcl_distill.engine import Callback, Engine
from fedcl_distill.errors import CheckpointError, DataError, SettingsError
from fedcl_distill.evaluation import QUICK
from fedcl_distill.network_sources import NoNetwork
from fedcl_distill.parameterizations import Pixels
from fedcl_distill.statistics import (
    StatisticsSpec,
    Sums,
    add_up,
    class_statistics,
    decode_statistics,
    distil_statistics,
    encode_statistics,
)
from fedcl_distill.statistics.distil import FromMoments, HeldOutViews, StatisticsMatching
from fedcl_distill.statistics.spec import feature_map
from stopping import StopAt

SPEC = StatisticsSpec(views=3, architecture="convnet:width=4,depth=2", dimensions=6, moments=4)


@pytest.fixture(scope="module")
def data():
    return blobs(allow_hflip=True)


@pytest.fixture(scope="module")
def statistics(data):
    return class_statistics(data, SPEC)


def _pixels(synthetic):
    return synthetic.arrays["pixels"]


def _distil(statistics, steps=4, size=2, **settings):
    return distil_statistics(statistics, size, seed=0, budget=Budget(steps=steps), **settings)


def _by_hand(data, start, steps, rate):
    """Gradient descent on Σ ‖mean of all real features − mean of synthetic features‖², view after view."""
    samples, labels = start.clone().requires_grad_(), torch.arange(3).repeat_interleave(len(start) // 3)
    for step in range(steps):
        view = feature_map(SPEC, data.spec, step % SPEC.views, torch.device("cpu"))
        real, synthetic = view(data.inputs(), data.labels), view(samples, labels)
        loss = sum(
            (real[data.labels == label].mean(0) - synthetic[labels == label].mean(0)).square().sum()
            for label in range(3)
        )
        (slope,) = torch.autograd.grad(loss, samples)
        samples = (samples - rate * slope).detach().requires_grad_()
    return samples.detach()


def test_steps_are_those_of_distribution_matching_on_all_the_data(data, statistics):
    start = _pixels(_distil(statistics, steps=0))
    settings = {"learning_rate": 0.1, "momentum": 0.0, "decay_start": 1.0}
    found = _pixels(_distil(statistics, steps=5, **settings))
    torch.testing.assert_close(found, _by_hand(data, start, 5, 0.1), rtol=1e-4, atol=1e-4)
    assert float((found - start).abs().max()) > 1e-3


@pytest.mark.parametrize("how", ["iid", "dirichlet:0.01", "classes:1"])
def test_the_result_is_that_of_the_pooled_data_however_these_are_divided(how, data, statistics):
    parts = partition(data, how, 3, seed=2)
    received = [decode_statistics(encode_statistics(class_statistics(part, SPEC), 32)) for part in parts]
    divided, pooled = _pixels(_distil(add_up(received))), _pixels(_distil(statistics))
    torch.testing.assert_close(divided, pooled, rtol=1e-3, atol=1e-3)


def test_same_seed_same_samples(statistics, untouched_global_rng):
    one, again = _distil(statistics), _distil(statistics)
    assert torch.equal(_pixels(one), _pixels(again))
    assert one.provenance["method"] == "statistics"
    assert one.provenance["real_counts"] == [20, 20, 20]
    other = distil_statistics(statistics, 2, seed=1, budget=Budget(steps=4))
    assert not torch.equal(_pixels(one), _pixels(other))


def test_an_interrupted_run_resumes_to_the_same_bits(tmp_path, data, statistics):
    path = tmp_path / "run.pt"
    whole = _distil(statistics, steps=7)
    _distil(statistics, steps=7, checkpoint=path, callbacks=[StopAt(3)])
    others = class_statistics(data.subset(torch.arange(50)), SPEC)
    with pytest.raises(CheckpointError):
        _distil(others, steps=7, checkpoint=path)
    assert torch.equal(_pixels(_distil(statistics, steps=7, checkpoint=path)), _pixels(whole))


def test_classes_nobody_has_are_refused_or_left_out(data):
    two = class_statistics(data.subset((data.labels < 2).nonzero().flatten()), SPEC)
    with pytest.raises(DataError, match="no samples of class 2"):
        _distil(two)
    assert _distil(two, absent_classes="skip").class_counts.tolist() == [2, 2, 0]


def test_a_view_without_samples_of_a_class_teaches_nothing_about_it(data):
    few = data.subset(torch.arange(len(data)) % 10 == 0)
    sparse = class_statistics(few, StatisticsSpec(**{**SPEC.settings(), "share": 0.2, "views": 12}))
    assert bool((sparse.sums["features"].counts == 0).any())
    assert torch.isfinite(_pixels(_distil(sparse, steps=12))).all()


def test_tiles_decode_to_more_samples(statistics):
    synthetic = _distil(statistics, size=1, parameterization="tiles:factor=2")
    assert synthetic.class_counts.tolist() == [4, 4, 4]
    assert _pixels(synthetic).shape == (3, 1, 8, 8)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"init": "random"}, "'moments', 'noise'"),
        ({"parameterization": "generator"}, "real samples"),
        ({"learning_rate": "high"}, "learning_rate"),
        ({"momentum": 1.5}, "momentum"),
        ({"steps_per_network": 0}, "steps_per_network"),
        ({"clamp": 1}, "clamp"),
        ({"method": "dm"}, "unknown setting 'method'"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message, statistics):
    with pytest.raises(SettingsError, match=message):
        _distil(statistics, **settings)


def test_first_samples_have_the_mean_and_the_coarse_covariance_of_their_class():
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(6, 6, generator=generator)
    values = torch.randn(4000, 6, generator=generator) @ mixing + torch.arange(6.0)
    spec = DataSpec((6,), ("only",), Normalisation((1.0,) * 6, (2.0,) * 6), value_range=(-99.0, 99.0))
    real = LabelledData(values, torch.zeros(4000).long(), spec)
    statistics = class_statistics(real, StatisticsSpec(views=2, architecture="mlp:width=2", moments=3))
    found = FromMoments(statistics).samples(statistics.as_blank_data(), [4000], seed=1)
    torch.testing.assert_close(found.mean(0), real.inputs().mean(0), atol=0.1, rtol=0)
    torch.testing.assert_close(found.T.cov(), real.inputs().T.cov(), atol=0.25, rtol=0.1)


def test_first_samples_of_images_stay_in_range_and_vary_without_second_moments(data):
    for moments in (0, 4):
        statistics = class_statistics(data, StatisticsSpec(**{**SPEC.settings(), "moments": moments}))
        found = data.normalisation.invert(FromMoments(statistics).samples(statistics.as_blank_data(), [3] * 3, seed=0))
        assert -1e-5 <= float(found.min()) <= float(found.max()) <= 1 + 1e-5
        assert float((found[0] - found[1]).abs().max()) > 0.01


def test_mismatch_is_the_loss_of_a_view(data, statistics):
    objective = StatisticsMatching(statistics)
    inputs, labels = data.inputs(), data.labels
    assert objective.mismatch(1, inputs, labels) < 1e-6
    assert objective.mismatch(1, inputs * 0.5, labels) > 1e-2


def test_digits_learn_more_from_distilled_samples_than_from_the_first_ones(digits):
    statistics = class_statistics(digits.train, StatisticsSpec(views=20, architecture="convnet:width=16"))
    received = decode_statistics(encode_statistics(statistics, 8))

    def accuracy(steps):
        synthetic = _distil(received, steps, size=1)
        network = Architecture("convnet", {"width": 16})
        return evaluate(synthetic, digits.test, QUICK, seed=0, networks=1, architecture=network).mean

    before, after = accuracy(0), accuracy(100)
    assert after > before + 0.02
    assert after > 0.85


class _Mismatches(Callback):
    """What held-out views would say after each step."""

    def __init__(self, objective):
        self.objective, self.found = objective, []

    def on_step(self, run):
        inputs, labels = run.state.arrays["pixels"].detach(), torch.arange(3).repeat_interleave(2)
        of_views = [self.objective.mismatch(view, inputs, labels) for view in self.objective.held_out_views]
        self.found.append(sum(of_views) / len(of_views))


def test_held_out_views_end_a_run_where_they_fit_best(data):
    statistics = class_statistics(data, StatisticsSpec(**{**SPEC.settings(), "views": 6}))
    objective = StatisticsMatching(statistics, 5)
    stopping = HeldOutViews(objective, Pixels(), torch.arange(3).repeat_interleave(2), every=5, patience=2)
    watching = _Mismatches(objective)
    engine = Engine(objective, NoNetwork(), FromMoments(statistics), Budget(steps=400), NoAugmentation())
    synthetic = engine.distil(statistics.as_blank_data(), 2, seed=0, callbacks=[stopping, watching])
    assert 10 < synthetic.provenance["steps"] < 400  # one view is fitted at the cost of the others
    assert stopping.mismatches == pytest.approx(watching.found[4::5])
    assert stopping.mismatches[-3] == min(stopping.mismatches)
    labels = synthetic.labels
    kept = [objective.mismatch(view, synthetic.inputs(), labels) for view in objective.held_out_views]
    assert sum(kept) / 5 == pytest.approx(min(stopping.mismatches))


def test_views_held_out_are_not_matched(statistics):
    changed = dict(statistics.sums)
    features = changed["features"]
    changed["features"] = Sums(features.counts, features.values.clone())
    changed["features"].values[2] += 5
    other = replace(statistics, sums=changed)
    assert torch.equal(_pixels(_distil(statistics, held_out=1)), _pixels(_distil(other, held_out=1)))
    assert not torch.equal(_pixels(_distil(statistics)), _pixels(_distil(other)))


def test_held_out_views_that_cannot_be(tmp_path, statistics):
    for count in (3, -1, 1.5):
        with pytest.raises(SettingsError, match="held_out"):
            _distil(statistics, held_out=count)
    with pytest.raises(SettingsError, match="checkpoint"):
        _distil(statistics, held_out=1, checkpoint=tmp_path / "run.pt")
