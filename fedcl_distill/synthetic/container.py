"""A safetensors container with one JSON header, read without trust."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from fedcl_distill.errors import PayloadError
from fedcl_distill.settings import Count, settings


@settings
class Limits:
    """Bounds on a payload from an untrusted source.

    Decoding needs, besides the payload itself, at most about six bytes for each stored value (the float32
    result, and for a moment its codes and a finiteness mask) and up to 16 MiB for the header and tables.

    Attributes:
        max_payload_bytes: size of the whole payload.
        max_metadata_bytes: size of its JSON header, with class names and provenance.
        max_samples: decoded samples.
        max_values: float32 values, of all stored arrays together and, separately, of all decoded samples.
        max_classes: classes.
        max_coded_bits: bits of entropy-coded codes, each about 5 microseconds of work (4,194,304 are 20 seconds).

    Raises:
        SettingsError: a bound is not a positive integer.
    """

    max_payload_bytes: Count = 64 * 2**20
    max_metadata_bytes: Count = 256 * 2**10
    max_samples: Count = 100_000
    max_values: Count = 2**27
    max_classes: Count = 10_000
    max_coded_bits: Count = 2**22

    def check_decoded(self, shape: tuple[int, ...]) -> None:
        """Return if samples of ``shape``, (n, …), which nothing has been allocated for yet, are within bounds.

        Raises:
            PayloadError: they are not, or they would be neither images nor feature vectors.
        """
        if len(shape) not in (2, 4) or 0 in shape[1:]:
            raise PayloadError(f"decoded samples would have shape {shape}")
        if shape[0] > self.max_samples:
            raise PayloadError(f"{shape[0]} samples, at most {self.max_samples} are allowed")
        if math.prod(shape) > self.max_values:
            raise PayloadError(f"{math.prod(shape)} decoded values, at most {self.max_values} are allowed")


DEFAULT_LIMITS = Limits()


MAX_DEPTH = 32


def parse_object(text: str, what: str) -> dict[str, Any]:
    """Parse ``text``, which must be one JSON object; ``what`` names it in errors.

    Raises:
        PayloadError: ``text`` is no JSON object, or breaks one of the rules of this module.
    """
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_float=_finite_float, parse_constant=_refuse_constant)
        if not isinstance(value, dict):
            raise PayloadError(f"{what} is not a JSON object")
        _check_depth(value, MAX_DEPTH)
        # An escaped lone surrogate parses, but could never be written again.
        json.dumps(value, ensure_ascii=False).encode()
    except PayloadError as error:
        raise PayloadError(f"{what}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise PayloadError(f"{what} is not valid JSON: {error}") from error
    return value


def compact(value: object) -> str:
    """``value`` as the shortest JSON text with sorted keys: equal values give equal text.

    Raises:
        PayloadError: ``value`` holds something JSON has no word for (NaN, an array, …), or is nested too deep
            to be read again.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
        text.encode()
        _check_depth(json.loads(text), MAX_DEPTH)
    except (TypeError, ValueError, RecursionError) as error:
        raise PayloadError(f"metadata cannot be written as JSON: {error}") from error
    return text


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise PayloadError(f"duplicate key {key!r}")
        result[key] = value
    return result


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise PayloadError(f"number {text[:40]} is out of range")
    return value


def _refuse_constant(text: str) -> NoReturn:
    raise PayloadError(f"{text} is not a number")


def _check_depth(value: object, remaining: int) -> None:
    if not isinstance(value, dict | list):
        return
    if remaining == 0:
        raise PayloadError(f"nested deeper than {MAX_DEPTH} levels")
    for child in value.values() if isinstance(value, dict) else value:
        _check_depth(child, remaining - 1)


MatchContext = npt.NDArray[Any]

METADATA_KEY = "fedcl_distill"
_LENGTH_BYTES = 8
_MAX_DIMENSIONS = 8
_DTYPES: dict[str, np.dtype[Any]] = {
    "U8": np.dtype("<u1"),
    "U16": np.dtype("<u2"),
    "U32": np.dtype("<u4"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
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


def write_container(arrays: Mapping[str, MatchContext], metadata: str) -> bytes:
    """safetensors bytes of ``arrays`` (little-endian) with one metadata text."""
    specs = {name: Spec(array.dtype, array.shape) for name, array in arrays.items()}
    return b"".join([container_header(specs, metadata), *(arrays[name].tobytes() for name in _order(specs))])


def read_container(payload: bytes | bytearray | memoryview, limits: Limits) -> tuple[dict[str, MatchContext], str]:
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


def _read_views(payload: memoryview, body: int, entries: dict[str, Any], limits: Limits) -> dict[str, MatchContext]:
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
