"""Every second of a recording belongs to one group, the right one; operations are counted as the formulas say."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F
from torch.profiler import ProfilerActivity, profile, record_function
from typer.testing import CliRunner

from fedcl_distill.augmentation import SiameseAugmentation
from fedcl_distill.context import RealSampler
from fedcl_distill.networks import Architecture
from fedcl_distill.training import TrainConfig, fit
from simulations.cli import app
from simulations.dev.bench import OperationCounter, Ticker, Window, Workload
from simulations.dev.profile import (
    AUGMENTATION,
    BACKWARD,
    CASES,
    CONVOLUTION,
    DATA,
    GROUPS,
    MATRIX,
    NORM,
    OPTIMISER,
    OTHER,
    OUTSIDE,
    RANGE,
    group_of,
    measure,
    ranges,
    seconds_by_group,
)
from simulations.running.runs import read_records

TINY = Workload(
    data="digits", images_per_class=2, width=8, real_batch_per_class=5, student_steps=2, test_limit=20, repeats=1
)


def event(name, own, children=(), number=-1, start=0.0):
    made = SimpleNamespace(name=name, self_cpu_time_total=own * 1e6, cpu_children=list(children), cpu_parent=None)
    made.sequence_nr, made.time_range = number, SimpleNamespace(start=start)
    for child in children:
        child.cpu_parent = made
    return made


def everything(roots):
    return [one for root in roots for one in (root, *everything(root.cpu_children))]


def test_outermost_name_decides_and_what_no_operator_took_is_outside():
    roots = [
        event("aten::conv2d", 1, [event("aten::mkldnn_convolution", 2, [event("aten::empty", 3)])]),
        event(RANGE + DATA, 4, [event("aten::mm", 5), event("aten::index", 6)]),
        event("_NormReluPool", 7, [event("aten::matmul", 8)]),
        event("Optimizer.step#SGD.step", 9, [event("aten::add_", 10)]),
        event("aten::copy_", 11),
    ]
    spent = seconds_by_group(everything(roots), 100)
    assert {group: taken for group, taken in spent.items() if taken} == pytest.approx(
        {CONVOLUTION: 6, DATA: 15, NORM: 15, OPTIMISER: 19, OTHER: 11, OUTSIDE: 34}
    )
    assert tuple(spent) == GROUPS


def test_backward_belongs_to_the_operator_that_the_last_of_its_number_was():
    roots = [
        event("aten::eq", 1, number=7, start=0),  # makes no node: the next operator gets the same number
        event(RANGE + AUGMENTATION, 1, [event("aten::mul", 1, number=7, start=2)], start=1),
        event("aten::mul", 1, number=8, start=3),
        event("autograd::engine::evaluate_function: MulBackward0", 2, [event("MulBackward0", 4, number=8)], 8, 4),
        event("autograd::engine::evaluate_function: MulBackward0", 2, [event("MulBackward0", 16, number=7)], 7, 5),
    ]
    spent = seconds_by_group(everything(roots), 28)
    assert (spent[AUGMENTATION], spent[OTHER], spent[BACKWARD]) == pytest.approx((2 + 16, 1 + 1 + 4, 4))


def record(do):
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as recording, record_function("whole"):
        do()
    (whole,) = (one for one in recording.events() if one.name == "whole")
    return seconds_by_group(recording.events(), whole.cpu_time_total / 1e6)


def test_a_recorded_training_shows_every_group_it_does(digits):
    network = Architecture("convnet", {"width": 8}).build((1, 8, 8), 10, seed=0)
    images, labels = digits.train.inputs(torch.arange(64)), digits.train.labels[:64]
    with ranges():
        spent = record(lambda: fit(network, images, labels, TrainConfig(2, augmentation=SiameseAugmentation()), seed=0))
    assert all(spent[group] > 0 for group in (CONVOLUTION, NORM, AUGMENTATION, MATRIX, OPTIMISER, BACKWARD))
    assert spent[DATA] == 0
    with ranges():
        assert record(lambda: RealSampler(digits.train, torch.device("cpu")).draw(3, 0))[DATA] > 0


def test_backward_of_an_augmentation_is_augmentation():
    images = torch.randn(300, 3, 16, 16, requires_grad=True)
    draw = torch.Generator().manual_seed(0)
    with ranges():  # colours: sums, products and means, which other code has too
        augment = SiameseAugmentation(("color",)).draw(300, (3, 16, 16), draw)
        spent = record(lambda: augment(images, torch.arange(300)).backward(torch.ones_like(images)))
        beside = record(lambda: (images * 2 + 1).mean(dim=1, keepdim=True).sum().backward())
    assert spent[AUGMENTATION] > 5 * (spent[CONVOLUTION] + spent[MATRIX] + spent[NORM])
    assert beside[AUGMENTATION] == 0


def test_ranges_change_no_result_and_go_away(digits):
    def trained():
        network = Architecture("convnet", {"width": 8}).build((1, 8, 8), 10, seed=0)
        fit(network, digits.train.inputs(slice(50)), digits.train.labels[:50], TrainConfig(1), seed=3)
        return network.classifier.weight

    before, methods = trained(), (SiameseAugmentation.draw, RealSampler.draw, Architecture.build)
    with ranges():
        assert Architecture.build is not methods[2]
        assert torch.equal(trained(), before)
    assert (SiameseAugmentation.draw, RealSampler.draw, Architecture.build) == methods


@pytest.mark.parametrize("constant", [False, True])
def test_operations_of_a_convolution_and_a_product(constant):
    images = torch.randn(5, 3, 9, 7, requires_grad=True)
    kernel = torch.randn(4, 3, 3, 3, requires_grad=not constant)
    with OperationCounter() as counter:
        reached = F.conv2d(images, kernel, padding=1)
        forward = counter.total
        (reached.flatten(1) @ torch.randn(4 * 9 * 7, 6)).sum().backward()
    convolution, product = 2 * 5 * 9 * 7 * 4 * 3 * 3 * 3, 2 * 5 * (4 * 9 * 7) * 6
    assert forward == convolution
    assert counter.total == convolution * (2 if constant else 3) + product * 2  # the product's weights are constant


def test_window_is_open_for_the_measured_units_alone():
    seen = []
    window = Window(Noting(seen), units=2)
    for unit in range(4):
        seen.append(unit)
        window()
    assert seen == [0, 1, "open", 2, 3, "closed"]


class Noting:
    def __init__(self, seen):
        self.seen = seen

    def __enter__(self):
        self.seen.append("open")

    def __exit__(self, *error):
        self.seen.append("closed")


@pytest.mark.parametrize("case", CASES)
def test_every_case_does_all_its_units(digits, case):
    ticker = Ticker()
    CASES[case](TINY, digits, ticker)
    assert len(ticker.cpu_seconds) == TINY.repeats


def test_command_profiles_and_shows_shares(tmp_path, monkeypatch):
    monkeypatch.setattr("simulations.dev.profile.in_fresh_process", lambda _, given, __: measure(**given))
    flags = [
        "--data",
        "digits",
        "--width",
        "8",
        "--images-per-class",
        "2",
        "--real-batch-per-class",
        "5",
        "--repeats",
        "1",
    ]
    said = CliRunner().invoke(app, ["profile", *flags, "--case", "DM step", "--out", str(tmp_path)])
    assert said.exit_code == 0, said.output
    (found,) = read_records(tmp_path / "results.jsonl")
    metrics = found["metrics"]
    assert found["kind"] == "profile"
    assert sum(metrics["shares"].values()) == pytest.approx(1)
    assert metrics["shares"][CONVOLUTION] > 0
    assert metrics["operations"] > 0
    assert f"{100 * metrics['shares'][CONVOLUTION]:.0f} %" in said.output
    refused = CliRunner().invoke(app, ["profile", *flags, "--case", "sorting"])
    assert "unknown case" in refused.output + refused.stderr


def test_names_of_no_group():
    assert group_of("aten::add") is None
    assert group_of("autograd::engine::evaluate_function: ConvolutionBackward0") is None
