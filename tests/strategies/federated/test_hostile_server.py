"""Truth: what a node says it does. A server may ask what it likes; the node stays within its limits and says why."""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import RecordDict

from builders import blobs
from fedcl_distill.errors import SettingsError
from fedcl_distill.methods import METHODS, build_method
from fedcl_distill.methods.distribution import dm
from fedcl_distill.registry import parameters_of
from fedcl_distill.settings import hints_of
from fedcl_distill.work_limits import WorkLimitError, WorkLimits
from federations import data_and_test, quick, serve
from strategies.federated import InProcessGrid, QuorumError, add_distilling, make_client_app
from strategies.federated.client import SECURE_ANSWERS
from strategies.federated.distillation import DistilRequest, distilled
from strategies.federated.local_training import TrainRequest, train
from strategies.federated.requests import Request, Task

_NORMAL: dict[str, Any] = {"seed": 1}


def task_of(request: Request, **more: Any) -> Task:
    data = blobs((1, 8, 8), classes=3, per_class=8)
    return Task(RecordDict({"config": request.to_record(1)}), data, 0, "cpu", RecordDict(), **more)


def asked(method: str, **settings: Any) -> DistilRequest:
    return DistilRequest(**_NORMAL, method=method, method_settings=settings, steps=1)


def whole_numbers() -> Iterator[tuple[str, str]]:
    for method in METHODS.names():
        hints = hints_of(METHODS[method].build)
        for name in parameters_of(METHODS[method].build):
            if "int" in str(hints[name]).replace("Constraint", "") and not name.endswith("seed"):
                yield method, name


NUMBERS = sorted(set(whole_numbers()))


@pytest.mark.parametrize(("method", "name"), NUMBERS, ids=str)
def test_no_number_of_any_method_has_no_upper_end(method: str, name: str) -> None:
    most = WorkLimits().max_number
    for value in (most + 1, 10**9, 10**30):
        with pytest.raises(SettingsError, match=rf"\b{name}\b"):
            distilled(task_of(asked(method, **{name: value})))
    WorkLimits().check_numbers(asked(method, **{name: most}))


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"labels": "teacher:epochs=1000000000"}, "epochs"),
        ({"labels": {"name": "teacher", "epochs": 10**9}}, "epochs"),
        ({"parameterization": "tiles:1000000000"}, "value"),
        ({"augmentation": ["color", {"name": "cutout", "ratio": 1e9}]}, "ratio"),
    ],
    ids=str,
)
def test_numbers_are_found_at_any_depth(settings: dict[str, Any], name: str) -> None:
    with pytest.raises(SettingsError, match=rf"{name} must be at most 1,000,000 in a request"):
        distilled(task_of(asked("dm", **settings)))


@pytest.mark.parametrize("name", ["epochs", "batch_size", "proximal_mu", "learning_rate"])
def test_numbers_of_training_have_upper_ends(name: str) -> None:
    kind = int if name in ("epochs", "batch_size") else float
    request = TrainRequest(**_NORMAL, architecture="mlp:width=4", **{name: kind(10**9)})
    with pytest.raises(SettingsError, match=name):
        train(task_of(request))


@pytest.mark.parametrize("method", [one for one in METHODS.names() if "expert_cache" in METHODS.settings_of(one)])
def test_no_request_names_a_folder(method: str, tmp_path: Path) -> None:
    settings = {"expert_cache": str(tmp_path / "deep" / "er"), "architecture": "mlp:width=4", "expert_runs": 1}
    with pytest.raises(SettingsError, match="names a place on this node"):
        distilled(task_of(asked(method, **settings)))
    assert not any(tmp_path.iterdir())


def test_what_a_node_brings_itself_may_have_a_folder(tmp_path: Path) -> None:
    mine = build_method(
        "mtt", expert_cache=tmp_path, expert_runs=1, expert_latest_start=1, expert_segment=1, architecture="mlp:width=4"
    )
    distilled(task_of(asked("mine"), methods={"mine": mine}))
    assert any(tmp_path.iterdir())


@pytest.mark.parametrize(("method", "name"), [("psg", "ledger"), ("private-statistics", "ledger"), ("dm", "budget")])
def test_no_request_gives_a_text_for_an_object(method: str, name: str) -> None:
    with pytest.raises(SettingsError, match=name):
        distilled(task_of(asked(method, epsilon=4.0, **{name: "x"}) if name == "ledger" else asked(method, budget="x")))


