"""Strategies by name: every one of them runs, keeps its bytes, and goes on from a checkpoint to the same bits."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from builders import blobs
from fedcl_distill.data import Splits
from fedcl_distill.errors import CheckpointError, SettingsError
from fedcl_distill.synthetic import encode
from strategies.continual import (
    CONTINUAL_STRATEGIES,
    MEMORIES,
    SCENARIOS,
    ContinualSettings,
    Replay,
    ReservoirMemory,
    StrategyParts,
    named_memory,
    run_stream,
)

STRATEGIES = [one.name for one in CONTINUAL_STRATEGIES]
SPLITS = Splits(blobs((1, 8, 8), 4, 30), blobs((1, 8, 8), 4, 10, seed=1))
QUICK = {
    "method_settings": {"architecture": "mlp:width=8", "real_batch_per_class": 16},
    "distil_steps": 2,
    "experiences": 2,
    "byte_budget": 3000,
    "architecture": "mlp:width=16",
    "epochs": 1,
    "learning_rate": 0.05,
}
ONLINE = ("naive", "replay", "reservoir", "balanced", "herding", "condensed", "der++", "er-ace", "mir", "a-gem")
MODEL_KEEPERS = ("ewc", "lwf", "icarl")
SUMS = ("ncm", "slda", "ridge", "ranpac", "low-rank", "clustered")
EXACT_SUMS = ("ncm", "slda", "ridge", "ranpac")


class Interrupted(Exception):
    pass


def _outcome(result):
    memory = None if result.memory is None else encode(result.memory)
    return result.matrix, result.bytes_kept, result.replayed, memory


def _run(checkpoint=None, stop_after=None, **changes):
    def on_stage(stage, accuracies):
        if stage == stop_after:
            raise Interrupted

    return run_stream(ContinualSettings(**{**QUICK, **changes}), SPLITS, on_stage, checkpoint=checkpoint)


def test_memories_and_strategies_of_ones_own_are_chosen_by_name():
    """As another package registers them: a class, and a function of what a strategy is put together from."""

    @MEMORIES.register("first-seen")
    @dataclass
    class FirstSeen(ReservoirMemory):
        share: float = 1.0

        def add(self, data):
            if self.recall() is None:
                super().add(data)

    @CONTINUAL_STRATEGIES.register("light-replay")
    def light_replay(setup, *, memory="first-seen"):
        return StrategyParts(setup.loss, Replay(setup.memory(memory), ratio=0.5, seed=7))

    result = _run(strategy="light-replay", strategy_settings={"memory": "first-seen:share=0.5"})
    assert result.memory.class_counts[2:].sum() == 0 < result.replayed
    assert named_memory(ReservoirMemory(77), ContinualSettings(), 3000).byte_budget == 77
    for text, complaint in (("first-sen", "did you mean 'first-seen'"), ("first-seen:seed=3", "setting of the run")):
        with pytest.raises(SettingsError, match=complaint):
            named_memory(text, ContinualSettings(), 3000)


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != "joint"])
def test_a_resumed_stream_ends_in_the_same_bits(strategy, tmp_path):
    settings = {"strategy": strategy, "experiences": 4 if strategy in MODEL_KEEPERS else 3, "finetune_epochs": 1}
    plain = _run(**settings)
    path = tmp_path / "run.pt"
    with pytest.raises(Interrupted):
        _run(path, stop_after=1, **settings)
    assert path.exists()
    resumed = _run(path, **settings)
    assert _outcome(resumed) == _outcome(plain)
    timed = (resumed.train_seconds, resumed.memory_seconds, resumed.memory_cpu_seconds)
    assert [len(one) for one in timed] == [settings["experiences"]] * 3
    assert not path.exists(), "nothing is left of a run that is done"
    if strategy not in (*MODEL_KEEPERS, *EXACT_SUMS, "cumulative"):
        assert max(plain.bytes_kept) <= 3000


@pytest.mark.parametrize("strategy", ONLINE)
def test_online_streams_run_and_resume(strategy, tmp_path):
    settings = {"strategy": strategy, "online": True, "batch_size": 12}
    plain = _run(**settings)
    with pytest.raises(Interrupted):
        _run(tmp_path / "run.pt", stop_after=0, **settings)
    assert _outcome(_run(tmp_path / "run.pt", **settings)) == _outcome(plain)
    assert max(plain.bytes_kept) <= 3000


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    path = tmp_path / "run.pt"
    with pytest.raises(Interrupted):
        _run(path, stop_after=0, strategy="naive")
    with pytest.raises(CheckpointError, match="another run"):
        _run(path, strategy="naive", seed=1)
    other = Splits(SPLITS.train, SPLITS.test.subset(torch.arange(39)))
    with pytest.raises(CheckpointError, match="another run"):
        run_stream(ContinualSettings(**QUICK, strategy="naive"), other, checkpoint=path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="is damaged"):
        _run(path, strategy="naive")


@pytest.mark.parametrize("strategy", sorted(set(STRATEGIES) - {*ONLINE, *SUMS}))
def test_strategies_that_need_boundaries_refuse_a_stream_without(strategy):
    with pytest.raises(SettingsError, match="where experiences end"):
        _run(strategy=strategy, online=True)


@pytest.mark.parametrize("scenario", sorted(set(SCENARIOS) - {"class"}))
@pytest.mark.parametrize(
    "strategy", ["distilled", "der++", "er-ace", "a-gem", "ewc", "lwf", "joint", "cumulative", "gdumb"]
)
def test_other_scenarios_run(scenario, strategy):
    result = _run(strategy=strategy, scenario=scenario, epochs=8)
    untrained = sum(result.matrix.untrained) / 2
    assert result.test_accuracy > untrained + 0.1
    assert [len(names) for names in result.classes] == ([2, 2] if scenario == "task" else [4, 4])


def test_who_knows_the_task_chooses_among_its_classes(digits):
    """Naive training forgets which digits there were, not what tells those of one task apart."""
    common = {"strategy": "naive", "architecture": "mlp:width=64", "epochs": 3}
    assert run_stream(ContinualSettings(**common), digits).test_accuracy < 0.5
    assert run_stream(ContinualSettings(**common, scenario="task"), digits).test_accuracy > 0.85


@pytest.mark.parametrize("memory", ["distilled", "hybrid:real_share=0.3", "herding"])
@pytest.mark.parametrize("strategy", ["gdumb", "der++", "er-ace", "mir", "a-gem"])
def test_any_memory_serves_any_strategy(strategy, memory):
    result = _run(strategy=strategy, strategy_settings={"memory": memory})
    assert 0 < max(result.bytes_kept) <= 3000


@pytest.mark.parametrize("strategy", ["distilled", "gdumb", "der++", "er-ace", "mir"])
def test_soft_labels_serve_any_strategy(strategy):
    own = {} if strategy == "distilled" else {"memory": "distilled"}
    method = {"method": "frepo", "method_settings": {"architecture": "mlp:width=8", "real_batch_size": 16}}
    result = _run(strategy=strategy, strategy_settings=own, **method)
    assert result.memory.labels.ndim == 2
    assert 0 < max(result.bytes_kept) <= 3000


@pytest.mark.parametrize(
    ("strategy", "own", "complaint"),
    [
        ("er-ace", {"alpha": 1.0}, "unknown setting 'alpha'; known: memory"),
        ("naive", {"memory": "reservoir"}, "known: none"),
        ("der++", {"alpha": "much"}, "alpha must be a number at least 0"),
        ("der++", {"alpha": -1}, "at least 0"),
        ("der++", {"alpha": float("nan")}, "at least 0"),
        ("mir", {"candidates": 0}, "at least 1"),
        ("lwf", {"temperature": 0}, "more than 0"),
        ("gdumb", {"memory": "other"}, "unknown memory"),
        ("hybrid", {"real_share": 1.5}, "less than 1"),
    ],
)
def test_settings_of_a_strategy_are_checked_before_training(strategy, own, complaint):
    with pytest.raises(SettingsError, match=complaint):
        _run(strategy=strategy, strategy_settings=own)


def test_icarl_refuses_classes_that_come_back():
    with pytest.raises(SettingsError, match="must not come back"):
        _run(strategy="icarl", scenario="domain")


def test_strategies_that_replay_beat_naive_training_on_digits(digits):
    """Five experiences of two digits: who keeps something of the past, and uses it, knows more of it."""
    common = {"architecture": "mlp:width=64", "images_per_class": 5, "epochs": 4, "learning_rate": 0.02}
    naive = run_stream(ContinualSettings(strategy="naive", **common), digits).matrix.average_accuracy
    assert naive < 0.35
    for strategy in ("balanced", "gdumb", "icarl", "der++", "er-ace", "mir"):
        reached = run_stream(ContinualSettings(strategy=strategy, **common), digits).matrix.average_accuracy
        assert reached > naive + 0.2, strategy


def test_online_condensing_remembers_digits(digits):
    common = {"architecture": "mlp:width=64", "images_per_class": 5, "learning_rate": 0.02, "batch_size": 8}
    quick = {"method_settings": {"architecture": "mlp:width=32"}, "distil_steps": 3}
    few = Splits(digits.train.subset(torch.arange(600)), digits.test)
    naive = run_stream(ContinualSettings(strategy="naive", online=True, **common), few)
    condensed = run_stream(ContinualSettings(strategy="condensed", online=True, **common, **quick), few)
    assert condensed.matrix.average_accuracy > naive.matrix.average_accuracy + 0.2


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("memory", ["distilled", "condensed"])
def test_below_eight_bits_a_memory_distils_what_it_will_keep(memory, bits):
    settings = ContinualSettings(**{**QUICK, "bits": bits})
    built = named_memory(memory, settings, 3000)
    assert built.distiller.bits == (bits if bits < 8 else 32)
    built.add(SPLITS.train)
    assert built.bytes_kept <= 3000


def test_all_so_far_again_keeps_what_naive_training_forgets(digits):
    """The last stage trains on what joint training trains on, after a start that knows most of it."""
    common = {"architecture": "mlp:width=64", "epochs": 10}
    naive, cumulative, joint = (
        run_stream(ContinualSettings(**common, strategy=name), digits) for name in ("naive", "cumulative", "joint")
    )
    assert cumulative.test_accuracy > joint.test_accuracy - 0.02
    assert cumulative.matrix.forgetting < 0.1 < 0.5 < naive.matrix.forgetting
    whole = len(digits.train) * (8 * 8 + 1)
    assert joint.bytes_kept == (whole,), "pixels and labels as they are"
    assert list(cumulative.bytes_kept) == sorted(cumulative.bytes_kept)
    assert cumulative.bytes_kept[-1] == whole
    assert set(naive.bytes_kept) == {0}
