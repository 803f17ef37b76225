"""Who a node is to other nodes: a key that it signs with, and the keys that it knows beforehand."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedcl_distill.errors import SettingsError


@dataclass(frozen=True)
class NodeIdentity:
    """A node's signing key (Ed25519), and those of all nodes that it takes part with.

    Attributes:
        private: 32 bytes, the node's own; not shown.
        trusted: public keys, 32 bytes each, that were passed on without the server. None trusts the server to pass them
            on: against one that hands out keys of its own, nothing holds then.

    Raises:
        SettingsError: on construction, if a key has another length.

    Example:
        >>> mine = NodeIdentity.fresh()
        >>> mine.verifies(mine.public, mine.sign(b"text"), b"text")
        True
    """

    private: bytes = field(repr=False)
    trusted: frozenset[bytes] | None = None

    def __post_init__(self) -> None:
        if any(len(key) != 32 for key in (self.private, *(self.trusted or ()))):
            raise SettingsError("keys of node identities are Ed25519: 32 bytes each")

    @classmethod
    def fresh(cls, trusted: Collection[bytes] | None = None) -> NodeIdentity:
        """With a new key."""
        return cls(Ed25519PrivateKey.generate().private_bytes_raw(), None if trusted is None else frozenset(trusted))

    @property
    def public(self) -> bytes:
        return Ed25519PrivateKey.from_private_bytes(self.private).public_key().public_bytes_raw()

    def sign(self, text: bytes) -> bytes:
        """64 bytes."""
        return Ed25519PrivateKey.from_private_bytes(self.private).sign(text)

    @staticmethod
    def verifies(public: bytes, signature: bytes, text: bytes) -> bool:
        """Whether the owner of ``public`` signed ``text``; False for anything that is no key or no signature."""
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(signature, text)
        except (InvalidSignature, ValueError):
            return False
        return True
