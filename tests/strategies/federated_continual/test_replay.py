"""FedAvg whose clients replay, on Avalanche."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from flwr.app import Message, MetricRecord

from fedcl_distill.errors import SettingsError
from strategies.federated.answers import WEIGHTS
from strategies.federated_continual import ClientStream
from strategies.federated_continual.server import StageResult
from streams import live, quick, train_and_test

REPLAY = {"strategy": "fedavg-replay", "rounds": 2, "local_epochs": 4, "local_learning_rate": 0.1}


def _row(result):
    return result.matrix.rows[-1]


def test_replay_keeps_what_fine_tuning_forgets_and_counts_its_bytes():
    settings = quick(**REPLAY, memory_images_per_class=4)
    replayed = live(settings)
    plain = live(quick(**{**REPLAY, "strategy": "fedavg"}))
    assert _row(plain)[0] < 0.3 < 0.6 < _row(replayed)[0]
    budget = settings.memory_budget(train_and_test()[1])
    kept = [stage.client_bytes for stage in replayed.stages]
    assert 0 < kept[0] <= kept[-1] <= settings.clients * budget
    assert replayed.stages[-1].server_bytes == 0
    assert replayed.rejections == ()


def test_a_killed_server_goes_on_to_the_same_bits_though_clients_lost_their_memories(tmp_path):
    settings, checkpoint = quick(**REPLAY), tmp_path / "run.pt"
    whole = live(settings)

    def killed(stage: StageResult) -> None:
        if stage.stage == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        live(settings, checkpoint=checkpoint, on_stage=killed)
    resumed = live(settings, checkpoint=checkpoint)
    assert resumed.matrix == whole.matrix
    assert resumed.ledger.entries == whole.ledger.entries
    for name, array in whole.weights.items():
        assert np.array_equal(array.numpy(), resumed.weights[name].numpy())


def test_a_client_that_claims_impossible_bytes_is_turned_away():
    def tamper(reply: Message) -> Message:
        if WEIGHTS in reply.content:
            reply.content["memory"] = MetricRecord({"bytes-kept": 10**9})
        return reply

    result = live(quick(**REPLAY, experiences=1), {0: tamper})
    assert [one.partition for one in result.rejections] == [0, 0]
    assert "bytes-kept" in result.rejections[0].reason


@pytest.mark.parametrize(
    "wrong",
    [
        {"local_augment": True},
        {"strategy_settings": {"replay_ratio": 0.0}},
        {"strategy_settings": {"memory": "diary"}},
    ],
)
def test_settings_that_do_not_work_are_refused_before_any_client_is_asked(wrong):
    with pytest.raises(SettingsError):
        live(quick(**{**REPLAY, **wrong}))


def test_an_avalanche_benchmark_is_a_stream_as_plain_data_are():
    train, _ = train_and_test()
    plain = quick().stream_of(train.subset((train.labels != 2).nonzero().flatten()), 0)
    benchmark = plain.benchmark()
    assert [sorted(one.classes_in_this_experience) for one in benchmark.train_stream] == [[0, 1], [3], [4, 5]]
    read = ClientStream.of_benchmark(benchmark, train)
    assert read.itinerary == plain.itinerary
    for one, other in zip(read.experiences, plain.experiences, strict=True):
        assert torch.equal(one.labels, other.labels)
        assert torch.allclose(one.samples, other.samples, atol=1e-5)


def test_an_empty_experience_of_a_benchmark_is_passed_over():
    train, _ = train_and_test()
    plain = quick().stream_of(train.subset((train.labels > 3).nonzero().flatten()), 0)
    read = ClientStream.of_benchmark(plain.benchmark(), train)
    assert [read.position_at(stage) for stage in range(3)] == [None, None, 2]
