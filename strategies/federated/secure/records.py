"""What the five exchanges carry beside Flower's usual records, read from anyone.

message          down                                        up
train.keys       nothing                                     mask-key, letter-key: PEM; sign-key, and its proof
train.letters    all keys and proofs, threshold              letters: one to each position; commitment to the seed
train.masked     senders: positions; letters: one from each  masked: ArrayRecord, payload; signature: of senders
train.noised     the same, in place of train.masked where sums get noise
train.survivors  survivors: positions; their signatures      signature: of survivors
train.unmask     signers: positions; their signatures        positions, shares: one of each sender

Nodes go by their position among those that sent keys.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from flwr.app import ConfigRecord, RecordDict

from fedcl_distill.errors import PayloadError
from strategies.federated.internals import bytes_to_public_key

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
