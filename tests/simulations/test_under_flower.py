"""The parts of running under Flower that need no Flower process; the whole is in the slow tests."""

from __future__ import annotations

import ssl
import time
import tomllib

import pytest

from fedcl_distill.errors import DependencyError, SettingsError
from simulations.dev.faults import Job, attempt, outliving
from simulations.flower.processes import (
    FlowerProcessError,
    FlowerProcesses,
    find_program,
    make_node_key,
    make_server_credentials,
)
from simulations.flower.under_flower import _parse, _toml, main
from simulations.settings import FederatedSettings


def test_run_configuration_survives_as_toml():
    settings = FederatedSettings(data='a "quoted" name', local_weight_decay=1e-7)
    run_config = tomllib.loads(_toml(None, settings.to_run_config()))
    assert FederatedSettings.from_run_config(run_config) == settings


def test_settings_on_the_command_line():
    settings = _parse(["clients=3", "strategy=fedavg", "distil_seconds=1.5", "partition=dirichlet:0.5"])
    expected = FederatedSettings(clients=3, strategy="fedavg", distil_seconds=1.5, partition="dirichlet:0.5")
    assert settings == expected


@pytest.mark.parametrize("arguments", [[], ["other"], ["ray", "clients"], ["ray", "nothing=3"]])
def test_bad_command_lines(arguments):
    with pytest.raises(SettingsError, match="expected"):
        main(arguments)


def test_credentials_are_accepted_by_tls(tmp_path):
    credentials = make_server_credentials(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(credentials.certificate, credentials.key)
    client = ssl.create_default_context(cafile=str(credentials.authority))
    incoming, outgoing = (ssl.MemoryBIO(), ssl.MemoryBIO())
    here = client.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    there = server.wrap_bio(outgoing, incoming, server_side=True)
    for side in (here, there, here, there):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    assert here.getpeercert()["subject"][0][0] == ("commonName", "localhost")
    assert credentials.key.stat().st_mode & 0o077 == 0


def test_node_keys_are_openssh(tmp_path):
    private, public = make_node_key(tmp_path, "node-0")
    assert private.read_text().startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    assert public.read_text().startswith("ecdsa-sha2-nistp384 ")
    assert private.stat().st_mode & 0o077 == 0


def test_failing_programs_are_reported_with_their_log(tmp_path):
    with (
        FlowerProcesses(tmp_path) as flower,
        pytest.raises(FlowerProcessError, match=r"(?s)status 2: .*No such command"),
    ):
        flower.call("flwr", "nonsense", timeout=60)


def test_nothing_is_left_running(tmp_path):
    with FlowerProcesses(tmp_path) as flower:
        process = flower.start("sleep", "60", log="sleep.log")
    assert process.poll() is not None


def test_programs_end_with_a_starter_that_is_killed(tmp_path):
    def work(folder):
        flower = FlowerProcesses(folder)
        flower.start("sleep", "60", log="sleep.log")
        (folder / "started").touch()
        time.sleep(60)

    folder = tmp_path / "folder"
    folder.mkdir()
    assert attempt(Job("starter", work, ()), folder, tmp_path / "log", kill_after=0.3) is None
    assert (folder / "started").exists()
    assert outliving(folder, 10.0) == []


def test_a_program_that_takes_its_time_to_end_is_waited_for(tmp_path):
    slow = "trap 'sleep 0.3; touch ended; exit 3' TERM; touch started; while true; do sleep 0.05; done"
    with FlowerProcesses(tmp_path) as flower:
        process = flower.start("sh", "-c", f"cd {tmp_path}; {slow}", log="slow.log")
        flower.wait_until((tmp_path / "started").exists, process, "slow.log")
    assert (tmp_path / "ended").exists()
    assert process.returncode == 3


def test_unknown_programs():
    with pytest.raises(DependencyError, match="pip install"):
        find_program("no-such-program")
