"""Requests and facts at the edge of what their types hold: one typed error, not a trace."""

from __future__ import annotations

from typing import Any

import pytest
from flwr.app import ConfigRecord, MetricRecord, RecordDict

from fedcl_distill.errors import PayloadError, SettingsError
from strategies.federated.messages import requests
from strategies.federated.messages.answers import Facts
from strategies.federated.server.rejections import one_line

_NORMAL: dict[str, Any] = {"seed": 1, "mean": (0.5,), "std": (0.2,)}


@pytest.mark.parametrize(
    "changes",
    [
        {"std": [10**400]},
        {"seconds": 10**400},
        {"method-settings": "[" * 100_000},
        {"method-settings": '{"a":' * 50_000},
        {"method-settings": "[1]"},
        {"mean": ["0"]},
    ],
    ids=["huge item", "huge number", "deep list", "deep object", "list", "text"],
)
def test_requests_out_of_range_are_refused(changes: dict[str, Any]) -> None:
    record = requests.DistilRequest(**_NORMAL).to_record(1)
    with pytest.raises(SettingsError) as caught:
        requests.read_distil(RecordDict({"config": ConfigRecord({**record, **changes})}))
    assert len(str(caught.value)) < 1000


def test_no_more_class_counts_are_read_than_there_may_be_classes() -> None:
    counts = [0] * 20_000
    counts[0] = 5
    facts = {"num-examples": 5, "seconds": 1.0, "partition-id": 0, "class-counts": counts}
    with pytest.raises(PayloadError, match="list of at most 10000"):
        Facts.of(RecordDict({"metrics": MetricRecord(facts)}))


def test_a_reason_of_any_length_is_cut_before_it_is_read() -> None:
    assert one_line("\n" * 10**7 + "sensor off") == "sensor off"
    assert len(one_line("x" * 10**7)) == 301
