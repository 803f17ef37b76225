"""Truth: a network trained by hand the same way, and sets whose worth is known."""

from __future__ import annotations

import dataclasses
import statistics

import pytest
import torch

from builders import blobs
from fedcl_distill.data import LabelledData, Splits
from fedcl_distill.engine import Budget
from fedcl_distill.errors import DataError
from fedcl_distill.evaluation import FAST, FIELD, Protocol, evaluate
from fedcl_distill.methods import build_method
from fedcl_distill.networks import Architecture
from fedcl_distill.synthetic import SyntheticSet
from fedcl_distill.training import TrainConfig

QUICK = Protocol("quick", TrainConfig(epochs=150, learning_rate=0.05), networks=2, width=8)


def chosen(data: LabelledData, per_class: int = 5) -> SyntheticSet:
    return build_method("random").distil(data, per_class, seed=0)


def test_a_good_set_trains_well_and_wrong_labels_do_not(untouched_global_rng: None) -> None:
    data, test = blobs(per_class=20), blobs(per_class=30, seed=3)
    good = chosen(data)
    wrong = dataclasses.replace(good, labels=(good.labels + 1) % 3)
    assert evaluate(good, test, QUICK, seed=0).mean > 0.9
    assert evaluate(wrong, test, QUICK, seed=0).mean < 0.1


def test_numbers_are_what_they_say() -> None:
    data, test = blobs(), blobs(per_class=11, seed=3)
    seen: list[tuple[int, float]] = []
    result = evaluate(chosen(data), test, QUICK, seed=0, networks=3, on_network=lambda k, a: seen.append((k, a)))
    assert [k for k, _ in seen] == [1, 2, 3]
    assert result.accuracies == tuple(a for _, a in seen)
    assert result.mean == pytest.approx(statistics.mean(result.accuracies))
    assert result.std == pytest.approx(statistics.stdev(result.accuracies))
    assert statistics.mean(result.class_accuracies) == pytest.approx(result.mean)  # classes are balanced
    assert result.as_record()["protocol"] == "quick"
    again = evaluate(chosen(data), test, QUICK, seed=0, networks=3)
    assert again.accuracies == result.accuracies


def test_presets_are_the_published_settings() -> None:
    assert FIELD.train_config.epochs == 1000
    assert (FIELD.train_config.learning_rate, FIELD.train_config.momentum, FIELD.train_config.weight_decay) == (
        0.01,
        0.9,
        5e-4,
    )
    assert (FIELD.train_config.batch_size, FIELD.train_config.schedule, FIELD.width) == (256, "halfway", 128)
    assert FAST.name == "fast"
    assert str(FIELD.architecture_for(blobs())) == "convnet(width=128)"
    assert str(FAST.architecture_for(blobs((5,)))) == f"mlp(width={FAST.width})"


def test_other_architectures_and_absent_test_classes() -> None:
    data = blobs()
    test = data.subset(torch.arange(40))  # no sample of class 2
    result = evaluate(chosen(data), test, QUICK, seed=0, architecture=Architecture("lenet"))
    assert result.architecture == "lenet"
    assert torch.tensor(result.class_accuracies).isnan().tolist() == [False, False, True]


def test_data_that_do_not_fit_are_refused() -> None:
    with pytest.raises(DataError, match="cannot test"):
        evaluate(chosen(blobs()), blobs(classes=4), QUICK, seed=0)
    with pytest.raises(DataError, match="cannot test"):
        evaluate(chosen(blobs()), blobs((1, 9, 9)), QUICK, seed=0)


def test_digits_end_to_end(digits: Splits) -> None:
    distilled = build_method(
        "dm", architecture=Architecture("convnet", {"width": 32}), real_batch_per_class=64, steps_per_network=5
    )
    protocol = dataclasses.replace(FAST, networks=1, width=32)
    synthetic = distilled.distil(digits.train, 1, seed=0, budget=Budget(steps=100))
    random = [
        evaluate(build_method("random").distil(digits.train, 1, seed=s), digits.test, protocol, seed=0).mean
        for s in range(3)
    ]
    assert evaluate(synthetic, digits.test, protocol, seed=0).mean > statistics.mean(random) + 0.05
