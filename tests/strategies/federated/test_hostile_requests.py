"""Requests and facts at the edge of what their types hold: one typed error, not a trace."""

from __future__ import annotations

from typing import Any

import pytest
from flwr.app import ConfigRecord, MetricRecord, RecordDict

from fedcl_distill.errors import PayloadError, SettingsError
from fedcl_distill.methods import build_method, list_methods
from fedcl_distill.networks import NetworkLimits, architectures_in
from federations import data_and_test, quick, serve
from strategies.federated import InProcessGrid, make_client_app, requests
from strategies.federated.aggregation import QuorumError, one_line
from strategies.federated.answers import ClientReport
from strategies.federated.compression import CompressedRequest, train_compressed
from strategies.federated.distillation import DistilRequest, distilled
from strategies.federated.feddm import SurrogateRequest, distil_around
from strategies.federated.local_training import TrainRequest, train
from strategies.federated.private_statistics import sum_features
from strategies.federated.requests import Task
from strategies.federated.strategy import Work

_NORMAL: dict[str, Any] = {"seed": 1}


@pytest.mark.parametrize(
    "changes",
    [
        {"seconds": 10**400},
        {"method-settings": "[" * 100_000},
        {"method-settings": '{"a":' * 50_000},
        {"method-settings": "[1]"},
        {"seed": "0"},
    ],
    ids=["huge number", "deep list", "deep object", "list", "text"],
)
def test_requests_out_of_range_are_refused(changes: dict[str, Any]) -> None:
    record = DistilRequest(**_NORMAL).to_record(1)
    with pytest.raises(SettingsError) as caught:
        DistilRequest.of(RecordDict({"config": ConfigRecord({**record, **changes})}))
    assert len(str(caught.value)) < 1000


_NOISE: dict[str, Any] = {"statistics": {}, "epsilon": 4.0, "delta": 1e-5}
_SHARES = {"features": 0.7, "samples": 0.2, "moments": 0.08, "counts": 0.02}


@pytest.mark.parametrize(
    "shares",
    [{}, {**_SHARES, "more": 1.0}, {"a": 1.0}, {**_SHARES, "counts": -1.0}, {**_SHARES, "counts": True}],
    ids=["none", "another", "other", "negative", "flag"],
)
def test_noise_that_is_not_divided_over_the_blocks_is_refused(shares: dict[str, Any]) -> None:
    private = requests.PrivateStatisticsRequest(**_NORMAL, **_NOISE, shares=shares)
    noised = requests.NoisyWordsRequest(**_NORMAL, **_NOISE, shares=shares, bits=32, max_samples=9)
    with pytest.raises(SettingsError, match=r"(?i)share"):
        private.release(data_and_test()[0], None)
    with pytest.raises(SettingsError, match=r"(?i)share"):
        noised.fixed_point(3, 2)


def test_no_more_class_counts_are_read_than_there_may_be_classes() -> None:
    counts = [0] * 20_000
    counts[0] = 5
    facts = {"num-examples": 5, "seconds": 1.0, "partition-id": 0, "class-counts": counts}
    with pytest.raises(PayloadError, match="list of at most 10000"):
        ClientReport.of(RecordDict({"metrics": MetricRecord(facts)}))


def test_a_reason_of_any_length_is_cut_before_it_is_read() -> None:
    assert one_line("\n" * 10**7 + "sensor off") == "sensor off"
    assert len(one_line("x" * 10**7)) == 301


_HUGE = "mlp:width=1000000"
_TOO_LARGE = {
    "train": (train, TrainRequest(**_NORMAL, architecture=_HUGE)),
    "many weights": (train, TrainRequest(**_NORMAL, architecture="mlp:width=1024,depth=200")),
    "compressed": (train_compressed, CompressedRequest(**_NORMAL, architecture=_HUGE)),
    "surrogate": (distil_around, SurrogateRequest(**_NORMAL, architecture=_HUGE)),
    "distil": (distilled, DistilRequest(**_NORMAL, method_settings={"architecture": _HUGE})),
    "teacher": (
        distilled,
        DistilRequest(**_NORMAL, method_settings={"labels": f"teacher:architecture={_HUGE}"}),
    ),
    "features": (sum_features, requests.StatisticsRequest(**_NORMAL, statistics={"architecture": _HUGE})),
    "sums": (
        sum_features,
        requests.StatisticsRequest(
            **_NORMAL, statistics={"views": 100_000, "dimensions": 0, "architecture": "mlp:width=1024"}
        ),
    ),
}


@pytest.mark.parametrize(("work", "request_"), _TOO_LARGE.values(), ids=_TOO_LARGE)
def test_networks_and_sums_that_are_too_large_are_refused_before_they_are_made(
    work: Work, request_: requests.Request
) -> None:
    data = data_and_test()[0]
    task = Task(RecordDict({"config": request_.to_record(1)}), data, 0, "cpu", RecordDict())
    with pytest.raises(SettingsError, match=r"at most [\d,]+"):
        work(task)


def test_a_node_says_itself_how_large_a_network_may_be() -> None:
    data, _ = data_and_test()
    app = make_client_app(lambda _: data, network_limits=NetworkLimits(max_parameters=50))
    settings = quick(strategy="fedavg", clients=1, architecture="mlp:width=8")
    with (
        InProcessGrid(app, 1, settings.to_run_config()) as grid,
        pytest.raises(QuorumError, match="has 155 weights, at most 50 are allowed"),
    ):
        serve(grid, settings, data)


@pytest.mark.parametrize("name", list_methods())
def test_networks_of_every_method_are_found(name: str) -> None:
    named = {"architecture": "convnet:width=99"}
    try:
        method = build_method(name, **named)
    except SettingsError:
        pytest.skip("it takes no network")
    if name != "private-statistics":  # whose specification bounds its own
        assert [str(one) for one in architectures_in(method)] == ["convnet(width=99)"]
