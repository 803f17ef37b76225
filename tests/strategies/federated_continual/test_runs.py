"""Whole runs, against what can be computed without Flower."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fedcl_distill.data import partition
from fedcl_distill.errors import CheckpointError, SettingsError
from fedcl_distill.networks import Architecture
from fedcl_distill.seeding import derive_seed
from fedcl_distill.synthetic import decode, encode, union
from fedcl_distill.training import accuracy, fit
from strategies.federated import QuorumError
from strategies.federated.answers import put_weights
from strategies.federated.client import partition_of
from strategies.federated_continual import make_client_app
from strategies.federated_continual.server import StageResult
from streams import app_of, live, quick, train_and_test

SUMS = {
    "strategy": "statistics",
    "strategy_settings": {"views": 3, "architecture": "mlp:width=8", "share": 1.0},
    "memory_bytes": 20_000,
    "distil_steps": 5,
}


def _weights(result):
    network = Architecture.parse("mlp:width=32").build((8,), 6, seed=0)
    put_weights(network, result.weights)
    return network


def _same_weights(one, other):
    return all(
        torch.equal(tensor, _weights(other).state_dict()[name]) for name, tensor in _weights(one).state_dict().items()
    )


def test_first_stage_is_one_shot_learning_from_the_first_experience_by_hand():
    settings = quick(experiences=1)
    train, test = train_and_test()
    request = settings.distillation.request(settings.seed)
    parts = partition(train, "iid", 3, seed=0, min_size=0)
    sets = [request.distil(part, seed=derive_seed(0, "client", 1, number)) for number, part in enumerate(parts)]
    whole = union([decode(encode(one, 8, provenance=False)) for one in sets])
    network = Architecture.parse("mlp:width=32").build((8,), 6, seed=derive_seed(0, "model"))
    train_config = settings.learner(test).training(len(whole))
    # Each class has nine samples, so balancing changes nothing.
    weights = torch.full((len(whole),), 1.0, dtype=torch.float64)
    fit(network, whole.inputs(), whole.labels, train_config, seed=derive_seed(0, "server", 1), weights=weights)
    result = live(settings)
    assert result.stages[0].accuracies == (accuracy(network, test),)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, _weights(result).state_dict()[name])


def test_rows_are_the_accuracies_on_every_experience_of_the_model_of_that_stage():
    result = live(quick())
    _, test = train_and_test()
    network = _weights(result)
    tests = quick().experiences_of(test)
    assert result.matrix.rows[-1] == tuple(accuracy(network, one) for one in tests)
    assert [len(row) for row in result.matrix.rows] == [3, 3, 3]
    assert result.classes == (("0", "1"), ("2", "3"), ("4", "5"))
    assert result.learned_at == (0, 1, 2)


def test_the_memory_is_what_keeps_old_classes_known():
    remembering = live(quick())
    forgetting = live(quick(strategy="fedavg", rounds=5, local_epochs=5, local_learning_rate=0.1))
    assert remembering.matrix.average_accuracy > 0.9
    assert remembering.matrix.forgetting < 0.1
    assert forgetting.matrix.rows[-1][0] < 0.2, "fine-tuning should forget the first experience"
    assert forgetting.matrix.forgetting > 0.5


def test_what_a_departed_client_taught_stays():
    """Only the last client holds classes 0 and 1, and it leaves after the first stage."""
    train, _ = train_and_test()
    own = (train.labels < 2).nonzero().flatten()
    rest = (train.labels >= 2).nonzero().flatten()
    parts = [train.subset(rest[0::2]), train.subset(rest[1::2]), train.subset(own)]
    settings = quick(stream="departing:clients=1,after=1")
    app = make_client_app(lambda context: settings.stream_of(parts[partition_of(context)], partition_of(context)))
    result = live(settings, app=app)
    assert [stage.asked for stage in result.stages] == [1, 2, 2]
    assert result.matrix.rows[-1][0] > 0.9
    assert result.memory_counts == (2,) * 6


def test_late_clients_are_asked_late_and_what_they_bring_again_is_known_once():
    result = live(quick(stream="late:clients=1,after=2"))
    assert [stage.asked for stage in result.stages] == [2, 2, 3, 1, 1]
    assert result.learned_at == (0, 1, 2)
    assert result.memory_counts == (2,) * 6


def test_shuffled_streams_learn_experiences_when_the_first_client_has_them():
    settings = quick(stream="shuffled", seed=1)
    orders = [one.order for one in settings.itineraries]
    result = live(settings)
    assert result.learned_at == tuple(min(order.index(one) for order in orders) for one in range(3))
    assert result.matrix.average_accuracy > 0.9


def test_a_client_without_samples_is_not_asked_and_stops_nothing():
    settings = quick(partition="dirichlet:0.02", seed=3)
    result = live(settings)
    train, _ = train_and_test()
    parts = partition(train, settings.partition, 3, seed=3, min_size=0)
    holders = [sum(bool(len(settings.experiences_of(part)[stage])) for part in parts) for stage in range(3)]
    assert min(holders) < 3
    assert [stage.asked for stage in result.stages] == holders
    assert result.rejections == ()


def test_a_stage_at_which_nobody_has_anything_leaves_the_model_as_it_is():
    train, _ = train_and_test()
    lacking = train.subset(((train.labels < 2) | (train.labels > 3)).nonzero().flatten())
    seen = list[StageResult]()
    result = live(quick(), app=app_of(quick(), lacking), on_stage=seen.append)
    assert [stage.asked for stage in seen] == [3, 0, 3]
    assert seen[1].accuracies == seen[0].accuracies
    assert result.learned_at == (0, 3, 2)


@pytest.mark.parametrize("settings", [{}, SUMS, {"strategy": "fedavg", "rounds": 2}], ids=str)
def test_same_seed_same_bits_and_another_seed_others(settings, untouched_global_rng):
    first, second, other = (live(quick(**settings, seed=seed)) for seed in (0, 0, 1))
    assert first.ledger.entries == second.ledger.entries
    assert _same_weights(first, second)
    assert not _same_weights(first, other)


def test_the_memory_stays_within_its_budget_and_is_counted():
    settings = quick(memory_bytes=400)
    result = live(settings)
    kept = [stage.server_bytes for stage in result.stages]
    assert 0 < kept[0] < kept[2] <= 400
    assert all(stage.client_bytes == 0 for stage in result.stages)
    unreserved = live(replace(settings, strategy_settings={"reserve": False}))
    assert kept[0] < unreserved.stages[0].server_bytes <= 400


def test_a_memory_without_room_for_a_sample_is_refused():
    with pytest.raises(SettingsError, match="hold no sample"):
        live(quick(memory_bytes=20))


def test_bytes_are_those_of_all_messages():
    result = live(quick())
    assert result.stages[-1].bytes_up == sum(one.sent for one in result.ledger.entries if one.direction == "up")
    assert result.stages[-1].bytes_down == sum(one.sent for one in result.ledger.entries if one.direction == "down")
    kinds = {one.kind for one in result.ledger.entries}
    assert kinds == {"query", "train.distil"}


@pytest.mark.parametrize(
    "settings", [{}, {"strategy_settings": {"reserve": False}}, SUMS, {"strategy": "fedavg", "rounds": 2}], ids=str
)
def test_a_killed_server_goes_on_from_the_last_stage_to_the_same_bits(settings, tmp_path):
    settings = quick(**settings, stream="shuffled")
    whole = live(settings)
    checkpoint = tmp_path / "run.pt"

    def killed(stage: StageResult) -> None:
        if stage.stage == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        live(settings, checkpoint=checkpoint, on_stage=killed)
    later = list[int]()
    resumed = live(settings, checkpoint=checkpoint, on_stage=lambda stage: later.append(stage.stage))
    assert later == [2]
    assert _same_weights(whole, resumed)
    assert resumed.matrix == whole.matrix
    assert resumed.ledger.entries == whole.ledger.entries
    assert resumed.memory_counts == whole.memory_counts
    assert not checkpoint.exists()


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    checkpoint = tmp_path / "run.pt"

    def killed(stage: StageResult) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        live(quick(), checkpoint=checkpoint, on_stage=killed)
    with pytest.raises(CheckpointError, match="belongs to another run"):
        live(quick(images_per_class=2), checkpoint=checkpoint)


def test_one_round_a_stage_where_sets_or_sums_are_sent():
    for settings in ({}, SUMS):
        with pytest.raises(SettingsError, match="one round"):
            live(quick(**settings, rounds=2))


def test_unknown_names_are_refused():
    with pytest.raises(SettingsError, match="unknown strategy"):
        live(quick(strategy="one-shot"))
    with pytest.raises(SettingsError, match="unknown setting 'keep'"):
        live(quick(strategy_settings={"keep": 1}))


def test_settings_travel_as_a_run_configuration():
    settings = quick(stream="late:clients=1,after=2", memory_bytes=900, strategy_settings={"reserve": False})
    assert type(settings).from_run_config(settings.to_run_config()) == settings


def test_no_answer_at_all_ends_the_run():
    with pytest.raises(QuorumError):
        live(quick(), grid={"unavailable": {0, 1, 2}})
