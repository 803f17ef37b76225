"""What nodes sign and commit to: lists as bytes that cannot be read in two ways."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence


def key_text(server_round: int, mask_key: bytes, letter_key: bytes) -> bytes:
    """What a node signs as its keys of one round."""
    return _text("keys", server_round, mask_key.hex(), letter_key.hex())


def session_of(server_round: int, threshold: int, *keys: Sequence[bytes]) -> bytes:
    """Names a round: all keys of all nodes, and how many of these open a secret."""
    return hashlib.sha256(_text("session", server_round, threshold, [[k.hex() for k in one] for one in keys])).digest()


def senders_text(session: bytes, senders: Sequence[int]) -> bytes:
    """What a node signs as those whose letters it has."""
    return _text("senders", session.hex(), list(senders))


def survivors_text(session: bytes, senders: Sequence[int], survivors: Sequence[int]) -> bytes:
    """What a node signs as those whose words are in the total."""
    return _text("survivors", session.hex(), list(senders), list(survivors))


def commitment_of(seed: bytes) -> bytes:
    """Binds a node to the seed of its mask, and tells nothing of 32 random bytes."""
    return hashlib.sha256(b"fedcl-distill mask seed" + seed).digest()


def _text(*parts: object) -> bytes:
    return json.dumps(["fedcl-distill secure aggregation", *parts]).encode()
