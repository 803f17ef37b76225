"""The plain loops compute what the library computes, and the bench measures both."""

from __future__ import annotations

import pytest
import torch

from fedcl_distill.context import RealSampler, SyntheticBatch
from fedcl_distill.errors import SettingsError
from fedcl_distill.networks import Architecture
from fedcl_distill.objectives import DistributionMatching, GradientMatching, MatchContext
from fedcl_distill.objectives.trajectories import AllCoordinates, relative_distance
from simulations.dev.bench import CASES, PLAIN, Ticker, Workload, run_bench, table_of_bench
from simulations.dev.reference_loops import PlainConvNet, PlainDM, PlainDSA, PlainJudge, plain_trajectory_step
from simulations.dev.time_to_accuracy import (
    TimeToAccuracySettings,
    plain_loop,
    presets,
    run_time_to_accuracy,
    seconds_to,
    table_of_times,
)
from simulations.running.processes import ProcessError
from simulations.running.progress import Silent
from simulations.running.runs import read_records

TINY = Workload(
    data="digits", images_per_class=2, width=8, real_batch_per_class=5, student_steps=2, test_limit=20, repeats=1
)


def unchanged(inputs, groups):
    return inputs


def library_network(plain: PlainConvNet, shape, width: int):
    """The library's network with the weights of the plain one."""
    network = Architecture("convnet", {"width": width, "depth": 3}).build(shape, 10, seed=0)
    network.load_state_dict(dict(zip(network.state_dict(), plain.state_dict().values(), strict=True)))
    return network


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 24), (1, 8, 8)])
def test_plain_network_is_the_librarys(shape):
    inputs = torch.randn(4, *shape, generator=torch.Generator().manual_seed(0))
    plain = PlainConvNet(shape, 10, 8)
    network = library_network(plain, shape, 8)
    torch.testing.assert_close(plain(inputs), network(inputs), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(plain.embed(inputs), network.embed(inputs), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kind", "objective"), [(PlainDM, DistributionMatching), (PlainDSA, GradientMatching)])
def test_plain_step_has_the_loss_of_the_librarys_objective(digits, monkeypatch, kind, objective):
    loop = kind(digits.train, 3, width=8, real_batch_per_class=10_000)  # all real samples: no draw can differ
    plain = PlainConvNet(digits.train.sample_shape, 10, 8)
    monkeypatch.setattr(loop, "_network", lambda: plain.requires_grad_(kind is not PlainDM))
    monkeypatch.setattr("simulations.dev.reference_loops._augmented", lambda draw, images: images)
    inputs = loop.images.detach().clone()
    value = loop.step()
    view = MatchContext(library_network(plain, digits.train.sample_shape, 8), unchanged, 0)
    same = objective(real_batch_per_class=10_000)
    side = SyntheticBatch(inputs.requires_grad_(), loop.labels, loop.labels)
    losses = same.losses(view, same.target(view, RealSampler(digits.train, torch.device("cpu"))), side)
    assert value == pytest.approx(sum(loss.item() for loss in losses), rel=1e-3)
    assert not torch.equal(loop.images, inputs)


def test_plain_trajectory_is_sgd_step_by_step(monkeypatch):
    monkeypatch.setattr(
        "simulations.dev.reference_loops.SiameseAugmentation",
        lambda: type("Keep", (), {"draw": lambda *_: unchanged})(),
    )
    shape, labels = (1, 8, 8), torch.arange(4)
    start, end = PlainConvNet(shape, 4, 4), PlainConvNet(shape, 4, 4)
    images = torch.randn(4, *shape).requires_grad_()
    ends = [{name: one.detach().clone() for name, one in network.named_parameters()} for network in (start, end)]
    value = plain_trajectory_step(
        start, *ends, images, labels, steps=3, learning_rate=torch.tensor(0.1, requires_grad=True), batch_size=4, seed=0
    )
    optimiser = torch.optim.SGD(start.parameters(), lr=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(start(images.detach()), labels).backward()
        optimiser.step()
    reached = tuple(one.detach() for one in start.parameters())
    wanted = relative_distance(reached, tuple(ends[0].values()), tuple(ends[1].values()), AllCoordinates())
    assert value == pytest.approx(wanted.item(), rel=1e-4)
    assert images.grad.norm() > 0


def test_plain_judge_learns_digits(digits):
    judge = PlainJudge(digits.train.sample_shape, 10, 16)
    before = judge.accuracy(digits.test)
    judge.train(digits.train.inputs(), digits.train.labels, epochs=30)
    assert judge.accuracy(digits.test) > before + 0.2


@pytest.mark.parametrize("case", CASES)
def test_every_side_does_all_its_units(digits, case):
    for side in CASES[case].values():
        ticker = Ticker()
        side(TINY, digits, ticker)
        assert len(ticker.seconds) == len(ticker.cpu_seconds) == TINY.repeats


@pytest.mark.slow
def test_bench_measures_in_processes_and_tells_ratios(tmp_path):
    records = run_bench(TINY, ["DM step"], 1, tmp_path / "results.jsonl", Silent())
    assert [one["settings"]["side"] for one in records] == list(CASES["DM step"])
    assert list(read_records(tmp_path / "results.jsonl")) == records
    assert records[0]["metrics"]["operations"] > 0
    table = table_of_bench(records)
    plain = dict(zip(table.columns, table.rows[0], strict=True))
    assert (plain["side"], plain["times as fast"]) == (PLAIN, "1.00")


def test_ratio_and_share_of_the_matrix_product():
    def record(side, seconds, operations):
        metrics = {"cpu_seconds": seconds, "peak_bytes": None, "matrix_rate": 10.0, "operations": operations}
        return {"settings": {"case": "DM step", "side": side, **TINY.as_record()}, "metrics": metrics}

    table = table_of_bench([record(PLAIN, [4.0, 6.0, 5.0], 20e9), record("float32", [2.0], None)])
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert [row["times as fast"] for row in rows] == ["1.00", "2.50"]
    assert [row["of matrix product"] for row in rows] == ["40 %", "100 %"]


@pytest.mark.parametrize("wrong", [{"threads": 0}, {"width": -1}, {"repeats": -1}])
def test_impossible_workloads_are_refused(wrong):
    with pytest.raises(SettingsError):
        Workload(**wrong)


RACE = TimeToAccuracySettings(
    data="digits",
    images_per_class=1,
    method_settings={"architecture": "convnet:width=16", "steps_per_network": 5},
    budgets=(0.5, 1.0),
    plain_width=16,
    plain_looks=(0.05, 0.2),
)


@pytest.mark.parametrize(("contestant", "times"), [(presets, RACE.budgets), (plain_loop, RACE.plain_looks)])
def test_contestants_are_looked_at_when_asked_for(digits, contestant, times):
    looks = list(contestant(RACE, digits))
    assert len(looks) == 2
    assert all(look.cpu_seconds >= wanted for look, wanted in zip(looks, times, strict=True))
    assert 0 < looks[0].steps < looks[1].steps
    assert not torch.equal(*(look.synthetic.inputs() for look in looks))


def test_a_race_is_run_once_and_tells_who_was_as_accurate_when(tmp_path, monkeypatch):
    def looks(settings, *, plain):
        for seconds in settings.plain_looks if plain else settings.budgets:
            yield {
                "cpu_seconds": seconds,
                "steps": 3,
                "accuracy": 0.5 + seconds / (1 if plain else 4),
                "accuracy_std": 0.0,
            }

    monkeypatch.setattr("simulations.dev.time_to_accuracy._looks", looks)
    record = run_time_to_accuracy(RACE, tmp_path / "results.jsonl", Silent())
    assert [run_time_to_accuracy(RACE, tmp_path / "results.jsonl", Silent())] == list(
        read_records(tmp_path / "results.jsonl")
    )
    assert [row[-1] for row in table_of_times(record).rows] == ["", "", "0.1", "0.2"]


def test_seconds_to_an_accuracy():
    looks = [{"cpu_seconds": 1.0, "accuracy": 0.5}, {"cpu_seconds": 4.0, "accuracy": 0.7}]
    assert [seconds_to(wanted, looks) for wanted in (0.4, 0.6, 0.8)] == [1.0, 4.0, None]


@pytest.mark.parametrize("wrong", [{"plain": "mtt"}, {"budgets": ()}, {"budgets": (3.0, 2.0)}, {"protocol": "none"}])
def test_impossible_races_are_refused(wrong):
    with pytest.raises(SettingsError):
        TimeToAccuracySettings(**wrong)


def test_a_contestant_that_breaks_says_so(tmp_path):
    settings = TimeToAccuracySettings(data="digits", method_settings={"no_such": 1}, budgets=(1.0,), plain_looks=(0.1,))
    with pytest.raises(ProcessError, match="no_such"):
        run_time_to_accuracy(settings, tmp_path / "results.jsonl", Silent())
