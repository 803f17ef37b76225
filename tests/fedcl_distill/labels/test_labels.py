"""Truth: limits of the temperature, a teacher on data that it can tell apart, and what is saved and trained on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from builders import blobs
from fedcl_distill.context import RealSampler, SetupContext, SyntheticBatch
from fedcl_distill.data import LabelledData
from fedcl_distill.engine import SGD, Budget, Engine, FromReal
from fedcl_distill.errors import SettingsError
from fedcl_distill.evaluation import FAST, evaluate
from fedcl_distill.labels import Labelling, LearnedLabels, TeacherLabels, softened
from fedcl_distill.methods import build_method, dm
from fedcl_distill.network_sources import NoNetwork
from fedcl_distill.networks import Architecture
from fedcl_distill.objectives import MatchContext, Objective
from fedcl_distill.selection import Random
from fedcl_distill.synthetic import decode, encode
from fedcl_distill.training import TrainConfig

MLP = Architecture("mlp", {"width": 16})
RECIPE = TrainConfig(epochs=15, learning_rate=0.05, batch_size=16)


def taught(data: LabelledData, seed: int = 0, **settings: Any) -> Labelling:
    teacher = TeacherLabels(**{"architecture": MLP, "train_config": RECIPE, **settings})
    return teacher.open(SetupContext(data, seed, torch.device("cpu")))


def labels_of(data: LabelledData, **settings: Any) -> Tensor:
    return taught(data, **settings).initial(data.inputs(), data.labels)


def test_a_teacher_labels_what_it_has_learned() -> None:
    data = blobs(per_class=20)
    labels = labels_of(data)
    assert labels.dtype == torch.float32
    torch.testing.assert_close(labels.sum(dim=1), torch.ones(60))
    assert (labels.argmax(dim=1) == data.labels).float().mean() > 0.95


def test_hot_teachers_are_indifferent_and_cold_ones_certain() -> None:
    data = blobs(per_class=8)
    warm, hot, cold = (labels_of(data, temperature=temperature) for temperature in (1.0, 1e6, 1e-6))
    torch.testing.assert_close(hot, torch.full_like(hot, 1 / 3), atol=1e-4, rtol=0)
    torch.testing.assert_close(cold, F.one_hot(warm.argmax(dim=1), 3).float())


def test_softening_is_the_softmax_of_divided_scores() -> None:
    scores = torch.randn(5, 4, dtype=torch.float64)
    expected = (scores / 3).exp() / (scores / 3).exp().sum(dim=1, keepdim=True)
    torch.testing.assert_close(softened(scores, 3.0), expected)
    assert softened(torch.tensor([[1e30, 0.0]]), 1e-20).tolist() == [[1.0, 0.0]]


def test_several_teachers_are_averaged_and_differ() -> None:
    data = blobs(per_class=8)
    one, two = labels_of(data, teachers=1), labels_of(data, teachers=2)
    other = 2 * two - one  # the second teacher's, if two is the mean
    assert not torch.allclose(one, two)
    torch.testing.assert_close(other.sum(dim=1), torch.ones(24))
    assert -1e-6 < float(other.min()) <= float(other.max()) < 1 + 1e-6


def test_a_teacher_depends_on_the_seed_alone(untouched_global_rng: None) -> None:
    data = blobs(per_class=8)
    assert torch.equal(labels_of(data, seed=1), labels_of(data, seed=1))
    assert not torch.equal(labels_of(data, seed=1), labels_of(data, seed=2))


def test_no_time_still_gives_one_teacher_of_one_step() -> None:
    data = blobs(per_class=8)
    train_config = replace(RECIPE, batch_size=24, schedule="constant")

    def labels(epochs: int, teachers: int, *, time: bool) -> Tensor:
        teacher = TeacherLabels(architecture=MLP, train_config=replace(train_config, epochs=epochs), teachers=teachers)
        labelling = teacher.open(SetupContext(data, 0, torch.device("cpu"), lambda: time))
        return labelling.initial(data.inputs(), data.labels)

    one_step = labels(epochs=1, teachers=1, time=True)  # the whole data are one batch
    assert torch.equal(labels(epochs=9, teachers=3, time=False), one_step)
    assert not torch.equal(labels(epochs=9, teachers=1, time=True), one_step)


@pytest.mark.parametrize("shape", [(3, 8, 12), (5,)])
def test_the_default_teacher_suits_the_data(shape: tuple[int, ...]) -> None:
    data = blobs(shape=shape, classes=1, per_class=4)
    labelling = TeacherLabels().open(SetupContext(data, 0, torch.device("cpu")))
    torch.testing.assert_close(labelling.final(data.inputs(), data.labels), torch.ones(4, 1))


@pytest.mark.parametrize(
    "build",
    [
        lambda: TeacherLabels(temperature=0.0),
        lambda: TeacherLabels(temperature=float("inf")),
        lambda: TeacherLabels(teachers=0),
        lambda: TeacherLabels(architecture="mlpp"),
        lambda: LearnedLabels(0.0),
        lambda: LearnedLabels(0.1, start="teacher"),  # type: ignore[arg-type]
        lambda: LearnedLabels(0.1, start=LearnedLabels(0.1)),
    ],
)
def test_impossible_settings_are_refused(build: Any) -> None:
    with pytest.raises(SettingsError):
        build()


def test_teacher_labels_are_those_of_the_final_samples_and_survive_storage() -> None:
    data = blobs(per_class=10)
    teacher = TeacherLabels(temperature=4.0, architecture=MLP, train_config=RECIPE)
    method = dm(architecture=MLP, labels=teacher, augmentation="none", real_batch_per_class=8, learning_rate=5.0)
    result = method.distil(data, 2, seed=0, budget=Budget(steps=5))
    again = method.distil(data, 2, seed=0, budget=Budget(steps=0))
    assert result.labels.shape == (6, 3)
    assert not torch.equal(result.labels, again.labels)
    read = decode(encode(result, bits=8))
    torch.testing.assert_close(read.labels, result.labels, atol=0.01, rtol=0)
    assert evaluate(read, data, replace(FAST, networks=1), seed=0, architecture=MLP).mean > 0.9
    assert result.provenance["labels"]["temperature"] == 4.0


class TowardsUniform(Objective[None]):
    """Pulls all labels to equal probabilities."""

    needs_network: ClassVar[bool] = False
    reads_labels: ClassVar[bool] = True

    def target(self, view: MatchContext, real: RealSampler) -> None:
        return None

    def losses(self, view: MatchContext, target: None, synthetic: SyntheticBatch) -> Iterator[Tensor]:
        yield (synthetic.labels - 1 / synthetic.labels.shape[1]).square().sum() / 2


def learning(labels: LearnedLabels, steps: int) -> Tensor:
    engine = Engine(
        TowardsUniform(),
        NoNetwork(),
        FromReal(Random()),
        Budget(steps=steps),
        labels=labels,
        optimiser=SGD(momentum=0),
    )
    return engine.distil(blobs(per_class=4), 1, seed=0).labels


def test_learned_labels_start_one_hot_and_move_at_their_rate() -> None:
    assert learning(LearnedLabels(0.3), steps=0).tolist() == torch.eye(3).tolist()
    # Gradients sum to 0 in each row, so that the simplex is not left.
    torch.testing.assert_close(learning(LearnedLabels(0.3), steps=2), 1 / 3 + (torch.eye(3) - 1 / 3) * 0.7**2)


def test_learned_labels_may_start_from_a_teacher_and_stay_learned() -> None:
    teacher = TeacherLabels(temperature=5.0, architecture=MLP, train_config=RECIPE)
    started, learned = (learning(LearnedLabels(0.5, teacher), steps) for steps in (0, 1))
    assert 0.34 < started.max() < 0.99
    torch.testing.assert_close(learned, 1 / 3 + (started - 1 / 3) * 0.5)


def test_selected_samples_can_have_a_teachers_labels() -> None:
    data = blobs(per_class=20)
    hard = build_method("random").distil(data, 2, seed=0)
    soft = build_method("random", labels="teacher:temperature=2").distil(data, 2, seed=0)
    assert torch.equal(soft.inputs(), hard.inputs())
    torch.testing.assert_close(soft.labels.sum(dim=1), torch.ones(6))
    with pytest.raises(SettingsError, match="takes no steps"):
        build_method("random", labels="learned:learning_rate=0.1")
