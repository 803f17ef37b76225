"""Payloads taken apart and put together again without any check, and changed in between."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from random import Random
from typing import Any

from simulations.fuzz.mutation import mutate_bytes, mutate_tree

KEY = "fedcl_distill"


def take_apart(payload: bytes) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """The container's entries, the metadata as an object, and the bytes of the arrays."""
    (length,) = struct.unpack_from("<Q", payload)
    entries = json.loads(payload[8 : 8 + length])
    metadata = json.loads(entries.pop("__metadata__")[KEY])
    return entries, metadata, payload[8 + length :]


def put_together(entries: Mapping[str, Any], metadata: Any, body: bytes) -> bytes:
    """The inverse of :func:`take_apart`, without any check; a metadata string is taken as it is."""
    text = metadata if isinstance(metadata, str) else json.dumps(metadata)
    return with_header(json.dumps({"__metadata__": {KEY: text}, **entries}).encode(), body)


def with_header(header: bytes, body: bytes = b"") -> bytes:
    """A header of the right length before ``body``."""
    return struct.pack("<Q", len(header)) + header + body


def mutate_container(payload: bytes, random: Random) -> bytes:
    """Another payload: entries, metadata or bytes of arrays are changed; half of the time lengths agree again."""
    try:
        entries, metadata, body = take_apart(payload)
    except Exception:  # an earlier change took its form
        return mutate_bytes(payload, random)
    match random.randrange(4):
        case 0:
            entries = mutate_tree(entries, random)
        case 1 | 2:
            metadata = mutate_tree(metadata, random)
        case _:
            body = mutate_bytes(body, random)
    if not isinstance(entries, dict):
        return with_header(json.dumps(entries).encode(), body)
    if random.randrange(2):
        body = _of_declared_length(entries, body)
    return put_together(entries, metadata, body)


def _of_declared_length(entries: Mapping[str, Any], body: bytes) -> bytes:
    """``body`` cut, or filled up with zeros, to where the last array ends."""
    try:
        end = max(int(entry["data_offsets"][1]) for entry in entries.values())
    except (TypeError, ValueError, KeyError, IndexError, OverflowError):
        return body
    return body[:end].ljust(end, b"\0") if 0 <= end <= 1 << 16 else body
