"""Tables of results that something else wrote, or changed: whatever the values are, there is a table."""

from __future__ import annotations

import pytest

from simulations.formats import number
from simulations.running.runs import make_record
from simulations.tables.comparison import table_of
from simulations.tables.variants import scenarios

HUGE = 10**400


@pytest.mark.parametrize("kind", ["distil", "federated", "continual", "federated-continual"])
@pytest.mark.parametrize("value", [HUGE, -HUGE, ["dm"], {"a": 1}, None, True, "x"])
@pytest.mark.parametrize("name", ["seed", "strategy", "method", "strategy_settings"])
def test_no_setting_breaks_a_table(kind, name, value):
    """Found by the fuzzer: seeds too large for a float, and strategies that are lists."""
    settings = {"data": "digits", "strategy": "one-shot", "method": "random", "seed": 0}
    records = [make_record(kind, {**settings, **other}, {}, 1.0) for other in ({name: value}, {})]
    (scenario,) = scenarios(records, kind)
    rows = table_of(scenario).rows
    assert len(rows) == len(scenario.variants) >= 1


@pytest.mark.parametrize("value", [HUGE, float("inf"), float("nan"), "1", True, None, [1]])
def test_what_is_no_finite_number_is_none(value):
    assert number(value) is None
