"""Reports say which results are private, and which only look so."""

from __future__ import annotations

from typing import Any

import pytest

from simulations.running.runs import make_record
from simulations.tables.comparison import table_of
from simulations.tables.variants import scenarios

CLAIM = {"epsilon": 4.0, "delta": 1e-5, "seeded": False}


def label_of(*claims: Any) -> str:
    records = [
        make_record(
            "distil", {"data": "digits", "method": "psg", "seed": seed}, {"accuracy": 0.5, "privacy": claim}, 1.0
        )
        for seed, claim in enumerate(claims)
    ]
    (scenario,) = scenarios(records, "distil")
    return scenario.variants[0].label


@pytest.mark.parametrize(
    ("claims", "mark"),
    [
        ([CLAIM, {**CLAIM, "epsilon": 5.0}], "[ε 5, δ 1e-05]"),
        ([CLAIM, {**CLAIM, "seeded": True}], "[noise from a known seed: not private]"),
        ([CLAIM, None], "psg"),
        ([None], "psg"),
        (["private, believe me"], "psg"),
    ],
)
def test_an_arm_is_as_private_as_its_weakest_result(claims: list[Any], mark: str) -> None:
    assert label_of(*claims).endswith(mark)


def test_the_table_says_what_the_mark_means() -> None:
    metrics = {"accuracy": 0.5, "accuracies": [0.5], "privacy": CLAIM}
    record = make_record("distil", {"data": "digits", "method": "psg", "seed": 0}, metrics, 1.0)
    (scenario,) = scenarios([record], "distil")
    assert any("docs/privacy.md" in note for note in table_of(scenario).notes)
