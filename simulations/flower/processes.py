"""Flower's programs on this computer, with the credentials that they know each other by."""

from __future__ import annotations

import ipaddress
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

from fedcl_distill.errors import DependencyError, FedclDistillError
from simulations.running import supervisor
from simulations.running.processes import child_environment, stop_with_children

LOOPBACK = "127.0.0.1"
_LIFETIME = timedelta(days=1)


@dataclass(frozen=True)
class ServerCredentials:
    """Files for TLS: the authority's certificate, the server's certificate for 127.0.0.1, and its private key."""

    authority: Path
    certificate: Path
    key: Path


def make_server_credentials(folder: Path) -> ServerCredentials:
    """Write an authority of our own and a certificate that it signed into ``folder``."""
    authority_key, server_key = _new_key(), _new_key()
    authority_name, server_name = _name("local authority"), _name("localhost")
    constraints = x509.BasicConstraints(ca=True, path_length=0)
    authority = _builder(authority_name, authority_name, authority_key.public_key())
    authority = authority.add_extension(constraints, critical=True)
    addresses = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(LOOPBACK))]
    server = _builder(server_name, authority_name, server_key.public_key())
    server = server.add_extension(x509.SubjectAlternativeName(addresses), critical=False)
    return ServerCredentials(
        authority=_write(folder / "authority.crt", _pem(authority.sign(authority_key, SHA256()))),
        certificate=_write(folder / "server.crt", _pem(server.sign(authority_key, SHA256()))),
        key=_write(folder / "server.key", _private(server_key, PrivateFormat.PKCS8)),
    )


def make_node_key(folder: Path, name: str) -> tuple[Path, Path]:
    """Write a node's private and public key (ECDSA P-384, OpenSSH format) into ``folder`` and return both paths."""
    key = _new_key()
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return (
        _write(folder / name, _private(key, PrivateFormat.OpenSSH)),
        _write(folder / f"{name}.pub", public + b"\n"),
    )


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP384R1())


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + _LIFETIME)
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def _private(key: ec.EllipticCurvePrivateKey, kind: PrivateFormat) -> bytes:
    return key.private_bytes(Encoding.PEM, kind, NoEncryption())


def _write(path: Path, content: bytes) -> Path:
    path.touch(mode=0o600)
    path.write_bytes(content)
    return path


_START_SECONDS = 60.0
_TAIL = 2000  # characters of a log in an error message


class FlowerProcessError(FedclDistillError, RuntimeError):
    """One of Flower's programs failed or did not start in time; the message ends with the end of its log."""


class FlowerProcesses:
    """Starts Flower's programs with a home of their own; used in a ``with`` block, which stops them all.

    Where this process ends without leaving the block, they end as well; only the home stays.

    Args:
        home: folder for Flower's state and for logs; it must exist.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> FlowerProcesses:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in reversed(self._started):
            stop_with_children(process)
            assert process.stdin is not None
            process.stdin.close()

    def start(self, program: str, *options: str, log: str) -> subprocess.Popen[bytes]:
        """Start ``program`` in the background; what it prints goes into the file ``log`` in the home.

        It ends with this process, also if that is killed: a supervisor leads its group and kills it then.
        """
        with (self.home / log).open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-I", supervisor.__file__, find_program(program), *options],
                env=self.environment(),
                stdin=subprocess.PIPE,  # nothing is written; that it stays open says that we are there
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a process group of its own, so that its children can be stopped with it
            )
        self._started.append(process)
        return process

    def call(self, program: str, *options: str, timeout: float) -> str:
        """Run ``program`` to its end and return what it printed.

        Raises:
            FlowerProcessError: it failed, or took longer than ``timeout`` seconds.
        """
        log = f"{program}-{len(list(self.home.glob(f'{program}-*.log')))}.log"
        process = self.start(program, *options, log=log)
        try:
            status = process.wait(timeout)
        except subprocess.TimeoutExpired as error:
            raise FlowerProcessError(f"{program} took longer than {timeout:g} s: {self.tail(log)}") from error
        if status:
            raise FlowerProcessError(f"{program} ended with status {status}: {self.tail(log)}")
        return (self.home / log).read_text(errors="replace")

    def start_superlink(self, *options: str, authority: Path | None = None) -> str:
        """Start a SuperLink on a free port of 127.0.0.1 and return its address once it answers.

        Args:
            options: of ``flower-superlink``, such as those for TLS.
            authority: certificate to check it by; None where it speaks plain HTTP.

        Raises:
            FlowerProcessError: it ended, or does not answer within a minute.
        """
        address, log = f"{LOOPBACK}:{free_port()}", "superlink.log"
        host, port = address.split(":")
        process = self.start("flower-superlink", *options, "--host", host, "--port", port, log=log)
        self.wait_until(lambda: _is_healthy(address, authority), process, log)
        return address

    def wait_until(self, is_ready: Callable[[], bool], process: subprocess.Popen[bytes], log: str) -> None:
        """Return once ``is_ready()``; FlowerProcessError if ``process`` ends or a minute passes before."""
        deadline = time.monotonic() + _START_SECONDS
        while not is_ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise FlowerProcessError(f"{log.removesuffix('.log')} did not start: {self.tail(log)}")
            time.sleep(0.2)

    def tail(self, log: str) -> str:
        """The end of a log."""
        path = self.home / log
        return path.read_text(errors="replace")[-_TAIL:] if path.exists() else "no log"

    def environment(self) -> dict[str, str]:
        """This process's environment, with Flower kept from the network, from our home and from installing things."""
        programs = str(Path(sys.executable).parent)
        return {
            **child_environment(),
            "PATH": programs + os.pathsep + os.environ.get("PATH", ""),
            "FLWR_HOME": str(self.home),
            "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
        }


def find_program(name: str) -> str:
    """Path of one of Flower's programs, first beside this Python.

    Raises:
        DependencyError: Flower is not installed.
    """
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        raise DependencyError(f"cannot find {name!r}: pip install 'fedcl-distill[federated]'")
    return found


def free_port() -> int:
    """A TCP port of 127.0.0.1 that is free at this moment."""
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        return int(listener.getsockname()[1])


def _is_healthy(address: str, authority: Path | None) -> bool:
    scheme = "http" if authority is None else "https"
    trust = None if authority is None else ssl.create_default_context(cafile=str(authority))
    try:
        with urllib.request.urlopen(f"{scheme}://{address}/health", timeout=2, context=trust) as answer:
            return bool(answer.status == 200)
    except OSError:  # nobody listens yet
        return False
