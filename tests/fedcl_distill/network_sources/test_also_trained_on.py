"""Truth: what the source underneath is given, and what a network learns of classes that are not distilled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch

from builders import blobs
from fedcl_distill.data import LabelledData
from fedcl_distill.engine import Budget, also_trained_on
from fedcl_distill.methods import build_method
from fedcl_distill.network_sources import AlsoTrainedOn, Interpolated, Supply
from fedcl_distill.networks import Architecture
from fedcl_distill.problem import Problem
from fedcl_distill.training import Recipe, class_accuracies, predict


@dataclass(frozen=True)
class Watching:
    """A source that keeps what it was given."""

    gives_goal: ClassVar[bool] = True
    seen: list[LabelledData]

    def open(self, problem: Problem) -> Supply:
        self.seen.append(problem.real)
        return Supply()

    def settings(self) -> dict[str, Any]:
        return {"networks": "watching"}


def _only(data: LabelledData, label: int, most: int) -> LabelledData:
    return data.subset(data.indices_of(label)[:most])


def _given(real: LabelledData, further: LabelledData, seed: int = 0) -> LabelledData:
    watching = Watching([])
    AlsoTrainedOn(watching, further).open(Problem(real, seed, torch.device("cpu")))
    return watching.seen[0]


@pytest.mark.parametrize(("many", "few"), [(40, 5), (7, 40), (13, 13)])
def test_classes_are_seen_equally_often_in_a_pass_as_long_as_both(many: int, few: int) -> None:
    data = blobs(per_class=40)
    given = _given(_only(data, 0, many), _only(data, 2, few))
    assert len(given) == many + few
    counts = given.class_counts.tolist()
    assert counts[1] == 0
    assert abs(counts[0] - counts[2]) <= 2
    rows = {tuple(row.flatten().tolist()) for row in data.unit()}
    assert {tuple(row.flatten().tolist()) for row in given.samples} <= rows
    rare = given.samples[given.labels == 2].unique(dim=0)
    assert len(rare) == min(few, counts[2]), "no sample of a rare class is left out"


def test_the_seed_fixes_what_is_drawn(untouched_global_rng: None) -> None:
    data = blobs(per_class=40)
    first, again, other = (_given(_only(data, 0, 40), _only(data, 1, 9), seed) for seed in (3, 3, 4))
    assert torch.equal(first.samples, again.samples)
    assert not torch.equal(first.samples, other.samples)


def test_pixels_and_floats_go_together_and_the_range_holds_both() -> None:
    pixels = blobs((1, 4, 4), per_class=6)
    floats = LabelledData(
        pixels.unit() * 1.5 - 0.25, pixels.labels, pixels.class_names, pixels.normalisation, (-0.25, 1.25)
    )
    given = _given(pixels, floats)
    low, high = given.value_range
    assert low <= -0.25
    assert high >= 1.25
    assert len(given) == 2 * len(pixels)


def test_networks_know_classes_that_are_not_distilled() -> None:
    data = blobs()
    real, further = _only(data, 0, 100), data.subset((data.labels != 0).nonzero().flatten())
    source = Interpolated(Architecture("mlp", {"width": 8}), 1, Recipe(epochs=20, learning_rate=0.05, batch_size=16))
    accuracies = []
    for one in (source, AlsoTrainedOn(source, further)):
        goal = one.open(Problem(real, 0, torch.device("cpu"))).draw(0, 0).goal
        assert goal is not None
        accuracies.append(class_accuracies(predict(goal, data), data).min().item())
    assert accuracies[0] < 0.1
    assert accuracies[1] > 0.8


def test_goals_and_settings_are_those_of_the_source_and_name_the_samples() -> None:
    data, watching = blobs(), Watching([])
    first, other = (AlsoTrainedOn(watching, _only(data, label, 9)) for label in (0, 1))
    assert first.gives_goal
    assert first.settings()["networks"] == "watching"
    assert first.settings() != other.settings()
    assert first.settings() == AlsoTrainedOn(watching, _only(data, 0, 9)).settings()


def test_a_method_whose_networks_do_not_train_gives_the_same_and_a_core_set_stays_as_it_is() -> None:
    data = blobs()
    herding = build_method("herding")
    assert also_trained_on(herding, data) is herding
    dm = build_method("dm", architecture="mlp:width=8", real_per_class=8)
    real, further = _only(data, 0, 20), _only(data, 1, 20)
    plain, beside = (
        one.distil(real, 2, seed=0, budget=Budget(steps=3), absent_classes="skip")
        for one in (dm, also_trained_on(dm, further))
    )
    assert torch.equal(plain.samples(), beside.samples())
