"""The same run under Flower's own engines, on this computer: simulated by Ray, or deployed with TLS.

python -m simulations.flower.under_flower ray clients=4 method=random
python -m simulations.flower.under_flower deployed clients=2 strategy=fedavg rounds=3
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedcl_distill.errors import SettingsError
from simulations.flower.processes import (
    FlowerProcessError,
    FlowerProcesses,
    free_port,
    make_node_key,
    make_server_credentials,
)
from simulations.running.runs import RESULTS, Record, read_records, settings_key
from simulations.settings import FederatedSettings

PROJECT = Path(__file__).resolve().parents[2]
"""Folder of the Flower app: where ``pyproject.toml`` is."""

CHECKPOINT = "server.checkpoint.pt"
_CONNECTION = "here"
_RUN_SECONDS = 3600.0
Process = subprocess.Popen[bytes]
Meanwhile = Callable[[FlowerProcesses, list[Process]], None]


def run_simulated(settings: FederatedSettings, *, cores: int = 2, timeout: float = _RUN_SECONDS) -> Record:
    """Run under Ray, each client on one core, ``cores`` of them at a time.

    Raises:
        FlowerProcessError: a program of Flower failed, or the run left no result.
    """
    with tempfile.TemporaryDirectory(prefix="flower-") as folder, FlowerProcesses(Path(folder)) as flower:
        address = flower.start_superlink("--insecure", "--simulation")
        _connect(flower.home, address, {"insecure": True})
        engine = f"num-supernodes={settings.clients} client-resources-num-cpus=1 init-args-num-cpus={cores}"
        return _run_app(flower, settings, timeout, None, "--federation-config", engine)


def run_deployed(
    settings: FederatedSettings,
    *,
    timeout: float = _RUN_SECONDS,
    meanwhile: Meanwhile | None = None,
    keep: Path | None = None,
    restarts: int = 0,
) -> Record:
    """Run with a SuperLink and one SuperNode process a client, over TLS; nodes prove who they are by their keys.

    Args:
        settings: of the run.
        timeout: seconds for one server.
        meanwhile: called in a thread of its own with what runs, and the nodes by partition.
        keep: folder for the result, and for how the server stands after each round: a call after one that was cut
            short goes on from there. None keeps nothing.
        restarts: of a server that ended without a result, at most; SuperLink and nodes stay.

    Raises:
        FlowerProcessError: a program of Flower failed, or the run left no result.
    """
    with tempfile.TemporaryDirectory(prefix="flower-") as folder, FlowerProcesses(Path(folder)) as flower:
        credentials = make_server_credentials(flower.home)
        address = flower.start_superlink(
            *("--ssl-ca-certfile", str(credentials.authority)),
            *("--ssl-certfile", str(credentials.certificate)),
            *("--ssl-keyfile", str(credentials.key)),
            "--enable-supernode-auth",
            authority=credentials.authority,
        )
        _connect(flower.home, address, {"root-certificates": str(credentials.authority)})
        nodes = [
            _start_supernode(flower, address, credentials.authority, partition, settings.clients)
            for partition in range(settings.clients)
        ]
        if meanwhile is not None:
            threading.Thread(target=meanwhile, args=(flower, nodes), daemon=True).start()
        for _ in range(restarts):
            with suppress(FlowerProcessError):
                return _run_app(flower, settings, timeout, keep)
        return _run_app(flower, settings, timeout, keep)


def _start_supernode(
    flower: FlowerProcesses, address: str, authority: Path, partition: int, partitions: int
) -> Process:
    name = f"node-{partition}"
    private, public = make_node_key(flower.home, name)
    flower.call("flwr", "supernode", "register", str(public), _CONNECTION, timeout=60)
    return flower.start(
        "flower-supernode",
        *("--root-certificates", str(authority)),
        *("--superlink", address),
        *("--auth-supernode-private-key", str(private)),
        *("--node-config", f"partition-id={partition} num-partitions={partitions}"),
        *("--port", str(free_port())),
        log=f"{name}.log",
    )


def _connect(home: Path, address: str, security: dict[str, Any]) -> None:
    """Tell ``flwr`` where the SuperLink is, and by what certificate to know it."""
    (home / "config.toml").write_text(_toml(f"superlink.{_CONNECTION}", {"address": address, **security}))


def _run_app(
    flower: FlowerProcesses, settings: FederatedSettings, timeout: float, keep: Path | None, *options: str
) -> Record:
    results = (keep or flower.home) / RESULTS
    files = {"results-file": str(results), "checkpoint-file": str(keep / CHECKPOINT) if keep else ""}
    run_config = flower.home / "run.toml"
    run_config.write_text(_toml(None, {**settings.to_run_config(), **files}))
    command = ("run", str(PROJECT), _CONNECTION, "--stream", "--run-config", str(run_config), *options)
    output = flower.call("flwr", *command, timeout=timeout)
    key = settings_key("federated", settings.as_record())
    records = [record for record in read_records(results) if record["key"] == key]
    if not records:
        raise FlowerProcessError(f"the run left no result: {output[-3000:]}")
    return records[-1]


def _toml(table: str | None, values: dict[str, Any]) -> str:
    """One flat TOML table: its texts, numbers and booleans are written as in JSON."""
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    return "\n".join(([f"[{table}]"] if table else []) + lines) + "\n"


def main(arguments: list[str]) -> None:
    """Run what the command line asks for and print the result line."""
    engines: dict[str, Callable[[FederatedSettings], Record]] = {
        "ray": run_simulated,
        "deployed": run_deployed,
    }
    if not arguments or arguments[0] not in engines:
        raise SettingsError(f"expected one of {', '.join(engines)}, then settings such as clients=4")
    print(json.dumps(engines[arguments[0]](_parse(arguments[1:]))))


def _parse(assignments: list[str]) -> FederatedSettings:
    changes: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not hasattr(FederatedSettings(), key):
            raise SettingsError(f"cannot read {assignment!r}; expected a setting such as clients=4")
        try:
            changes[key] = json.loads(value)
        except json.JSONDecodeError:
            changes[key] = value
    return replace(FederatedSettings(), **changes)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except SettingsError as error:
        sys.exit(str(error))
