"""Certificates and keys for a deployment on this computer: made anew for each run, worth nothing afterwards."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from cryptography.x509.oid import NameOID

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
