"""Format 3 of a synthetic set: a binary header, codes without what can be told beforehand, a checksum.

In order, with whole numbers as :class:`~fedcl_distill.synthetic.binary.Writer` writes them:

- four bytes that no older payload begins with, flags, the kind of labels;
- the parameterization (a number where it is well known, else its name) and its settings;
- classes: their number, or names; tasks, normalisation, value range, names of features, backbone and provenance, where
  there are any; counts of classes, where they say all labels;
- for each array its name, shape, how it is stored (float32 as it is, packed codes, or codes by the context coder of
  :mod:`~fedcl_distill.synthetic.entropy`), the number of levels, the codes, smallest and largest value;
- CRC-32 of everything before.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from fedcl_distill.data.spec import DataSpec, Normalisation
from fedcl_distill.errors import DataError, PayloadError
from fedcl_distill.parameterizations import Setting, Shape, build_parameterization, stored_settings
from fedcl_distill.synthetic.binary import Reader, Writer
from fedcl_distill.synthetic.container import Limits, compact, parse_object
from fedcl_distill.synthetic.entropy import MAX_DEPTH, expand, squeeze
from fedcl_distill.synthetic.quantise import (
    Floats,
    Range,
    UInts,
    even_levels,
    label_bits,
    levels_for,
    lookup,
    nearest,
    pack,
    packed_bytes,
    padding_is_zero,
    unpack,
)
from fedcl_distill.synthetic.set import SyntheticSet

MAGIC = b"\xfdDS\x03"
"""A container of formats 1 and 2 that began so would have a header of 55 million bytes."""

Coding = Literal["smallest", "fixed"]

_LABELS = "labels"
_NAMES = (
    *("pixels", "tiles", "dct", "low-rank", "fixed-pixels", "addressing", "generator"),
    *("coefficients", "canvas", _LABELS),
)
"""What costs one byte. Only ever append."""

_PROVENANCE, _HFLIP, _TASKS, _CLASS_NAMES, _FEATURES, _SETTINGS, _RANGE, _BACKBONE = (1 << place for place in range(8))
_UNIFORM = 16  # beside the kind of labels: one mean and one deviation for all channels or features
_SAME_COUNT, _COUNTS, _HARD, _SOFT = range(4)
_FLOATS, _PACKED, _CONTEXTS = range(3)
_UNIT = (0.0, 1.0)
_CHECKSUM_BYTES = 4
_MAX_DIMENSIONS = 8
_MAX_DEPTH = 16
_MAX_LABEL_DEPTH = 32
_NOWHERE = Range(0.0, 0.0)
_ARRAY = struct.Struct("<H2f")  # levels - 1, smallest and largest value


def is_packed_format(payload: memoryview) -> bool:
    """Whether ``payload`` is of format 3."""
    return bytes(payload[: len(MAGIC)]) == MAGIC


@dataclass(frozen=True)
class Parts:
    """A payload before its checksum, in three parts."""

    header: bytes
    arrays: bytes
    labels: bytes

    def joined(self) -> bytes:
        body = self.header + self.arrays + self.labels
        return body + zlib.crc32(body).to_bytes(_CHECKSUM_BYTES, "little")


def write_parts(synthetic: SyntheticSet, bits: int, *, provenance: bool, coding: Coding) -> Parts:
    """``synthetic`` in format 3; see :func:`~fedcl_distill.synthetic.encode`."""
    if _LABELS in synthetic.arrays:
        raise DataError(f"synthetic set: no stored array may be called {_LABELS!r}")
    labels, kind = synthetic.labels.cpu().numpy(), _kind_of_labels(synthetic)
    coding = coding if _coded_bits(synthetic, kind, bits) <= Limits.max_coded_bits else "fixed"
    header, arrays, last = Writer(), Writer(), Writer()
    _write_header(header, synthetic, kind, provenance)
    header.whole(len(synthetic.arrays))
    for name in sorted(synthetic.arrays):
        _write_name(arrays, name)
        _write_floats(arrays, synthetic.arrays[name].detach().cpu().numpy(), bits, coding)
    if kind == _SOFT:
        _write_floats(last, labels, label_bits(bits), coding)
    elif kind == _HARD:
        _write_shape(last, labels.shape)
        classes = synthetic.num_classes
        last.parts += _write_codes(labels.astype(np.uint32), classes, _depth(classes), 0, coding)
    return Parts(bytes(header.parts), bytes(arrays.parts), bytes(last.parts))


def _coded_bits(synthetic: SyntheticSet, kind: int, bits: int) -> int:
    """Bits that the context coder would have to code at most."""
    values = sum(array.numel() for array in synthetic.arrays.values()) * min(bits, MAX_DEPTH)
    return values + (synthetic.labels.numel() * MAX_DEPTH if kind in (_HARD, _SOFT) else 0)


def _kind_of_labels(synthetic: SyntheticSet) -> int:
    labels = synthetic.labels
    if labels.ndim == 2:
        return _SOFT
    if not bool((labels[1:] >= labels[:-1]).all()):
        return _HARD
    return _SAME_COUNT if len(set(synthetic.class_counts.tolist())) == 1 else _COUNTS


def _write_header(header: Writer, synthetic: SyntheticSet, kind: int, provenance: bool) -> None:
    spec, settings = synthetic.spec, stored_settings(synthetic.parameterization)
    count = spec.num_classes
    told = dict(synthetic.provenance) if provenance else {}
    features = spec.feature_names if provenance else ()
    flags = {
        _PROVENANCE: bool(told),
        _HFLIP: spec.allow_hflip,
        _TASKS: spec.tasks is not None,
        _CLASS_NAMES: spec.class_names != _numbered(count),
        _FEATURES: bool(features),
        _SETTINGS: bool(settings),
        _RANGE: tuple(spec.value_range) != _UNIT,
        _BACKBONE: bool(spec.backbone),
    }
    uniform = _is_uniform(spec.normalisation)
    header.parts += MAGIC + bytes([sum(flag for flag, is_set in flags.items() if is_set), kind + _UNIFORM * uniform])
    _write_name(header, synthetic.parameterization.name)
    if settings:
        header.whole(len(settings))
        for name, value in sorted(settings.items()):
            header.text(name)
            header.scalar(value)
    header.whole(count)
    for name in spec.class_names if flags[_CLASS_NAMES] else ():
        header.text(name)
    for task in spec.tasks or ():
        header.signed(task)
    mean, std = spec.normalisation.mean, spec.normalisation.std
    header.whole(len(mean))
    header.reals([mean[0], std[0]] if uniform else [*mean, *std])
    if flags[_RANGE]:
        header.reals(spec.value_range)
    for name in features:
        header.text(name)
    if flags[_BACKBONE]:
        header.text(spec.backbone)
    if told:
        header.text(compact(told))
    if kind in (_SAME_COUNT, _COUNTS):
        counts = synthetic.class_counts.tolist()
        for samples in counts if kind == _COUNTS else counts[:1]:
            header.whole(samples)


def _is_uniform(normalisation: Normalisation) -> bool:
    """Whether one mean and one deviation are those of all channels or features, as behind a frozen backbone."""
    mean, std = normalisation.mean, normalisation.std
    return len(mean) > 1 and len(set(mean)) == 1 and len(set(std)) == 1


def _write_name(writer: Writer, name: str) -> None:
    if name in _NAMES:
        writer.whole(1 + _NAMES.index(name))
    else:
        writer.whole(0)
        writer.text(name)


def _write_floats(writer: Writer, values: Floats, bits: int, coding: Coding) -> None:
    _write_shape(writer, values.shape)
    if bits == 32:
        writer.whole(_FLOATS)
        writer.parts += values.astype("<f4").tobytes()
        return
    span = Range.of(values)
    levels = levels_for(values, span, 2**bits)
    stored = _write_codes(nearest(values, levels), len(levels), bits, _centre(span, len(levels)), coding)
    writer.parts += stored[:1] + _ARRAY.pack(len(levels) - 1, span.low, span.high) + stored[1:]


def _write_codes(codes: UInts, levels: int, bits: int, centre: int, coding: Coding) -> bytes:
    """How ``codes`` are stored, in one byte, and the codes; of constant size where ``coding`` is "fixed"."""
    depth = bits if coding == "fixed" else _depth(levels)
    plain = bytes([_PACKED, depth]) + pack(codes, depth).tobytes()
    if coding == "fixed" or depth == 0:
        return plain
    return min(plain, bytes([_CONTEXTS]) + _coded(codes, depth, centre), key=len)


def _coded(codes: UInts, depth: int, centre: int) -> bytes:
    """The upper eight bits by the context coder, its length first; lower ones, next to noise, as they are."""
    lower = max(depth - MAX_DEPTH, 0)
    upper: UInts = np.right_shift(codes, lower).astype(np.uint8)
    squeezed = squeeze(upper, depth - lower, centre >> lower)
    writer = Writer()
    writer.whole(len(squeezed))
    writer.parts += squeezed
    rest: UInts = np.bitwise_and(codes, (1 << lower) - 1).astype(np.uint32)
    writer.parts += pack(rest, lower).tobytes()
    return bytes(writer.parts)


def _write_shape(writer: Writer, shape: Shape) -> None:
    writer.whole(len(shape))
    for size in shape:
        writer.whole(size)


def _depth(levels: int) -> int:
    return (levels - 1).bit_length()


def _centre(span: Range, levels: int) -> int:
    """The code nearest to 0: IEEE arithmetic alone, so that both sides agree."""
    if span.low == span.high:
        return 0
    place = (0.0 - span.low) / (span.high - span.low) * (levels - 1)
    return int(min(max(place + 0.5, 0.0), levels - 1.0))


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))


@dataclass(frozen=True)
class _Stored:
    """What a payload says of an array, before anything of its size exists.

    Attributes:
        shape: of the array.
        form: float32 as it is, packed or coded.
        levels, depth: how many codes there are, and how many bits of each are stored.
        data, lower: the codes, and their bits below the upper eight where these alone are coded.
        span: of the values that codes stand for; none for labels.
    """

    shape: Shape
    form: int
    levels: int
    depth: int
    data: memoryview
    lower: memoryview
    span: Range

    @property
    def coded_bits(self) -> int:
        return math.prod(self.shape) * min(self.depth, MAX_DEPTH) if self.form == _CONTEXTS else 0

    def codes(self) -> UInts:
        count = math.prod(self.shape)
        if self.form == _PACKED:
            codes = unpack(np.frombuffer(self.data, np.uint8), self.depth, count).reshape(self.shape)
        else:
            below = max(self.depth - MAX_DEPTH, 0)
            centre = _centre(self.span, self.levels) >> below
            codes = expand(bytes(self.data), self.shape, self.depth - below, centre)
            if below:
                rest = unpack(np.frombuffer(self.lower, np.uint8), below, count).reshape(self.shape)
                codes = (codes.astype(np.uint32) * np.uint32(1 << below) + rest).astype(np.uint32)
        if count and int(codes.max()) >= self.levels:
            raise PayloadError(f"a code is {int(codes.max())}, there are {self.levels} levels")
        return codes

    def floats(self) -> Tensor:
        if self.form == _FLOATS:
            return torch.from_numpy(np.frombuffer(self.data, "<f4").astype(np.float32).reshape(self.shape))
        return torch.from_numpy(lookup(self.codes(), even_levels(self.span, self.levels)))


def read_packed(payload: memoryview, limits: Limits) -> SyntheticSet:
    """The set in ``payload``, which begins with :data:`MAGIC`; see :func:`~fedcl_distill.synthetic.decode`."""
    if len(payload) > limits.max_payload_bytes:
        raise PayloadError(f"{len(payload)} bytes, at most {limits.max_payload_bytes} are allowed")
    end = len(payload) - _CHECKSUM_BYTES
    if end < len(MAGIC) + 2 or zlib.crc32(payload[:end]) != int.from_bytes(payload[end:], "little"):
        raise PayloadError("payload is truncated or damaged: its checksum does not fit")
    reader = Reader(payload[:end], len(MAGIC))
    flags, kind = reader.take(2)
    uniform, kind = kind >= _UNIFORM, kind % _UNIFORM
    if kind > _SOFT:
        raise PayloadError("payload says something that this version does not know")
    name, settings = _read_name(reader), _read_settings(reader, flags)
    facts, provenance = _read_spec(reader, flags, limits, uniform)
    counts = _read_counts(reader, kind, len(facts["class_names"]))
    if reader.position > limits.max_metadata_bytes:
        raise PayloadError(f"header has {reader.position} bytes, at most {limits.max_metadata_bytes} are allowed")
    stored: dict[str, _Stored] = {}
    for _ in range(reader.whole(64, "the number of arrays")):
        array = _read_name(reader)
        if stored and array <= max(stored):
            raise PayloadError("arrays are not in order of their names")
        stored[array] = _read_stored(reader, limits)
    classes = len(facts["class_names"])
    labels = None if counts is not None else _read_stored(reader, limits, classes if kind == _HARD else None)
    if reader.position != end:
        raise PayloadError(f"payload has {end - reader.position} bytes after its last array")
    parameterization = build_parameterization(name, settings)
    decoded = parameterization.decoded_shape({array: one.shape for array, one in stored.items()})
    _check_sizes([*stored.values(), *([labels] if labels else [])], decoded, limits)
    return SyntheticSet(
        labels=_load_labels(labels, kind, counts, decoded[0], classes),
        arrays={array: one.floats() for array, one in stored.items()},
        parameterization=parameterization,
        spec=DataSpec(sample_shape=decoded[1:], **facts),
        provenance=provenance,
    )


def _read_name(reader: Reader) -> str:
    number = reader.whole(len(_NAMES), "the number of a name")
    return _NAMES[number - 1] if number else reader.text()


def _read_settings(reader: Reader, flags: int) -> Mapping[str, Setting]:
    if not flags & _SETTINGS:
        return {}
    pairs = reader.many(reader.whole(), lambda: (reader.text(), reader.scalar()))
    if len(dict(pairs)) != len(pairs):
        raise PayloadError("a setting is given twice")
    return dict(pairs)


def _read_spec(reader: Reader, flags: int, limits: Limits, uniform: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a DataSpec takes beside the shape of samples; and the provenance."""
    classes = reader.whole(limits.max_classes, "the number of classes")
    if classes == 0:
        raise PayloadError("there are no classes")
    names = tuple(reader.many(classes, reader.text)) if flags & _CLASS_NAMES else _numbered(classes)
    tasks = tuple(reader.many(classes, reader.signed)) if flags & _TASKS else None
    channels = reader.whole(limits.max_values, "the number of channels or features")
    if uniform and channels < 2:
        raise PayloadError("one channel needs no moments for all")
    moments = reader.reals(2 if uniform else 2 * channels)
    means, deviations = moments[: len(moments) // 2], moments[len(moments) // 2 :]
    times = channels if uniform else 1
    normalisation = Normalisation(means * times, deviations * times)
    if uniform != _is_uniform(normalisation):
        raise PayloadError("moments of all channels are written one by one")
    span = reader.reals(2) if flags & _RANGE else _UNIT
    features = tuple(reader.many(channels, reader.text)) if flags & _FEATURES else ()
    backbone = reader.text() if flags & _BACKBONE else ""
    provenance = {}
    if flags & _PROVENANCE:
        text = reader.text()
        if len(text) > limits.max_metadata_bytes:
            raise PayloadError(f"provenance is longer than {limits.max_metadata_bytes} characters")
        provenance = parse_object(text, "provenance")
    facts = {
        "class_names": names,
        "tasks": tasks,
        "normalisation": normalisation,
        "value_range": (span[0], span[1]),
        "feature_names": features,
        "backbone": backbone,
        "allow_hflip": bool(flags & _HFLIP),
    }
    return facts, provenance


def _read_counts(reader: Reader, kind: int, classes: int) -> list[int] | None:
    """Samples of each class, where these say all labels."""
    if kind == _SAME_COUNT:
        return [reader.whole()] * classes
    return reader.many(classes, reader.whole) if kind == _COUNTS else None


def _read_stored(reader: Reader, limits: Limits, levels: int | None = None) -> _Stored:
    """What is said of an array of floats, or of codes of so many ``levels``."""
    dimensions = reader.whole(_MAX_DIMENSIONS, "the number of dimensions")
    shape = tuple(reader.whole(limits.max_values, "a dimension") for _ in range(dimensions))
    count = math.prod(shape)
    if count > limits.max_values:
        raise PayloadError(f"an array has {count} values, at most {limits.max_values} are allowed")
    form, data, lower = reader.whole(_CONTEXTS, "how an array is stored"), reader.take(0), reader.take(0)
    span, most = _NOWHERE, _MAX_LABEL_DEPTH
    if form == _FLOATS:
        if levels is not None:
            raise PayloadError("labels are no float32")
        return _Stored(shape, form, 0, 0, reader.take(4 * count), lower, span)
    if levels is None:
        steps, low, high = _ARRAY.unpack(reader.take(_ARRAY.size))
        levels, span, most = steps + 1, Range(low, high), _MAX_DEPTH
    depth = _depth(levels)
    if form == _PACKED:
        (depth,) = reader.take(1)
        if not _depth(levels) <= depth <= most:
            raise PayloadError(f"{levels} levels are stored in {depth} bits")
        data = _take_packed(reader, count, depth)
    else:
        data = reader.take(reader.whole())
        lower = _take_packed(reader, count, max(depth - MAX_DEPTH, 0))
    return _Stored(shape, form, levels, depth, data, lower, span)


def _take_packed(reader: Reader, count: int, depth: int) -> memoryview:
    data = reader.take(packed_bytes(count, depth))
    if not padding_is_zero(np.frombuffer(data, np.uint8), depth, count):
        raise PayloadError("unused bits are not zero")
    return data


def _check_sizes(stored: Sequence[_Stored], decoded: Shape, limits: Limits) -> None:
    """Return if what the header declares, and what it would decode to, is within ``limits``."""
    if sum(math.prod(one.shape) for one in stored) > limits.max_values:
        raise PayloadError(f"stored arrays have more than {limits.max_values} values")
    if sum(one.coded_bits for one in stored) > limits.max_coded_bits:
        raise PayloadError(f"more than {limits.max_coded_bits} bits are entropy-coded")
    limits.check_decoded(decoded)


def _load_labels(stored: _Stored | None, kind: int, counts: list[int] | None, samples: int, classes: int) -> Tensor:
    if counts is not None:
        if sum(counts) != samples:
            raise PayloadError(f"label counts do not fit {samples} samples of {classes} classes")
        return torch.arange(classes).repeat_interleave(torch.tensor(counts))
    expected = (samples, classes) if kind == _SOFT else (samples,)
    if stored is None or stored.shape != expected:
        raise PayloadError(f"labels must have shape {expected}")
    if kind == _SOFT:
        return stored.floats()
    return torch.from_numpy(stored.codes().astype(np.int64))
