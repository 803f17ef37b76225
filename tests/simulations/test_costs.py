"""Costs of a phase against work whose cost is known."""

from __future__ import annotations

import time

import torch

from simulations.costs import Meter


def test_cpu_seconds_are_of_work_and_not_of_waiting() -> None:
    meter = Meter()
    time.sleep(0.3)
    idle = meter.cost()
    assert idle.seconds >= 0.3
    assert idle.cpu_seconds < 0.15
    until = time.process_time() + 0.2
    while time.process_time() < until:
        pass
    assert meter.cost().cpu_seconds - idle.cpu_seconds >= 0.19


def test_the_peak_counts_memory_that_was_given_back() -> None:
    meter = Meter()
    del_me = torch.ones(60_000_000)  # 240 MB
    assert float(del_me[-1]) == 1.0
    del del_me
    cost = meter.cost()
    assert cost.peak_bytes is not None
    assert cost.start_bytes is not None
    assert cost.peak_bytes - cost.start_bytes > 200e6
    assert cost.as_record("distil")["distil_peak_bytes"] == cost.peak_bytes


def test_a_new_meter_forgets_the_peak_of_before() -> None:
    assert torch.ones(60_000_000)[-1] == 1.0
    cost = Meter().cost()
    if cost.peak_bytes is not None and cost.start_bytes is not None:  # elsewhere than on Linux, nothing is forgotten
        assert cost.peak_bytes - cost.start_bytes < 100e6
