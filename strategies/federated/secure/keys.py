"""Keys on the curve P-384: public ones as PEM; private ones as the bytes of their number, few to share out."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ec

from strategies.federated.internals import (
    bytes_to_public_key,
    generate_key_pairs,
    generate_shared_key,
    public_key_to_bytes,
)

_PRIVATE_BYTES = 48


def fresh_keys() -> tuple[bytes, bytes]:
    """A private key, 48 bytes, and its public half, PEM."""
    private, public = generate_key_pairs()
    return private.private_numbers().private_value.to_bytes(_PRIVATE_BYTES, "big"), public_key_to_bytes(public)


def public_of(private: bytes) -> bytes:
    """The public half; ValueError where ``private`` is no key."""
    return public_key_to_bytes(_private_key(private).public_key())


def common_key(private: bytes, public: bytes) -> bytes:
    """The key that two nodes have alone, from one's private and the other's public key; as Fernet takes it."""
    return generate_shared_key(_private_key(private), bytes_to_public_key(public))


def _private_key(private: bytes) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(int.from_bytes(private, "big"), ec.SECP384R1())
