"""Both sides of secure aggregation: settings, keys, letters, masks, signed texts, and records read from anyone.

message          down                                        up
train.keys       nothing                                     mask-key, letter-key: PEM; sign-key, and its proof
train.letters    all keys and proofs, threshold              letters: one to each position; commitment to the seed
train.masked     senders: positions; letters: one from each  masked: ArrayRecord, payload; signature: of senders
train.noised     the same, in place of train.masked where sums get noise
train.survivors  survivors: positions; their signatures      signature: of survivors
train.unmask     signers: positions; their signatures        positions, shares: one of each sender

Nodes go by their position among those that sent keys.

Flower's own generator of masks folds a seed of 256 bits to 32 and feeds it to the Mersenne twister, and its words never
take their largest value: a mask can be found by trying 2^32 seeds. So masks are the key stream of ChaCha20 here (RFC
8439), as the cryptography package has it.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from flwr.app import ConfigRecord, RecordDict

from fedcl_distill.errors import PayloadError, SettingsError
from fedcl_distill.statistics.fixed_point import Words
from strategies.federated.internals import (
    bytes_to_public_key,
    decrypt,
    encrypt,
    generate_key_pairs,
    generate_shared_key,
    public_key_to_bytes,
    share_keys_plaintext_concat,
    share_keys_plaintext_separate,
)

FEWEST = 3  # nodes: of two, each knows the other's part from the sum


@dataclass(frozen=True)
class SecureOptions:
    """Whether and how sums are added so that the server sees no single node's.

    Attributes:
        secure: whether they are.
        threshold: fraction of the nodes that take part, in (1/2, 1], that must stay to the end; and that would have to
            work together with the server to learn what a single node sent.
        max_samples: the most samples of one class that a node may hold: a public bound, for sums in fixed point.

    Raises:
        SettingsError: on construction, if a number is out of range.
    """

    secure: bool = False
    threshold: float = 2 / 3
    max_samples: int = 10_000

    def __post_init__(self) -> None:
        if not 0.5 < self.threshold <= 1:
            raise SettingsError(f"threshold must be in (1/2, 1], got {self.threshold}")
        if self.max_samples < 1:
            raise SettingsError(f"max_samples must be at least 1, got {self.max_samples}")

    def threshold_of(self, nodes: int) -> int:
        """Of so many nodes; always more than half of them."""
        return max(nodes // 2 + 1, math.ceil(self.threshold * nodes - 1e-9))


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


SEED_BYTES = 32
_NONCE = bytes(16)  # a seed makes one mask and nothing else


def add_mask(words: Words, seed: bytes) -> None:
    """Add the mask of ``seed`` to ``words``, modulo their range, in place."""
    np.add(words, _stream(words, seed), out=words)


def remove_mask(words: Words, seed: bytes) -> None:
    """Undo :func:`add_mask`."""
    np.subtract(words, _stream(words, seed), out=words)


def pair_mask(words: Words, private: bytes, public: bytes, own: int, other: int) -> None:
    """Add to the ``words`` of position ``own``, in place, the mask that it has with ``other``; the two cancel.

    Args:
        words: of any width.
        private, public: ``own``'s private and ``other``'s public key.
        own, other: positions; the lower one adds, the higher one subtracts.
    """
    seed = base64.urlsafe_b64decode(common_key(private, public))
    (add_mask if own < other else remove_mask)(words, seed)


def _stream(words: Words, seed: bytes) -> Words:
    """Uniform words, as many and as wide as ``words``; ``seed`` has 32 bytes."""
    cipher = Cipher(ChaCha20(seed, _NONCE), mode=None).encryptor()
    return np.frombuffer(cipher.update(bytes(words.nbytes)), words.dtype)


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


KEYS, LETTERS, MASKED, NOISED, SURVIVORS, UNMASK = "keys", "letters", "masked", "noised", "survivors", "unmask"
"""Actions of the five exchanges, in order, with two of the third; a message type has "train." before it."""

_SECURE = "secure"

_LONGEST_KEY = 1000  # bytes; 215 for a public key of P-384 in PEM
_LONGEST_TEXT = 4000  # bytes; about 300 for a letter with two shares


def secure_record(values: Mapping[str, Any]) -> RecordDict:
    """Content with ``values`` for the protocol."""
    return RecordDict({_SECURE: ConfigRecord(dict(values))})


def read_public_key(content: RecordDict, name: str) -> bytes:
    """A public key on the curve P-384, PEM.

    Raises:
        PayloadError: it is something else.
    """
    key = _value(content, name)
    if not isinstance(key, bytes) or len(key) > _LONGEST_KEY:
        raise PayloadError(f"{name} must be bytes, at most {_LONGEST_KEY}")
    try:
        parsed = bytes_to_public_key(key)
    except Exception as error:  # the parser raises many kinds
        raise PayloadError(f"{name} is no public key: {error}") from error
    if not isinstance(parsed, ec.EllipticCurvePublicKey) or not isinstance(parsed.curve, ec.SECP384R1):
        raise PayloadError(f"{name} is no public key on the curve P-384")
    return key


def read_bytes(content: RecordDict, name: str, count: int | None = None) -> list[bytes]:
    """A list of ``count`` short byte strings, or of any number.

    Raises:
        PayloadError: it is something else.
    """
    values = _value(content, name)
    if not isinstance(values, list) or not all(isinstance(one, bytes) and len(one) <= _LONGEST_TEXT for one in values):
        raise PayloadError(f"{name} must be byte strings of at most {_LONGEST_TEXT} bytes")
    if count is not None and len(values) != count:
        raise PayloadError(f"{name} has {len(values)} entries, expected {count}")
    return [one for one in values if isinstance(one, bytes)]


def read_short(content: RecordDict, name: str, length: int) -> bytes:
    """So many bytes; PayloadError where there is something else."""
    value = _value(content, name)
    if not isinstance(value, bytes) or len(value) != length:
        raise PayloadError(f"{name} must be {length} bytes")
    return value


def read_positions(content: RecordDict, name: str, nodes: int) -> list[int]:
    """Ascending positions below ``nodes``.

    Raises:
        PayloadError: it is something else.
    """
    values = _value(content, name)
    positions = [one for one in values if type(one) is int] if isinstance(values, list) else []
    if values != sorted(set(positions)) or not all(0 <= one < nodes for one in positions):
        raise PayloadError(f"{name} must be ascending positions from 0 to {nodes - 1}")
    return positions


def read_integer(content: RecordDict, name: str) -> int:
    """A whole number; PayloadError where there is none."""
    value = _value(content, name)
    if type(value) is not int:
        raise PayloadError(f"{name} must be a whole number")
    return value


def _value(content: RecordDict, name: str) -> Any:
    record = content.get(_SECURE)
    if not isinstance(record, ConfigRecord) or name not in record:
        raise PayloadError(f"message has no {name!r} for secure aggregation")
    return record[name]
