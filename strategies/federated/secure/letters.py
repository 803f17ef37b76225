"""Letters between nodes, which pass through the server: two shares, sealed under a key of the two nodes alone."""

from __future__ import annotations

from strategies.federated.internals import (
    decrypt,
    encrypt,
    share_keys_plaintext_concat,
    share_keys_plaintext_separate,
)
from strategies.federated.secure.keys import common_key


def seal(private: bytes, public: bytes, sender: int, receiver: int, seed_share: bytes, key_share: bytes) -> bytes:
    """The letter from position ``sender`` to ``receiver``: one's private key, the other's public one."""
    return encrypt(common_key(private, public), share_keys_plaintext_concat(sender, receiver, seed_share, key_share))


def unseal(private: bytes, public: bytes, sender: int, receiver: int, letter: bytes) -> tuple[bytes, bytes] | None:
    """Seed share and key share in a letter; None if it is not from ``sender`` to ``receiver`` or was changed."""
    try:
        plaintext = decrypt(common_key(private, public), letter)
        found_sender, found_receiver, seed_share, key_share = share_keys_plaintext_separate(plaintext)
    except Exception:  # a forged letter may break anything; it is worth as much as a lost one
        return None
    return (seed_share, key_share) if (found_sender, found_receiver) == (sender, receiver) else None