def test_a_node_answers_what_it_says_it_answers() -> None:
    data, test = data_and_test()
    app = make_client_app(lambda _: data, answers=SECURE_ANSWERS)
    settings = quick(strategy="one-shot", clients=1)
    with (
        InProcessGrid(app, 1, settings.to_run_config()) as grid,
        pytest.raises(QuorumError, match=r"(?i)no .*train\.distil|train.*distil"),
    ):
        serve(grid, settings, test)
    with pytest.raises(SettingsError, match="did you mean 'masked'"):
        make_client_app(lambda _: data, answers={"maskd"})
    with pytest.raises(SettingsError, match="collection"):
        make_client_app(lambda _: data, answers="masked")


def test_a_node_distils_by_methods_that_it_is_willing_to_run() -> None:
    task = task_of(asked("random"), willing=frozenset({"dm"}))
    with pytest.raises(SettingsError, match="does not run 'random'; it runs: dm"):
        distilled(task)
    data, test = data_and_test()
    settings = quick(clients=1)
    app = make_client_app(lambda _: data, willing={"herding"})
    with (
        InProcessGrid(app, 1, settings.to_run_config()) as grid,
        pytest.raises(QuorumError, match="does not run 'random'"),
    ):
        serve(grid, settings, test)


def test_other_limits_hold_in_an_app_of_ones_own() -> None:
    from flwr.clientapp import ClientApp

    with pytest.raises(SettingsError, match="unknown answer 'x'"):
        add_distilling(ClientApp(), lambda _: None, answers={"x"})


@pytest.mark.parametrize(
    "settings",
    [{"method": "dm", "distil_steps": 10**6}, {"method": "kip", "method_settings": {"kernel_depth": 10**6}}],
    ids=["many steps", "one long step"],
)
def test_work_ends_when_the_node_s_seconds_are_over(settings: dict[str, Any]) -> None:
    data, test = data_and_test()
    asks = quick(clients=1, **settings)
    app = make_client_app(lambda _: data, work_limits=WorkLimits(seconds=0.3))
    started = time.monotonic()
    with (
        InProcessGrid(app, 1, asks.to_run_config()) as grid,
        pytest.raises(QuorumError, match=r"longer than the 0\.3 seconds"),
    ):
        serve(grid, asks, test)
    assert time.monotonic() - started < 30


def test_work_that_catches_errors_ends_too() -> None:
    def stubborn() -> None:
        while True:
            try:
                time.sleep(0.01)
            except SettingsError:
                caught.append(1)
                if len(caught) > 1:
                    raise

    caught: list[int] = []
    with pytest.raises(WorkLimitError), WorkLimits(seconds=0.1).working():
        stubborn()
    assert len(caught) == 2


def test_seconds_are_those_of_one_thread() -> None:
    ended: list[str] = []

    def work(seconds: float, name: str) -> None:
        try:
            with WorkLimits(seconds=seconds).working():
                for _ in range(30):
                    time.sleep(0.01)
                ended.append(name)
        except WorkLimitError:
            ended.append(f"{name} stopped")

    threads = [threading.Thread(target=work, args=args) for args in ((0.05, "short"), (100.0, "long"))]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert sorted(ended) == ["long", "short stopped"]


def test_memory_that_the_node_does_not_give_ends_the_work_and_not_the_process() -> None:
    before = resource.getrlimit(resource.RLIMIT_DATA)
    limits = WorkLimits(memory=2**26)
    for work in (lambda: torch.ones(2**28), lambda: bytearray(2**30), lambda: list(range(2**26))):
        with pytest.raises(WorkLimitError, match="more memory"), limits.working():
            work()
    with pytest.raises(ZeroDivisionError), limits.working():
        _ = 1 / 0
    with limits.working(), limits.working():
        assert torch.ones(2**20).sum() == 2**20
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_defaults_leave_room_for_every_default_of_every_method() -> None:
    limits = WorkLimits()
    for method in METHODS.names():
        defaults = {
            name: one.default for name, one in parameters_of(METHODS[method].build).items() if one.default is not None
        }
        plain = {name: one for name, one in defaults.items() if isinstance(one, int | float | str)}
        limits.check_numbers(asked(method, **plain))
    assert dm().budget.steps is not None
    assert dm().budget.steps <= limits.max_number
