"""Whole streams: what is measured, that it repeats, and that replay helps."""

from __future__ import annotations

import json

import pytest
import torch

from builders import blobs
from fedcl_distill.data import Splits
from fedcl_distill.errors import SettingsError
from fedcl_distill.synthetic import encode
from strategies.continual import ContinualSettings, build_memory, memory_bytes, run_stream

QUICK_DM = {"architecture": "mlp:width=8", "real_batch_per_class": 16}


def _splits(shape=(1, 8, 8), classes=4, per_class=30):
    return Splits(blobs(shape, classes, per_class), blobs(shape, classes, 10, seed=1))


def _quick(**changes):
    settings = {
        "strategy": "distilled",
        "method_settings": QUICK_DM if changes.get("method", "dm") == "dm" else {},
        "distil_steps": 3,
        "experiences": 2,
        "images_per_class": 3,
        "architecture": "mlp:width=16",
        "epochs": 1,
    }
    return ContinualSettings(**{**settings, **changes})


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 12), (7,)], ids=["grey", "colour, not square", "features"])
@pytest.mark.parametrize("strategy", ["naive", "reservoir", "distilled"])
def test_every_strategy_runs_on_every_kind_of_data_within_its_bytes(shape, strategy):
    splits, stages = _splits(shape), []
    settings = _quick(strategy=strategy)
    result = run_stream(settings, splits, lambda stage, accuracies: stages.append((stage, accuracies)))
    assert stages == list(enumerate(result.matrix.rows))
    assert [len(row) for row in result.matrix.rows] == [2, 2]
    assert len(result.bytes_kept) == len(result.train_seconds) == len(result.memory_seconds) == 2
    if strategy == "naive":
        assert (result.bytes_kept, result.replayed, result.memory) == ((0, 0), 0, None)
    else:
        assert 0 < max(result.bytes_kept) <= memory_bytes(settings, splits.train)
        assert result.bytes_kept[-1] == len(encode(result.memory, settings.bits, provenance=False, coding="fixed"))
        assert result.replayed > 0


def test_memories_get_the_bytes_of_so_many_images_of_every_class_and_end_with_them():
    splits = _splits()
    settings = _quick(images_per_class=5, method="herding")
    assert run_stream(settings, splits).memory.class_counts.tolist() == [5] * 4
    reservoir = run_stream(_quick(strategy="reservoir", images_per_class=5), splits)
    assert abs(len(reservoir.memory) - 20) <= 1, "equal bytes, equal number of samples"


def test_a_seed_fixes_matrix_and_memory():
    splits = _splits()

    def outcome(seed):
        result = run_stream(_quick(seed=seed), splits)
        return result.matrix, encode(result.memory)

    assert outcome(3) == outcome(3)
    assert outcome(3)[1] != outcome(4)[1]


@pytest.mark.usefixtures("untouched_global_rng")
@pytest.mark.parametrize("strategy", ["naive", "reservoir", "distilled"])
def test_the_global_generator_is_left_alone(strategy):
    run_stream(_quick(strategy=strategy), _splits())


def test_the_callers_generator_has_no_say():
    splits, matrices = _splits(), []
    for seed in (1, 2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            matrices.append(run_stream(_quick(), splits).matrix)
    assert matrices[0] == matrices[1]


def test_a_single_experience_is_plain_training():
    result = run_stream(_quick(experiences=1, epochs=15, learning_rate=0.1), _splits())
    assert result.replayed == 0
    assert result.matrix.forgetting == 0
    assert result.matrix.average_accuracy == pytest.approx(result.test_accuracy)
    assert result.test_accuracy > 0.9


def test_a_class_with_one_sample_is_learnt_from_and_kept():
    splits = _splits()
    train = splits.train.subset(torch.cat([splits.train.indices_of(0)[:1], torch.arange(30, 120)]))
    result = run_stream(_quick(), Splits(train, splits.test))
    assert result.memory.class_counts[0] == 1


def test_uneven_experiences_weigh_alike_in_the_average_and_by_samples_in_the_test_accuracy():
    result = run_stream(_quick(experiences=3, strategy="naive"), _splits(classes=4))
    assert [len(names) for names in result.classes] == [2, 1, 1]
    last = result.matrix.rows[-1]
    assert result.matrix.average_accuracy == pytest.approx(sum(last) / 3)
    assert result.test_accuracy == pytest.approx((2 * last[0] + last[1] + last[2]) / 4)


def test_the_record_holds_json_values():
    record = run_stream(_quick(), _splits()).as_record()
    assert json.loads(json.dumps(record, allow_nan=False)) == record


def test_settings_that_cannot_work_are_refused():
    for changes in ({"strategy": "other"}, {"experiences": 0}, {"bits": 5}, {"replay_ratio": 0.0}):
        with pytest.raises(SettingsError):
            ContinualSettings(**changes)
    with pytest.raises(SettingsError, match="unknown method"):
        build_memory(ContinualSettings(method="other"), blobs())


def test_replay_beats_naive_on_digits(digits):
    """Naive training ends knowing the last two of ten digits; a tenth of the data as memory brings most back."""
    accuracies = {}
    for strategy, changes in (
        ("naive", {}),
        ("reservoir", {}),
        ("distilled", {"method_settings": {"architecture": "convnet:width=16", "steps_per_network": 5}}),
    ):
        settings = ContinualSettings(
            strategy=strategy,
            architecture="convnet:width=16",
            distil_steps=60,
            images_per_class=10,
            epochs=4,
            learning_rate=0.02,
            batch_size=32,
            **changes,
        )
        result = run_stream(settings, digits)
        accuracies[strategy] = result.matrix.average_accuracy
        assert max(result.bytes_kept) <= memory_bytes(settings, digits.train)
    assert accuracies["naive"] < 0.35
    assert accuracies["reservoir"] > accuracies["naive"] + 0.3
    assert accuracies["distilled"] > accuracies["naive"] + 0.3
