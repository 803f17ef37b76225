"""The safetensors container: written so that its size is known beforehand, read with suspicion.

The safetensors library reads tensors from bytes, but not the metadata beside them, and it has no bound on
what it copies. This reader checks every declared size against the bytes that are present and returns views
into them.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from fedcl_distill.errors import PayloadError
from fedcl_distill.synthetic.limits import Limits
from fedcl_distill.synthetic.strict_json import parse_object

View = npt.NDArray[Any]

METADATA_KEY = "fedcl_distill"
_LENGTH_BYTES = 8
_MAX_DIMENSIONS = 8
_DTYPES: dict[str, np.dtype[Any]] = {
    "U8": np.dtype("<u1"),
    "U16": np.dtype("<u2"),
    "U32": np.dtype("<u4"),
    "F32": np.dtype("<f4"),
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}


@dataclass(frozen=True)
class Spec:
    """What the container says about an array: little-endian ``dtype`` and ``shape``."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def container_header(specs: Mapping[str, Spec], metadata: str) -> bytes:
    """Everything before the arrays: the length of the JSON header, and the header, padded to 8 bytes."""
    entries: dict[str, Any] = {"__metadata__": {METADATA_KEY: metadata}}
    position = 0
    for name in _order(specs):
        spec, start = specs[name], position
        position += spec.nbytes
        code = _CODES[spec.dtype]
        entries[name] = {"dtype": code, "shape": list(spec.shape), "data_offsets": [start, position]}
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    padded = text + b" " * (-len(text) % _LENGTH_BYTES)
    return struct.pack("<Q", len(padded)) + padded


def write_container(arrays: Mapping[str, View], metadata: str) -> bytes:
    """safetensors bytes of ``arrays`` (little-endian) with one metadata text."""
    specs = {name: Spec(array.dtype, array.shape) for name, array in arrays.items()}
    return b"".join([container_header(specs, metadata), *(arrays[name].tobytes() for name in _order(specs))])


def read_container(payload: bytes | bytearray | memoryview, limits: Limits) -> tuple[dict[str, View], str]:
    """Views into ``payload`` by name, and the metadata text; no array is copied.

    Raises:
        PayloadError: the payload is not of bytes or breaks a limit, or types, sizes and offsets do not describe its
            bytes exactly.
    """
    if not isinstance(payload, bytes | bytearray | memoryview):
        raise PayloadError(f"payload must be bytes, got {type(payload).__name__}")
    view = memoryview(payload).cast("B")
    entries, body = _read_header(view, limits)
    metadata = entries.pop("__metadata__", None)
    if not isinstance(metadata, dict) or set(metadata) != {METADATA_KEY}:
        raise PayloadError(f"payload has no metadata {METADATA_KEY!r}, or more than that")
    if not isinstance(metadata[METADATA_KEY], str):
        raise PayloadError(f"metadata {METADATA_KEY!r} is not a text")
    return _read_views(view, body, entries, limits), metadata[METADATA_KEY]


def _read_header(payload: memoryview, limits: Limits) -> tuple[dict[str, Any], int]:
    """The header's JSON object and the offset of the first byte after it."""
    if len(payload) > limits.max_payload_bytes:
        raise PayloadError(f"{len(payload)} bytes, at most {limits.max_payload_bytes} are allowed")
    if len(payload) < _LENGTH_BYTES:
        raise PayloadError(f"payload is truncated: {len(payload)} bytes, expected at least {_LENGTH_BYTES}")
    (length,) = struct.unpack_from("<Q", payload)
    if length > limits.max_metadata_bytes:
        raise PayloadError(f"header has {length} bytes, at most {limits.max_metadata_bytes} are allowed")
    body = _LENGTH_BYTES + length
    if body > len(payload):
        raise PayloadError(f"payload is truncated: {len(payload)} bytes, its header alone needs {body}")
    try:
        text = bytes(payload[_LENGTH_BYTES:body]).decode()
    except UnicodeDecodeError as error:
        raise PayloadError("header is not UTF-8") from error
    return parse_object(text, "header"), body


def _read_views(payload: memoryview, body: int, entries: dict[str, Any], limits: Limits) -> dict[str, View]:
    """Views of all entries, which must tile the bytes from ``body`` on without gap, overlap or rest."""
    spans = {name: _read_entry(name, entry, limits) for name, entry in entries.items()}
    views, position = {}, body
    for name, (dtype, shape, start, end) in sorted(spans.items(), key=lambda item: item[1][2:]):
        if body + start != position:
            raise PayloadError(f"array {name!r} leaves a gap or overlaps another one")
        if body + end > len(payload):
            raise PayloadError(f"payload is truncated: {len(payload)} bytes, array {name!r} ends at {body + end}")
        views[name] = np.frombuffer(payload, dtype, math.prod(shape), offset=position).reshape(shape)
        position = body + end
    if position != len(payload):
        raise PayloadError(f"payload has {len(payload) - position} bytes after its last array")
    return views


def _read_entry(name: str, entry: Any, limits: Limits) -> tuple[np.dtype[Any], tuple[int, ...], int, int]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise PayloadError(f"array {name!r} needs exactly dtype, shape and data_offsets")
    dtype = _DTYPES.get(entry["dtype"]) if isinstance(entry["dtype"], str) else None
    if dtype is None:
        raise PayloadError(f"array {name!r} has dtype {entry['dtype']!r}, expected one of {list(_DTYPES)}")
    shape = read_shape(name, entry["shape"], limits)
    offsets = entry["data_offsets"]
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(offset) is int for offset in offsets):
        raise PayloadError(f"array {name!r} has no two integer data_offsets")
    start, end = offsets
    if start < 0 or end - start != math.prod(shape) * dtype.itemsize:
        raise PayloadError(f"array {name!r} declares shape {shape} but {end - start} bytes")
    return dtype, shape, start, end


def read_shape(name: str, shape: Any, limits: Limits) -> tuple[int, ...]:
    """The declared ``shape`` of array ``name``; PayloadError if it is no shape or exceeds ``limits``."""
    if not isinstance(shape, list) or len(shape) > _MAX_DIMENSIONS:
        raise PayloadError(f"array {name!r} needs a shape of at most {_MAX_DIMENSIONS} dimensions")
    if not all(type(size) is int and 0 <= size <= limits.max_values for size in shape):
        raise PayloadError(f"array {name!r} has a dimension that is no integer in [0, {limits.max_values}]")
    if math.prod(shape) > limits.max_values:
        raise PayloadError(f"array {name!r}: {math.prod(shape)} values, at most {limits.max_values} are allowed")
    return tuple(shape)


def _order(specs: Mapping[str, Spec]) -> Iterable[str]:
    """Wide items first, as the safetensors library has it: arrays of a mapped file are aligned."""
    return sorted(specs, key=lambda name: (-specs[name].dtype.itemsize, name))
