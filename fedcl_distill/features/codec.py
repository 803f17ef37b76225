"""Feature sums and heads as bytes: a binary header of less than 50 bytes, counts, and rows of few bits.

Every row is rounded on a scale of its own, so that a class with small features loses no more than one with large ones.
What both sides know (classes, dimensions, the backbone) is checked by a digest and not sent.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedcl_distill.errors import PayloadError, SettingsError
from fedcl_distill.features.heads import Head
from fedcl_distill.features.sums import Centres, Factor, FeatureSums, Gram, Second, Sketch, Squares, within_scatter
from fedcl_distill.synthetic.quantise import BITS, pack, packed_bytes, unpack

_MAGIC, _VERSION = b"FS", 1
_HEADER = struct.Struct("<2sBBBBHIIf8s")
"""Magic, version, kind, bits of means, bits of second moments, classes, dimensions, rows, residual, digest.

Behind a projection, dimensions are those that are left, and the seed stands for rows.
"""
_KINDS: tuple[type[Second] | type[Head] | None, ...] = (None, Factor, Gram, Squares, Head, Sketch, Centres)
_CENTRE = struct.Struct("<If")
"""Class and count of a cluster centre."""
_MATRIX_BITS = (4, 8, 16, 32)
_MAX_COUNT = 2**32 - 1

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Layout:
    """Which rows follow the header, and in how many bits."""

    kind: int
    bits: int
    second_bits: int
    classes: int
    dimensions: int
    rows: int
    residual: float
    digest: bytes

    def pack(self) -> bytes:
        numbers = (self.kind, self.bits, self.second_bits, self.classes, self.dimensions, self.rows, self.residual)
        return _HEADER.pack(_MAGIC, _VERSION, *numbers, self.digest)


def encode_sums(sums: FeatureSums, bits: int = 8, *, second_bits: int | None = None) -> bytes:
    """The sums as bytes; equal sums give equal bytes.

    Args:
        sums: what to encode.
        bits: of each value of class means: 2, 4, 8, 16 or 32. Four lose little, two much.
        second_bits: of each value of second moments; None takes ``bits``, and at least 8 for whole matrices, which four
            bits ruin.

    Raises:
        SettingsError: bits are none of these.
        PayloadError: a class has 2³² samples or more.
    """
    kind = _KINDS.index(None if sums.second is None else type(sums.second))
    if second_bits is None:
        second_bits = max(bits, 8) if isinstance(sums.second, Gram) else bits  # a sketch is one, too
    _check_bits(bits, second_bits, kind)
    counts = sums.counts.numpy().astype("<f4")
    if float(counts.max(initial=0)) > _MAX_COUNT:
        raise PayloadError(f"a class has more than {_MAX_COUNT:,} samples")
    if isinstance(sums.second, Centres):  # class means follow from them
        rows, before = list(sums.second.rows.numpy()), _pack_centres(sums.second)
    else:
        rows, before = _rows_of(sums), _pack_rows(list(sums.means.numpy()[counts > 0]), bits)
    layout = _Layout(
        kind=kind,
        bits=bits,
        second_bits=second_bits,
        classes=len(sums.counts),
        dimensions=sums.dimensions,
        rows=sums.second.seed if isinstance(sums.second, Sketch) else len(rows),
        residual=sums.second.residual if isinstance(sums.second, Factor | Centres) else 0.0,
        digest=_digest(sums.class_names, sums.backbone),
    )
    return b"".join([layout.pack(), counts.tobytes(), before, _pack_rows(rows, second_bits)])


def decode_sums(payload: bytes, class_names: Sequence[str], dimensions: int, backbone: str = "") -> FeatureSums:
    """The inverse of :func:`encode_sums`, for bytes that nobody vouches for.

    Args:
        payload: the bytes.
        class_names, dimensions, backbone: what the sums must be of.

    Raises:
        PayloadError: they are cut, too long, not finite, or of other classes, dimensions or another backbone.
    """
    layout = _read_layout(payload, class_names, dimensions, backbone)
    if _KINDS[layout.kind] is Head:
        raise PayloadError("the payload holds a head, not feature sums")
    reader = _Reader(payload, _HEADER.size)
    counts = np.frombuffer(reader.take(4 * layout.classes), "<f4").astype(np.float64)
    if not (np.isfinite(counts).all() and (counts >= 0).all()):
        raise PayloadError("feature sums: counts must be finite and not negative")
    size = layout.dimensions
    means = np.zeros((layout.classes, size))
    present = np.flatnonzero(counts > 0)
    second: Second | None
    if _KINDS[layout.kind] is Centres:
        second = _read_centres(reader, layout, counts)
        weighted = second.rows * second.counts[:, None]
        sums = torch.from_numpy(means).index_add(0, second.labels, weighted).numpy()
        means[present] = sums[present] / counts[present, None]
    else:
        means[present] = reader.rows([size] * len(present), layout.bits).reshape(len(present), size)
        second = _read_second(reader, layout)
    reader.end()
    if isinstance(second, Gram):  # around the means as they arrived, so that their rounding is not scatter
        second = replace(second, matrix=second.matrix + torch.from_numpy(means.T @ (means * counts[:, None])))
    if isinstance(second, Sketch):
        second = replace(second, size=dimensions)
    return FeatureSums(torch.from_numpy(counts), torch.from_numpy(means), second, tuple(class_names), backbone)


def encode_head(head: Head, bits: int = 16) -> bytes:
    """A head as bytes, with ``bits`` (2, 4, 8, 16 or 32) for each weight."""
    _check_bits(bits, bits, 0)
    rows = list(head.weight.double().numpy())
    extra = [] if head.precision is None else list(head.precision.double().numpy())
    layout = _Layout(
        kind=_KINDS.index(Head),
        bits=bits,
        second_bits=bits,
        classes=len(rows),
        dimensions=head.weight.shape[1],
        rows=len(extra),
        residual=0.0,
        digest=_digest(head.class_names, head.backbone),
    )
    return layout.pack() + head.bias.numpy().astype("<f4").tobytes() + _pack_rows(rows, bits) + _pack_rows(extra, bits)


def decode_head(payload: bytes, class_names: Sequence[str], dimensions: int, backbone: str = "") -> Head:
    """The inverse of :func:`encode_head`; PayloadError as for :func:`decode_sums`."""
    layout = _read_layout(payload, class_names, dimensions, backbone)
    if _KINDS[layout.kind] is not Head:
        raise PayloadError("the payload holds feature sums, not a head")
    if layout.rows not in (0, layout.classes):
        raise PayloadError(f"a head of {layout.classes} classes has {layout.rows} rows of precision")
    reader = _Reader(payload, _HEADER.size)
    bias = np.frombuffer(reader.take(4 * layout.classes), "<f4")
    if np.isnan(bias).any() or np.isposinf(bias).any():
        raise PayloadError("a head's bias must be finite, or minus infinity for a class it does not know")
    weight = reader.rows([dimensions] * layout.classes, layout.bits).reshape(layout.classes, dimensions)
    extra = reader.rows([dimensions] * layout.rows, layout.bits).reshape(layout.rows, dimensions)
    reader.end()
    precision = torch.from_numpy(extra.astype(np.float32)) if layout.rows else None
    weights = torch.from_numpy(weight.astype(np.float32))
    return Head(weights, torch.from_numpy(bias.astype(np.float32)), tuple(class_names), backbone, precision)


def encoded_size(
    classes: int,
    dimensions: int,
    kind: type[Second] | None = None,
    bits: int = 8,
    second_bits: int = 8,
    *,
    rows: int = 0,
    present: int | None = None,
) -> int:
    """Bytes of encoded sums of ``classes`` classes.

    Args:
        classes: of the data.
        dimensions: of features, behind a projection if there is one.
        kind: of second moments; None for means alone.
        bits, second_bits: as of :func:`encode_sums`.
        rows: directions of a :class:`~fedcl_distill.features.sums.Factor`, or centres of all classes together.
        present: classes that have a sample; None takes all.
    """
    means = classes if present is None else present
    lengths: dict[type[Second] | None, list[int]] = {
        None: [],
        Factor: [dimensions] * rows,
        Gram: _matrix_rows(dimensions),
        Sketch: _matrix_rows(dimensions),
        Squares: [dimensions] * classes,
        Centres: [dimensions] * rows,
    }
    second = sum(row_bytes(length, second_bits) for length in lengths[kind])
    first = rows * _CENTRE.size if kind is Centres else means * row_bytes(dimensions, bits) if dimensions else 0
    return _HEADER.size + 4 * classes + first + second


def _check_bits(bits: int, second_bits: int, kind: int) -> None:
    for what, given in (("bits", bits), ("second_bits", second_bits)):
        if given not in BITS:
            raise SettingsError(f"feature sums: {what} must be one of {BITS}, got {given!r}")
    if _KINDS[kind] in (Gram, Sketch) and second_bits not in _MATRIX_BITS:
        raise SettingsError(f"a whole matrix needs second_bits out of {_MATRIX_BITS}, got {second_bits}")


def _rows_of(sums: FeatureSums) -> list[Floats]:
    """Second moments as rows.

    Of a whole matrix these are deviations within classes, and correlations below the diagonal: they are all of one
    size, where second moments around 0 are mostly products of means, and rounding them loses what tells classes apart.
    """
    second = sums.second
    if second is None:
        return []
    if isinstance(second, Factor):
        return list(second.rows.numpy())
    if isinstance(second, Squares):
        return list(second.squares.numpy())
    scatter = within_scatter(sums)
    assert isinstance(scatter, Tensor)
    deviations = scatter.diagonal().clamp(min=0).sqrt()
    inverse = torch.where(deviations > 0, 1 / deviations, torch.zeros_like(deviations))
    correlations = (scatter * inverse[:, None] * inverse).clamp(-1, 1).numpy()
    return [deviations.numpy(), *(row[:index] for index, row in enumerate(correlations) if index)]


def _pack_centres(second: Centres) -> bytes:
    pairs = zip(second.labels.tolist(), second.counts.tolist(), strict=True)
    return b"".join(_CENTRE.pack(label, count) for label, count in pairs)


def _read_centres(reader: _Reader, layout: _Layout, counts: Floats) -> Centres:
    """Centres whose counts are those of their classes."""
    pairs = list(_CENTRE.iter_unpack(reader.take(_CENTRE.size * layout.rows)))
    labels = np.array([label for label, _ in pairs], np.int64)
    sizes = np.array([count for _, count in pairs], np.float64)
    if labels.size and not (np.diff(labels, prepend=0) >= 0).all():
        raise PayloadError("feature sums: centres are not in order of class")
    if not (np.isfinite(sizes).all() and (sizes > 0).all() and labels.max(initial=0) < layout.classes):
        raise PayloadError("feature sums: a centre stands for a class or a number of samples that cannot be")
    together = np.bincount(labels, sizes, minlength=layout.classes)
    if not np.allclose(together, counts, rtol=1e-4, atol=0):
        raise PayloadError("feature sums: centres of a class stand for more or fewer samples than it has")
    rows = reader.rows([layout.dimensions] * layout.rows, layout.second_bits).reshape(layout.rows, layout.dimensions)
    if not 0 <= layout.residual < math.inf:
        raise PayloadError("feature sums: the residual must be finite and not negative")
    return Centres(torch.from_numpy(rows), torch.from_numpy(labels), torch.from_numpy(sizes), layout.residual)


def _read_second(reader: _Reader, layout: _Layout) -> Second | None:
    """Second moments; those of a whole matrix are still around the means of classes."""
    kind, size = _KINDS[layout.kind], layout.dimensions
    if kind is None:
        return None
    if kind is Factor:
        rows = reader.rows([size] * layout.rows, layout.second_bits).reshape(layout.rows, size)
        if not 0 <= layout.residual < math.inf:
            raise PayloadError("feature sums: the residual must be finite and not negative")
        return Factor(torch.from_numpy(rows), layout.residual)
    if kind is Squares:
        squares = reader.rows([size] * layout.classes, layout.second_bits).reshape(layout.classes, size)
        return Squares(torch.from_numpy(squares).clamp(min=0))
    values = reader.rows(_matrix_rows(size), layout.second_bits)
    deviations, correlations = values[:size], np.zeros((size, size))
    correlations[np.tril_indices(size, -1)] = values[size:]
    correlations += correlations.T + np.eye(size)
    matrix = torch.from_numpy(correlations * deviations[:, None] * deviations)
    return Sketch(matrix, seed=layout.rows) if kind is Sketch else Gram(matrix)


def _matrix_rows(size: int) -> list[int]:
    """Lengths of the rows of a whole matrix: deviations, then correlations below the diagonal."""
    return [size, *range(1, size)]


def _read_layout(payload: bytes, class_names: Sequence[str], dimensions: int, backbone: str) -> _Layout:
    if len(payload) < _HEADER.size:
        raise PayloadError(f"feature sums: {len(payload)} bytes are less than a header")
    magic, version, kind, bits, second_bits, classes, size, rows, residual, digest = _HEADER.unpack_from(payload)
    if magic != _MAGIC or version != _VERSION:
        raise PayloadError("these bytes are no feature sums of version 1")
    layout = _Layout(kind, bits, second_bits, classes, size, rows, residual, digest)
    if layout.kind >= len(_KINDS) or layout.bits not in BITS or layout.second_bits not in BITS:
        raise PayloadError("feature sums: unknown kind or bits")
    fits = layout.dimensions == dimensions
    if _KINDS[layout.kind] is Sketch:
        fits = 0 < layout.dimensions < dimensions
    if layout.classes != len(class_names) or not fits:
        raise PayloadError(
            f"feature sums of {layout.classes} classes and {layout.dimensions} dimensions, expected "
            f"{len(class_names)} and {dimensions}"
        )
    if digest != _digest(class_names, backbone):
        raise PayloadError("feature sums: made with other class names, or with another backbone")
    return layout


def _digest(class_names: Sequence[str], backbone: str) -> bytes:
    """8 bytes that name the classes in their order, and the backbone."""
    return hashlib.sha256("\0".join([backbone, *class_names]).encode()).digest()[:8]


def row_bytes(length: int, bits: int) -> int:
    """Bytes of a row of so many values in so many bits each, with its scale."""
    if bits == 32:
        return 4 * length
    return 4 + (2 * length if bits == 16 else packed_bytes(length, bits) if bits < 8 else length)


def _pack_rows(rows: Sequence[Floats], bits: int) -> bytes:
    """Every row: its largest absolute value as float32, then whole multiples of a step from minus it to it."""
    if bits == 32:
        return b"".join(row.astype("<f4").tobytes() for row in rows)
    half = 2 ** (bits - 1) - 1
    parts = []
    for row in rows:
        scale = np.float32(np.abs(row).max(initial=0.0))
        steps = np.rint(row / float(scale) * half) if scale > 0 else np.zeros_like(row)
        codes = (np.clip(steps, -half, half) + half).astype("<u2" if bits == 16 else np.uint8)
        parts.append(scale.tobytes() + (pack(codes, bits).tobytes() if bits < 8 else codes.tobytes()))
    return b"".join(parts)


class _Reader:
    """Takes bytes from a payload, never more than there are."""

    def __init__(self, payload: bytes, start: int) -> None:
        self._payload, self._at = payload, start

    def take(self, count: int) -> bytes:
        part = self._payload[self._at : self._at + count]
        if len(part) < count:
            raise PayloadError("feature sums: the payload is cut")
        self._at += count
        return part

    def rows(self, lengths: Sequence[int], bits: int) -> Floats:
        """float64: all rows, one after the other; what is missing is found before anything is made."""
        needed = sum(row_bytes(length, bits) for length in lengths)
        if needed > len(self._payload) - self._at:
            raise PayloadError("feature sums: the payload is cut")
        found = [self._row(length, bits) for length in lengths]
        values: Floats = np.concatenate(found) if found else np.zeros(0)
        if not np.isfinite(values).all():
            raise PayloadError("feature sums hold NaN or infinity")
        return values

    def end(self) -> None:
        if self._at != len(self._payload):
            raise PayloadError(f"feature sums: {len(self._payload) - self._at} bytes too many")

    def _row(self, length: int, bits: int) -> Floats:
        if bits == 32:
            return np.frombuffer(self.take(4 * length), "<f4").astype(np.float64)
        half = 2 ** (bits - 1) - 1
        scale = float(np.frombuffer(self.take(4), "<f4")[0])
        raw = self.take(row_bytes(length, bits) - 4)
        packed = np.frombuffer(raw, "<u2" if bits == 16 else np.uint8)
        codes = unpack(packed, bits, length) if bits < 8 else packed
        if codes.max(initial=0) > 2 * half or scale < 0:
            raise PayloadError("feature sums: a value is out of its row's range")
        values: Floats = (codes.astype(np.float64) - half) * (scale / half)
        return values
