"""Truth: formulas by hand, their limits, and sets whose worth is known."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from builders import blobs
from fedcl_distill.data import Splits
from fedcl_distill.evaluation import (
    FAST,
    Protocol,
    augmentation_robust_score,
    evaluate,
    label_robust_score,
    real_accuracy,
    score,
)
from fedcl_distill.labels import TeacherLabels
from fedcl_distill.methods import build_method
from fedcl_distill.seeding import derive_seed
from fedcl_distill.synthetic import SyntheticSet
from fedcl_distill.training import TrainConfig

QUICK = Protocol("quick", TrainConfig(epochs=20, learning_rate=0.05, schedule="cosine"), networks=2, width=8)
SPLITS = Splits(blobs(per_class=20), blobs(per_class=10, seed=3))


def random_set(per_class: int = 2, seed: int = 0) -> SyntheticSet:
    return build_method("random").distil(SPLITS.train, per_class, seed=seed)


def test_formulas_by_hand() -> None:
    """α = 0.5 · (0.6 − 0.4) − 0.5 · (0.9 − 0.5) = −0.1 and β = 0.5 · 0.2 + 0.5 · 0.1 = 0.15."""
    lrs = label_robust_score(real_hard=0.9, synthetic_hard=0.5, synthetic=0.6, random=0.4)
    assert lrs == pytest.approx((0.904837418 - 0.367879441) / (2.718281828 - 0.367879441))
    ars = augmentation_robust_score(synthetic=0.6, random=0.4, synthetic_plain=0.5, random_plain=0.4)
    assert ars == pytest.approx((1.161834243 - 0.367879441) / (2.718281828 - 0.367879441))


def test_scores_reach_0_and_1_at_the_worst_and_the_best() -> None:
    assert label_robust_score(real_hard=1, synthetic_hard=0, synthetic=0, random=1) == pytest.approx(0)
    assert label_robust_score(real_hard=0, synthetic_hard=1, synthetic=1, random=0) == pytest.approx(1)
    best = augmentation_robust_score(synthetic=1, random=0, synthetic_plain=1, random_plain=0)
    worst = augmentation_robust_score(synthetic=0, random=1, synthetic_plain=0, random_plain=1)
    assert (worst, best) == (pytest.approx(0), pytest.approx(1))
    nothing_gained = (1 - math.exp(-1)) / (math.e - math.exp(-1))
    assert label_robust_score(real_hard=0.8, synthetic_hard=0.8, synthetic=0.5, random=0.5) == pytest.approx(
        nothing_gained
    )


def test_weights_leave_one_side_out() -> None:
    one = label_robust_score(real_hard=0.9, synthetic_hard=0.1, synthetic=0.5, random=0.2, weight=1)
    other = label_robust_score(real_hard=0.2, synthetic_hard=0.7, synthetic=0.5, random=0.2, weight=1)
    assert one == other
    plain = augmentation_robust_score(synthetic=0.5, random=0.2, synthetic_plain=0.1, random_plain=0.3, weight=1)
    assert plain == pytest.approx(one)


def test_accuracies_are_those_of_the_evaluation(untouched_global_rng: None) -> None:
    """Of hard labels nothing is trained twice, and each accuracy is the mean of single evaluations."""
    synthetic, heard = random_set(), []
    scores = score(
        synthetic, SPLITS, QUICK, seed=5, real_hard=0.75, on_accuracy=lambda name, value: heard.append((name, value))
    )
    seeds = [derive_seed(5, "score", index) for index in range(2)]
    plain = dataclasses.replace(QUICK, augment=False)
    for protocol, found in ((QUICK, scores.synthetic), (plain, scores.synthetic_plain)):
        single = [evaluate(synthetic, SPLITS.test, protocol, seed=one, networks=1).mean for one in seeds]
        assert found == pytest.approx(sum(single) / 2)
    assert scores.synthetic_hard == scores.synthetic
    assert scores.real_hard == 0.75
    assert dict(heard) == dataclasses.asdict(scores)
    assert scores == score(synthetic, SPLITS, QUICK, seed=5, real_hard=0.75)
    record = scores.as_record()
    assert record["label_robust_score"] == label_robust_score(
        real_hard=0.75, synthetic_hard=scores.synthetic_hard, synthetic=scores.synthetic, random=scores.random
    )
    assert record["accuracy_random_plain"] == scores.random_plain


def test_wrong_labels_score_below_random_samples() -> None:
    good = random_set(5)
    wrong = dataclasses.replace(good, labels=(good.labels + 1) % 3)
    longer = dataclasses.replace(QUICK, train_config=dataclasses.replace(QUICK.train_config, epochs=60))
    low, high = (score(one, SPLITS, longer, seed=0, real_hard=1.0, networks=1) for one in (wrong, good))
    assert low.label_robust < high.label_robust
    assert low.augmentation_robust < (1 - math.exp(-1)) / (math.e - math.exp(-1)) - 0.05


def test_random_samples_are_labelled_as_the_set_is() -> None:
    """Soft labels are judged against soft labels; by hard ones the same set is another one."""
    turned = torch.nn.functional.one_hot((random_set().labels + 1) % 3, 3)
    soft = dataclasses.replace(random_set(), labels=(0.3 + 0.1 * turned).float())
    teacher = TeacherLabels(temperature=1.0, train_config=TrainConfig(epochs=60, learning_rate=0.05))
    longer = dataclasses.replace(QUICK, train_config=dataclasses.replace(QUICK.train_config, epochs=100), augment=False)
    scores = score(soft, SPLITS, longer, seed=0, real_hard=1.0, labels=teacher, networks=1)
    assert scores.synthetic < 0.2  # all labels are wrong, softly
    assert scores.random > 0.6  # a teacher's say what hard ones would
    assert scores.synthetic_hard < 0.2


def test_features_have_no_augmentation_to_be_robust_to() -> None:
    splits = Splits(blobs((5,), per_class=20), blobs((5,), per_class=10, seed=3))
    synthetic = build_method("random").distil(splits.train, 1, seed=0)
    scores = score(synthetic, splits, QUICK, seed=0, networks=1)
    assert (scores.synthetic_plain, scores.random_plain) == (scores.synthetic, scores.random)
    assert scores.real_hard == real_accuracy(splits, QUICK, seed=0) > 0.9


def test_the_default_protocol_is_the_fast_one() -> None:
    assert score.__defaults__ == (FAST,)
