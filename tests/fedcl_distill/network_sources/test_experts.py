"""Truth: training straight on, file by file comparison, and what a killed or damaged cache must not change."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from builders import blobs
from fedcl_distill.augmentation import NoAugmentation, augmentation_for
from fedcl_distill.context import SetupContext
from fedcl_distill.data import LabelledData
from fedcl_distill.errors import SettingsError, StorageError
from fedcl_distill.network_sources import DrawnNetwork, ExpertTrajectories, NetworkSampler
from fedcl_distill.network_sources.experts import Experts
from fedcl_distill.networks import Architecture, Network
from fedcl_distill.registry import describe
from fedcl_distill.seeding import derive_seed, generator_for
from fedcl_distill.training import TrainConfig, accuracy, fit

SOURCE = ExpertTrajectories(
    Architecture("mlp", {"width": 4}), runs=3, latest_start=2, segment=2, samples_per_snapshot=25, learning_rate=0.1,
    batch_size=8, augmentation=NoAugmentation(),
)  # fmt: skip


def problem(data: LabelledData | None = None, seed: int = 0, time: bool = True) -> SetupContext:
    return SetupContext(data or blobs(shape=(4,)), seed, torch.device("cpu"), lambda: time)


def weights(network: Network | None) -> Tensor:
    assert network is not None
    return torch.cat([one.flatten() for one in network.parameters()])


def same(one: DrawnNetwork, other: DrawnNetwork) -> bool:
    return torch.equal(weights(one.network), weights(other.network)) and torch.equal(
        weights(one.target_network), weights(other.target_network)
    )


def paths_of(experts: Experts, runs: int = 3, last: int = 3) -> list[Tensor]:
    return [experts.snapshot(run, number) for run in range(runs) for number in range(last + 1)]


def never(*arguments: object) -> Network:
    raise AssertionError("an expert was trained that was there already")


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def test_a_view_starts_at_a_snapshot_and_its_goal_lies_one_segment_later(untouched_global_rng: None) -> None:
    supply, experts = SOURCE.prepare(problem()), Experts.of(problem(), SOURCE)
    pairs = set()
    for index in range(60):
        drawn = supply.draw(index, seed=index)
        (pair,) = [
            (run, start)
            for run in range(3)
            for start in range(3)
            if torch.equal(weights(drawn.network), experts.snapshot(run, start))
        ]
        assert torch.equal(weights(drawn.target_network), experts.snapshot(pair[0], pair[1] + 2))
        pairs.add(pair)
    assert pairs == {(run, start) for run in range(3) for start in range(2)}


def test_draws_repeat_and_nothing_drawn_wants_gradients() -> None:
    one, other = SOURCE.prepare(problem()), SOURCE.prepare(problem())
    assert all(same(one.draw(0, seed), other.draw(5, seed)) for seed in range(5))
    drawn = one.draw(0, 1)
    assert drawn.target_network is not None
    assert not any(p.requires_grad for network in (drawn.network, drawn.target_network) for p in network.parameters())


def test_one_snapshot_an_epoch_is_plain_training_epoch_by_epoch() -> None:
    data = blobs(shape=(4,))
    source = replace(SOURCE, samples_per_snapshot=None)
    experts = Experts.of(problem(data), source)
    network = source.architecture.build((4,), 3, seed=0) if source.architecture else None
    assert network is not None
    network.load_state_dict(experts.network(0, 0).state_dict())
    train_config = TrainConfig(1, 0.1, 0.0, 0.0, 8, "constant")
    for number in (1, 2):
        order = torch.randperm(60, generator=generator_for(0, "expert", 0, "epoch", number - 1))
        seed = derive_seed(0, "expert", 0, "snapshot", number)
        fit(network, data.inputs(order), data.labels[order], train_config, seed=seed)
        assert torch.equal(weights(network), experts.snapshot(0, number))


def test_snapshots_closer_than_an_epoch_see_every_sample_once_an_epoch() -> None:
    experts = Experts.of(problem(), SOURCE)
    rows = torch.cat([experts._rows(1, number) for number in range(1, 13)])  # 12 · 25 samples: 5 epochs of 60
    assert all(sorted(epoch.tolist()) == list(range(60)) for epoch in rows.split(60))
    assert rows[:60].tolist() != rows[60:120].tolist()


def test_a_snapshot_may_be_several_epochs_apart() -> None:
    experts = Experts.of(problem(), replace(SOURCE, samples_per_snapshot=150))
    assert torch.bincount(experts._rows(0, 1)).tolist().count(3) == 30


def test_experts_learn() -> None:
    data = blobs(shape=(1, 8, 8))
    source = ExpertTrajectories(runs=1, latest_start=6, segment=1, learning_rate=0.05, batch_size=8)
    experts = Experts.of(problem(data), replace(source, architecture=Architecture("convnet", {"width": 4})))
    assert experts.train_config.augmentation == augmentation_for(data)
    assert accuracy(experts.network(0, 6), data) > max(0.6, accuracy(experts.network(0, 0), data))


def test_runs_and_seeds_differ() -> None:
    experts, others = Experts.of(problem(), SOURCE), Experts.of(problem(seed=1), SOURCE)
    assert not torch.equal(experts.snapshot(0, 0), experts.snapshot(1, 0))
    assert not torch.equal(experts.snapshot(0, 0), others.snapshot(0, 0))


def test_experts_with_a_seed_of_their_own_serve_runs_of_any_seed() -> None:
    source = replace(SOURCE, seed=7)
    assert torch.equal(
        Experts.of(problem(seed=0), source).snapshot(1, 2), Experts.of(problem(seed=1), source).snapshot(1, 2)
    )


def test_without_time_one_segment_is_trained_and_serves() -> None:
    supply = SOURCE.prepare(problem(time=False))
    assert supply.state() == {"lengths": [2, 0, 0]}
    assert same(supply.draw(0, 1), supply.draw(1, 2))


def test_a_resumed_run_draws_from_the_experts_of_its_first_sitting() -> None:
    short, long = SOURCE.prepare(problem(time=False)), SOURCE.prepare(problem())
    before = [long.draw(0, seed) for seed in range(5)]
    state = long.state()
    assert state == {"lengths": [3, 3, 3]}
    short.restore(state)
    assert all(same(short.draw(0, seed), one) for seed, one in enumerate(before))
    long.restore({"lengths": [2, 0, 0]})
    assert same(long.draw(0, 1), SOURCE.prepare(problem(time=False)).draw(0, 1))


def test_runs_and_their_length_grow_together() -> None:
    order = list(replace(SOURCE, runs=4, latest_start=3)._order())
    levels = [2, 2 + 4, 4 + 4 + 4, 4 * 4]  # snapshots of 1 run with 1 start, 2 with 2, 3 with 3, 4 with 3 (the last)
    counts = [[sum(run == one for run, _ in order[:level]) for one in range(4)] for level in levels]
    assert counts == [[2, 0, 0, 0], [3, 3, 0, 0], [4, 4, 4, 0], [4, 4, 4, 4]]
    assert len(order) == 16
    assert all([number for run, number in order if run == one] == [1, 2, 3, 4] for one in range(4))


def test_a_cache_changes_nothing_and_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = replace(SOURCE, cache=tmp_path)
    first = paths_of(Experts.of(problem(), cached))
    assert all(map(torch.equal, first, paths_of(Experts.of(problem(), SOURCE))))
    monkeypatch.setattr(Experts, "_trained", never)
    monkeypatch.setattr(Experts, "_untrained", never)
    assert all(map(torch.equal, first, paths_of(Experts.of(problem(), cached))))
    cached.prepare(problem()).draw(0, 0)


def test_a_killed_training_goes_on_from_its_last_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = replace(SOURCE, cache=tmp_path)
    trained, real = [], Experts._trained

    def counted(self: Experts, run: int, number: int, before: Tensor) -> Tensor:
        if len(trained) == 4:
            raise KeyboardInterrupt
        trained.append((run, number))
        return real(self, run, number, before)

    monkeypatch.setattr(Experts, "_trained", counted)
    with pytest.raises(KeyboardInterrupt):
        cached.prepare(problem())
    assert trained == [(0, 1), (0, 2), (0, 3), (1, 1)]  # the second start of run 0 comes with the first of run 1
    trained.clear()
    with pytest.raises(KeyboardInterrupt):
        cached.prepare(problem())
    assert trained == [(1, 2), (1, 3), (2, 1), (2, 2)]
    monkeypatch.setattr(Experts, "_trained", real)
    resumed, whole = cached.prepare(problem()), SOURCE.prepare(problem())
    assert all(same(resumed.draw(0, seed), whole.draw(0, seed)) for seed in range(6))


@pytest.mark.parametrize("damage", ["cut", "altered", "emptied", "another network's"])
def test_a_damaged_snapshot_is_trained_anew_with_a_warning(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    cached = replace(SOURCE, cache=tmp_path)
    sound = paths_of(Experts.of(problem(), cached))
    path = files(tmp_path)[2]
    content = path.read_bytes()
    if damage == "cut":
        path.write_bytes(content[:-20])
    elif damage == "altered":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "emptied":
        path.write_bytes(b"")
    else:
        wider = replace(cached, architecture=Architecture("mlp", {"width": 5}), cache=tmp_path / "wider")
        paths_of(Experts.of(problem(), wider), runs=1)
        path.write_bytes(files(tmp_path / "wider")[2].read_bytes())
    with caplog.at_level(logging.WARNING):
        assert all(map(torch.equal, sound, paths_of(Experts.of(problem(), cached))))
    assert [record for record in caplog.records if str(path) in record.getMessage()]
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "other",
    [
        {"learning_rate": 0.2},
        {"momentum": 0.5},
        {"batch_size": 9},
        {"samples_per_snapshot": 26},
        {"architecture": Architecture("mlp", {"width": 4, "depth": 1})},
        {"seed": 1},
    ],
)
def test_experts_trained_otherwise_live_elsewhere(tmp_path: Path, other: dict[str, object]) -> None:
    cached = replace(SOURCE, cache=tmp_path)
    Experts.of(problem(), cached).snapshot(0, 0)
    Experts.of(problem(), replace(cached, **other)).snapshot(0, 0)  # type: ignore[arg-type]
    assert len(list(tmp_path.iterdir())) == 2


def test_experts_of_other_data_live_elsewhere(tmp_path: Path) -> None:
    cached = replace(SOURCE, cache=tmp_path)
    data = blobs(shape=(4,))
    for one in (
        data,
        data.subset(torch.arange(59)),
        replace(data, labels=data.labels.flip(0)),
        blobs(shape=(4,), seed=1),
    ):
        Experts.of(problem(one), cached).snapshot(0, 0)
    assert len(list(tmp_path.iterdir())) == 4


def test_more_runs_and_later_starts_use_what_is_there(tmp_path: Path) -> None:
    cached = replace(SOURCE, cache=tmp_path)
    cached.prepare(problem())
    replace(cached, runs=4, latest_start=3).prepare(problem())
    assert len(list(tmp_path.iterdir())) == 1
    assert len(files(tmp_path)) == 4 * 5


def test_a_cache_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("no folder")
    with pytest.raises(StorageError):
        replace(SOURCE, cache=blocker).prepare(problem())


def test_a_full_disk_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fedcl_distill.files.os.fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        replace(SOURCE, cache=tmp_path).prepare(problem())
    assert not files(tmp_path)


def test_the_cache_is_no_part_of_the_settings(tmp_path: Path) -> None:
    cached = replace(SOURCE, cache=tmp_path)
    assert describe(cached) == describe(SOURCE)
    assert cached == SOURCE
    assert str(tmp_path) not in str(describe(cached))


@pytest.mark.parametrize(
    "data",
    [
        blobs(shape=(3, 6, 9), classes=2, per_class=3),
        blobs(shape=(5,), classes=1, per_class=4),
        blobs(shape=(5,), classes=100, per_class=1),
        blobs(shape=(4,)).subset(torch.tensor([0, 1, 2, 3, 45])),
    ],
)
def test_any_data_have_experts(data: LabelledData) -> None:
    source = ExpertTrajectories(Architecture("mlp", {"width": 3}), runs=1, latest_start=1, segment=1)
    drawn = source.prepare(problem(data)).draw(0, 0)
    assert torch.isfinite(weights(drawn.target_network)).all()


@pytest.mark.parametrize(
    "wrong", [{"runs": 0}, {"segment": 0}, {"samples_per_snapshot": 0}, {"learning_rate": 0.0}, {"momentum": 1.0}]
)
def test_senseless_numbers_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingsError):
        ExpertTrajectories(**wrong)  # type: ignore[arg-type]


def test_it_is_a_supply_with_goals() -> None:
    supply = SOURCE.prepare(problem(time=False))
    assert isinstance(supply, NetworkSampler)
    assert SOURCE.gives_target
    assert supply.draw(0, 0).target_network is not None
