"""Bytes until an accuracy is first reached."""

from __future__ import annotations

import pytest

from simulations.running.runs import make_record
from simulations.tables.federated import table_of_bytes
from simulations.tables.variants import scenarios


def record(strategy, accuracies, bytes_a_round, seed=0, down=None):
    """A result whose rounds take ``bytes_a_round`` up, and as many down."""
    down = bytes_a_round if down is None else down
    rounds = [
        {"round": index, "accuracy": accuracy, "bytes_up": index * bytes_a_round, "bytes_down": index * down}
        for index, accuracy in enumerate([0.1, *accuracies])
    ]
    settings = {"strategy": strategy, "rounds": len(accuracies), "seed": seed, "data": "digits"}
    return make_record("federated", settings, {**rounds[-1], "rounds": rounds}, 1.0)


def cells(*records):
    (scenario,) = scenarios(records, "federated")
    table = table_of_bytes(scenario)
    return table.columns[1:], {row[0]: row[1:] for row in table.rows}


def test_first_round_that_is_as_good_counts():
    climbing = record("fedavg", [0.05 * index for index in range(1, 13)], 1000)
    early = record("scaffold", [0.3, 0.6, 0.4], 2000)
    single = record("one-shot", [0.55], 100)
    columns, rows = cells(climbing, early, single)
    assert columns == ("fedavg, round 10 (50.0 %)", "one-shot, 1 round (55.0 %)")
    assert rows["fedavg"] == ("20.0 kB (1×)", "22.0 kB (0.0091×)")
    assert rows["scaffold"] == ("8.00 kB (2.5×)", "8.00 kB (0.025×)")
    assert rows["one-shot"] == ("200 B (100×)", "200 B (1×)")


def test_seeds_are_held_against_their_own_level():
    columns, rows = cells(
        record("fedavg", [0.2] * 9 + [0.4], 10, seed=0),
        record("fedavg", [0.2] * 9 + [0.8], 10, seed=1),
        record("one-shot", [0.5], 5, seed=0),
        record("one-shot", [0.5], 5, seed=1),
    )
    assert columns[0] == "fedavg, round 10 (60.0 %)"
    assert rows["one-shot"][0] == "reached by 1 of 2 seeds"


def test_short_runs_are_measured_at_their_end_and_ceilings_are_no_goal():
    columns, rows = cells(record("fedavg", [0.3, 0.5], 10), record("pooled-distillation", [0.9], 1000, down=0))
    assert columns == ("fedavg, round 2 (50.0 %)",)
    assert rows["pooled-distillation †"] == ("1.00 kB (0.04×)",)


def test_without_fedavg_there_is_nothing_to_compare_with():
    (scenario,) = scenarios([record("one-shot", [0.5], 5)], "federated")
    assert table_of_bytes(scenario) is None


@pytest.mark.parametrize("rounds", [None, "many", [1, 2], [{"accuracy": "high"}]])
def test_damaged_results_break_nothing(rounds):
    broken = record("one-shot", [0.5], 5)
    broken["metrics"]["rounds"] = rounds
    _, rows = cells(record("fedavg", [0.3, 0.5], 10), broken)
    assert rows["one-shot"] == ("not reached",)
