"""The same app under Flower's own engines reaches what it reaches in process: the same weights' accuracy and bytes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
import tomllib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from simulations.attacks import AttackedSettings
from simulations.flower.processes import FlowerProcesses
from simulations.flower.under_flower import CHECKPOINT, PROJECT, run_deployed, run_simulated
from simulations.running.runs import Record
from simulations.scenarios.federated import run_federated
from simulations.settings import FederatedSettings

SETTINGS = FederatedSettings(
    clients=3,
    method_settings={"architecture": "convnet:width=8", "real_batch_per_class": 32},
    distil_steps=3,
    images_per_class=3,
    architecture="mlp:width=16",
)
SCAFFOLD = FederatedSettings(clients=3, strategy="scaffold", rounds=3, architecture="mlp:width=16")
TOPK = FederatedSettings(clients=3, strategy="topk", rounds=3, architecture="mlp:width=16")
FEDAVG = FederatedSettings(clients=3, strategy="fedavg", rounds=2, architecture="mlp:width=16")
DIRECTIONS = {"kind": "direction", "learning_rate": 10}
SECURE = FederatedSettings(
    clients=3,
    strategy="statistics",
    strategy_settings={"views": 4, "architecture": "mlp:width=16", "secure": True, "max_samples": 200},
    distil_steps=20,
    bits=32,
    architecture="mlp:width=16",
)


PRIVATE = replace(
    SECURE, strategy_settings={**SECURE.strategy_settings, "epsilon": 4.0, "trust": "nodes", **DIRECTIONS}
)


def _outcome(record: Record) -> dict[str, object]:
    metrics = record["metrics"]
    rounds = [{key: one[key] for key in one if "seconds" not in key} for one in metrics["rounds"]]
    return {"rounds": rounds, "clients": metrics["bytes_by_client"], "rejections": metrics["rejections"]}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("settings", [SETTINGS, FEDAVG, SCAFFOLD, TOPK, SECURE], ids=lambda settings: settings.strategy)
@pytest.mark.parametrize("engine", [run_simulated, run_deployed])
def test_engine_equals_in_process_run(engine, settings):
    record = engine(settings, timeout=300)
    in_process = run_federated(settings)
    assert _outcome(record) == _outcome(in_process)
    assert record["key"] == in_process["key"]


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("engine", [run_simulated, run_deployed])
def test_noise_in_secret_under_an_engine(engine):
    """Each node draws its own noise, so that accuracies differ; what is sent, heard and guaranteed does not."""
    metrics, in_process = engine(PRIVATE, timeout=300)["metrics"], run_federated(PRIVATE)["metrics"]
    for name in ("bytes_by_client", "rejections", "privacy"):
        assert metrics[name] == in_process[name]
    assert metrics["privacy"]["epsilon"] == 4.0
    assert metrics["accuracy"] > 0.3


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_node_killed_at_work_is_gone_and_the_run_goes_on():
    """A SuperNode and its children get SIGKILL while it trains for the second round."""
    settings = replace(FEDAVG, rounds=3, local_epochs=30, wait_seconds=10.0)

    def kill_the_last(flower: FlowerProcesses, nodes: list[subprocess.Popen[bytes]]) -> None:
        log = flower.home / f"node-{settings.clients - 1}.log"
        while log.read_text(errors="replace").count("Received successfully") < 2:
            time.sleep(0.05)
        time.sleep(1)
        os.killpg(nodes[-1].pid, signal.SIGKILL)

    metrics = run_deployed(settings, timeout=500, meanwhile=kill_the_last)["metrics"]
    assert [one["answers"] for one in metrics["rounds"]] == [0, 3, 2, 2]
    (rejection,) = metrics["rejections"]  # in the third round it is no longer registered
    assert (rejection["server_round"], rejection["partition"]) == (2, 2)
    assert metrics["accuracy"] > 0.5


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_server_killed_after_every_round_ends_where_one_left_alone_does(tmp_path):
    """SuperLink and nodes live on, and the next server goes on from the checkpoint."""
    settings, killed = replace(FEDAVG, rounds=4, local_epochs=10), []

    def kill_servers(flower: FlowerProcesses, nodes: list[subprocess.Popen[bytes]]) -> None:
        checkpoint, seen = tmp_path / CHECKPOINT, None
        while len(killed) < settings.rounds - 1:
            now = checkpoint.stat().st_ino if checkpoint.exists() else None
            if now == seen:
                time.sleep(0.05)
                continue
            seen = now
            time.sleep(random.Random(len(killed)).uniform(0.0, 2.0))  # anywhere in the next round
            for server in _servers_of(flower):
                os.kill(server, signal.SIGKILL)
                killed.append(server)

    record = run_deployed(settings, timeout=200, meanwhile=kill_servers, keep=tmp_path, restarts=settings.rounds)
    assert len(set(killed)) == settings.rounds - 1
    assert _outcome(record) == _outcome(run_federated(settings))
    assert [path.name for path in tmp_path.iterdir()] == ["results.jsonl"]


def _servers_of(flower: FlowerProcesses) -> list[int]:
    """Process ids of the ServerApps that a SuperLink of ``flower`` has started."""
    home, found = f"FLWR_HOME={flower.home}\0".encode(), []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and b"flwr-serverapp" in (entry / "cmdline").read_bytes():
                found += [int(entry.name)] * (home in (entry / "environ").read_bytes())
    return found


def test_app_configuration_has_every_setting_with_a_valid_default():
    project = tomllib.loads(Path(PROJECT, "pyproject.toml").read_text())
    config = project["tool"]["flwr"]["app"]["config"]
    assert set(config) == {*AttackedSettings().to_run_config(), "results-file", "checkpoint-file"}
    settings = AttackedSettings.from_run_config(config)
    assert settings.clients == 2, "Flower simulates two nodes by default"
