"""Synthetic sets to bytes and back: the same format on the wire and in a file."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from typing import Any, Literal, ParamSpec, TypeVar, get_args

import numpy as np
import torch
from torch import Tensor

from fedcl_distill.data.spec import DataSpec, Normalisation
from fedcl_distill.errors import DataError, PayloadError, SettingsError, StorageError
from fedcl_distill.files import place, write_atomically
from fedcl_distill.parameterizations import Parameterization, Setting, Shape, build_parameterization, stored_settings
from fedcl_distill.synthetic.container import (
    DEFAULT_LIMITS,
    Limits,
    MatchContext,
    Spec,
    compact,
    container_header,
    parse_object,
    read_container,
    read_shape,
    write_container,
)
from fedcl_distill.synthetic.packed import is_packed_format, read_packed, write_parts
from fedcl_distill.synthetic.quantise import (
    BITS,
    Floats,
    Range,
    check_bits,
    dequantise,
    error_bound,
    is_packed,
    label_bits,
    pack,
    packed_bytes,
    quantise,
    unpack,
)
from fedcl_distill.synthetic.set import SyntheticSet

LABELS, NORMALISATION = "labels", "normalisation"
STORED_DTYPES: dict[int, np.dtype[Any]] = {
    2: np.dtype("<u1"),
    4: np.dtype("<u1"),
    8: np.dtype("<u1"),
    16: np.dtype("<u2"),
    32: np.dtype("<f4"),
}


_FLOATS = (np.dtype("<f4"), np.dtype("<f8"))


def label_dtype(classes: int) -> np.dtype[Any]:
    """The smallest unsigned integers, little-endian, that hold every label of so many classes."""
    return np.min_scalar_type(classes - 1).newbyteorder("<")


FORMATS = (1, 2)
"""In format 2 the normalisation is an array, because the header would need more bytes for it."""
HARD, SOFT = "hard", "soft"
_REQUIRED = {"format", "bits", "store", "classes", "labels", "range"}
_MOMENTS = {"mean", "std"}  # required in format 1 only
_OPTIONAL = {"settings", "ranges", "shapes", "provenance", "hflip", "tasks", "backbone", "features"}


@dataclass(frozen=True)
class Header:
    """What the metadata text says.

    Attributes:
        bits: depth of the stored arrays.
        parameterization: its name; ``settings`` rebuild it, with its defaults for those that are absent.
        class_names: one name a class. The names "0", "1", … travel as their count.
        labels: "hard" or "soft" if there is an array of labels; the number of samples of each class if there
            is none because samples are ordered by class.
        normalisation: None where it is an array of the container (format 2).
        value_range: of the real data, in unit values.
        ranges: of each quantised array.
        shapes: of each array stored as a flat run of packed codes.
        provenance: as given.
        allow_hflip, tasks, backbone, feature_names: as in :class:`~fedcl_distill.data.DataSpec`; left out of the text
            where they are its defaults. Feature names describe, as provenance does, and travel with it.
    """

    bits: int
    parameterization: str
    class_names: tuple[str, ...]
    labels: str | tuple[int, ...]
    normalisation: Normalisation | None
    value_range: tuple[float, float]
    settings: Mapping[str, Setting] = field(default_factory=dict)
    ranges: Mapping[str, Range] = field(default_factory=dict)
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    allow_hflip: bool = False
    tasks: tuple[int, ...] | None = None
    backbone: str = ""
    feature_names: tuple[str, ...] = ()

    def spec(self, sample_shape: Shape, normalisation: Normalisation) -> DataSpec:
        """What the header says of the data, with what only the arrays say."""
        return DataSpec(
            sample_shape=tuple(sample_shape),
            class_names=self.class_names,
            normalisation=normalisation,
            value_range=self.value_range,
            allow_hflip=self.allow_hflip,
            tasks=self.tasks,
            backbone=self.backbone,
            feature_names=self.feature_names,
        )

    def to_text(self) -> str:
        """Compact JSON; raises PayloadError if the provenance is no JSON."""
        count = len(self.class_names)
        optional = {
            "settings": dict(self.settings),
            "ranges": {name: span.to_text() for name, span in self.ranges.items()},
            "shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "provenance": dict(self.provenance),
            "hflip": self.allow_hflip,
            "tasks": list(self.tasks or ()),
            "backbone": self.backbone,
            "features": list(self.feature_names),
        }
        required = {
            "format": 2 if self.normalisation is None else 1,
            "bits": self.bits,
            "store": self.parameterization,
            "classes": count if self.class_names == numbered(count) else list(self.class_names),
            "labels": self.labels if isinstance(self.labels, str) else list(self.labels),
            "range": [float(value) for value in self.value_range],
            **_moments(self.normalisation),
        }
        return compact(required | {key: value for key, value in optional.items() if value})

    @classmethod
    def from_text(cls, text: str, limits: Limits) -> Header:
        """The inverse of :meth:`to_text` for untrusted text; raises PayloadError on anything out of place."""
        raw = parse_object(text, "metadata")
        _check_keys(raw)
        low, high = read_numbers(raw, "range", 2)
        if low > high:
            raise PayloadError(f"metadata: value range must ascend, got [{low}, {high}]")
        return cls(
            bits=raw["bits"],
            parameterization=_string(raw, "store"),
            class_names=read_class_names(raw["classes"], limits),
            labels=_labels(raw["labels"]),
            normalisation=_read_moments(raw) if raw["format"] == 1 else None,
            value_range=(low, high),
            settings=_settings(read_mapping(raw, "settings")),
            ranges={name: Range.from_text(span) for name, span in read_mapping(raw, "ranges").items()},
            shapes={name: read_shape(name, shape, limits) for name, shape in read_mapping(raw, "shapes").items()},
            provenance=read_mapping(raw, "provenance"),
            allow_hflip=_flag(raw, "hflip"),
            tasks=_tasks(raw),
            backbone=_string(raw, "backbone") if "backbone" in raw else "",
            feature_names=_feature_names(raw),
        )


def _moments(normalisation: Normalisation | None) -> dict[str, list[float]]:
    if normalisation is None:
        return {}
    return {"mean": list(map(float, normalisation.mean)), "std": list(map(float, normalisation.std))}


def _read_moments(raw: dict[str, Any]) -> Normalisation:
    mean = read_numbers(raw, "mean")
    return Normalisation(mean, read_numbers(raw, "std", len(mean)))


def _flag(raw: dict[str, Any], key: str) -> bool:
    if type(raw.get(key, False)) is not bool:
        raise PayloadError(f"metadata: {key} must be true or false")
    return bool(raw.get(key, False))


def _tasks(raw: dict[str, Any]) -> tuple[int, ...] | None:
    tasks = raw.get("tasks")
    if tasks is not None and not (isinstance(tasks, list) and all(type(task) is int for task in tasks)):
        raise PayloadError("metadata: tasks must be whole numbers")
    return None if tasks is None else tuple(tasks)


def _feature_names(raw: dict[str, Any]) -> tuple[str, ...]:
    names = raw.get("features", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise PayloadError("metadata: names of features must be strings")
    return tuple(names)


def numbered(count: int) -> tuple[str, ...]:
    """The names "0", "1", … of so many classes."""
    return tuple(str(label) for label in range(count))


def _check_keys(raw: dict[str, Any]) -> None:
    version = raw.get("format")
    if type(version) is not int or version not in FORMATS:
        raise PayloadError(f"metadata: format {version!r} is unknown, expected one of {FORMATS}")
    required = _REQUIRED | _MOMENTS if version == 1 else _REQUIRED
    missing, superfluous = required - set(raw), set(raw) - required - _OPTIONAL
    if missing or superfluous:
        raise PayloadError(f"metadata: missing {sorted(missing)}, superfluous {sorted(superfluous)}")
    if type(raw["bits"]) is not int or raw["bits"] not in BITS:
        raise PayloadError(f"metadata: bits must be one of {BITS}, got {raw['bits']!r}")


def read_class_names(classes: Any, limits: Limits) -> tuple[str, ...]:
    """Names from their list, or from their number; PayloadError if it is neither."""
    count = len(classes) if isinstance(classes, list) else classes
    if type(count) is not int or not 1 <= count <= limits.max_classes:
        raise PayloadError(f"metadata: number of classes must be in [1, {limits.max_classes}], got {count!r}")
    if not isinstance(classes, list):
        return numbered(count)
    if not all(isinstance(name, str) for name in classes):
        raise PayloadError("metadata: class names must be strings")
    return tuple(classes)


def _labels(labels: Any) -> str | tuple[int, ...]:
    if isinstance(labels, str) and labels in (HARD, SOFT):
        return labels
    if isinstance(labels, list) and all(type(count) is int and count >= 0 for count in labels):
        return tuple(labels)
    raise PayloadError(f"metadata: labels must be {HARD!r}, {SOFT!r} or a count a class, got {labels!r}")


def read_numbers(raw: dict[str, Any], key: str, count: int | None = None) -> tuple[float, ...]:
    """``count`` finite numbers, or any number of them; PayloadError if ``raw[key]`` is something else."""
    values = raw[key]
    if not isinstance(values, list) or not all(type(value) in (int, float) for value in values):
        raise PayloadError(f"metadata: {key} must be a list of numbers")
    if count is not None and len(values) != count:
        raise PayloadError(f"metadata: {key} needs {count} numbers, got {len(values)}")
    try:
        numbers = tuple(float(value) for value in values)
    except OverflowError as error:
        raise PayloadError(f"metadata: {key} holds a number out of range") from error
    if not all(math.isfinite(value) for value in numbers):
        raise PayloadError(f"metadata: {key} must be finite")
    return numbers


def _string(raw: dict[str, Any], key: str) -> str:
    if not isinstance(raw[key], str):
        raise PayloadError(f"metadata: {key} must be a string, got {raw[key]!r}")
    return str(raw[key])


def read_mapping(raw: dict[str, Any], key: str) -> dict[str, Any]:
    """The object at ``key``, empty if there is none; PayloadError if it is something else."""
    value = raw.get(key, {})
    if not isinstance(value, dict):
        raise PayloadError(f"metadata: {key} must be an object")
    return value


def _settings(settings: dict[str, Any]) -> dict[str, Setting]:
    for name, value in settings.items():
        if not isinstance(value, str | int | float | bool | None):
            raise PayloadError(f"metadata: setting {name!r} must be a single value")
    return settings


_ARRAY_ENTRY_BYTES = 64  # about what the container's header says about an array


@dataclass(frozen=True)
class PayloadBytes:
    """Where a payload's bytes go: ``arrays``, ``labels`` (0 if the header counts them) and ``header``.

    Shapes and ranges of arrays count as part of the header for safetensors, and of the arrays else. The normalisation
    counts as part of the header, also where it travels as an array.
    """

    arrays: int
    labels: int
    header: int

    @property
    def total(self) -> int:
        return self.arrays + self.labels + self.header


Encoding = Literal["smallest", "fixed", "safetensors"]
_PRIVACY = "privacy"  # what provenance calls a guarantee


def encode(synthetic: SyntheticSet, bits: int = 8, *, provenance: bool = True, coding: Encoding | None = None) -> bytes:
    """The set as bytes. Equal sets give equal bytes; encoding what was decoded gives the same bytes again.

    Args:
        synthetic: what to encode. Its arrays may live on any device.
        bits: 32 keeps every float32 as it is; 16, 8, 4 and 2 store each value as the nearest of ``2**bits`` even
            steps over its array's [min, max] (see :func:`quantisation_error`). A constant array stays exact, and in
            formats but safetensors every array whose values lie on fewer even steps.
            Soft labels get ``max(bits, 8)`` bits. Hard labels are exact.
        provenance: whether ``synthetic.provenance`` and names of features travel too.
        coding: "smallest" codes what can be told from values before, without loss, about 5 microseconds for each
            bit of a value; the size then depends on the values. "fixed" does not: the size is that of any set of this
            shape, and never less than the smallest. "safetensors" is a container that the library of that name
            reads, with a header of 300 bytes and more, of a size that does not depend on values either. None takes
            "fixed" where provenance tells of a privacy guarantee, for a length tells of the content, and else
            "smallest".

    The normalisation travels exactly: each number in decimal, as float32 or as float64, whichever is shortest.

    Raises:
        SettingsError: ``bits`` is none of 2, 4, 8, 16, 32, or there is no such coding.
        PayloadError: the provenance, class names or settings cannot be written as JSON.
        DataError: a stored array is called ``labels`` (or, for safetensors, ``normalisation``), which is taken.
    """
    chosen = coding_for(synthetic, coding)
    check_bits(bits)
    if chosen != "safetensors":
        return write_parts(synthetic, bits, provenance=provenance, coding=chosen).joined()
    values, header = _plan(synthetic, bits, provenance)
    return write_container({name: _store(name, values[name], header) for name in values}, header.to_text())


def coding_for(synthetic: SyntheticSet, coding: Encoding | None) -> Encoding:
    """``coding``; in place of None what :func:`encode` takes for this set.

    Raises:
        SettingsError: there is no such coding.
    """
    if coding is None:
        return "fixed" if _PRIVACY in synthetic.provenance else "smallest"
    if coding not in get_args(Encoding):
        raise SettingsError(f"coding must be one of {', '.join(get_args(Encoding))}, got {coding!r}")
    return coding


def encoded_bytes(
    synthetic: SyntheticSet, bits: int = 8, *, provenance: bool = True, coding: Encoding | None = None
) -> int:
    """Exact size of :func:`encode`'s result, in bytes.

    With coding "fixed" and "safetensors" stored values do not matter: a set of zeros answers for one that is still to
    be distilled, and "fixed" is a bound on "smallest". Beside arrays and labels "fixed" has 20 to 40 bytes for images,
    plus provenance and class names other than "0", "1", ….
    """
    return payload_bytes(synthetic, bits, provenance=provenance, coding=coding).total


def payload_bytes(
    synthetic: SyntheticSet, bits: int = 8, *, provenance: bool = True, coding: Encoding | None = None
) -> PayloadBytes:
    """:func:`encoded_bytes`, split into arrays, labels and header."""
    chosen = coding_for(synthetic, coding)
    check_bits(bits)
    if chosen != "safetensors":
        parts = write_parts(synthetic, bits, provenance=provenance, coding=chosen)
        named = len(parts.arrays) + len(parts.labels)
        return PayloadBytes(len(parts.arrays), len(parts.labels), len(parts.joined()) - named)
    values, header = _plan(synthetic, bits, provenance)
    specs = {name: _spec(name, values[name], header) for name in values}
    labels, normalisation = (specs[name].nbytes if name in specs else 0 for name in (LABELS, NORMALISATION))
    return PayloadBytes(
        arrays=sum(spec.nbytes for spec in specs.values()) - labels - normalisation,
        labels=labels,
        header=len(container_header(specs, header.to_text())) + normalisation,
    )


def quantisation_error(synthetic: SyntheticSet, bits: int) -> dict[str, float]:
    """Largest absolute change of a stored value by :func:`encode`, for each array and for soft ``labels``.

    In the unit of stored values: ``(max - min) / (2 * (2**bits - 1))`` plus float32 rounding; 0 at 32 bits.

    Raises:
        SettingsError: ``bits`` is none of 2, 4, 8, 16, 32.
    """
    check_bits(bits)
    errors = {name: error_bound(Range.of(_to_numpy(a)), bits) for name, a in synthetic.arrays.items()}
    if synthetic.labels.ndim == 2:
        errors[LABELS] = error_bound(Range.of(_to_numpy(synthetic.labels)), label_bits(bits))
    return errors


def _plan(synthetic: SyntheticSet, bits: int, provenance: bool) -> tuple[dict[str, MatchContext], Header]:
    """What is to be stored, by name and not yet quantised, and the header that tells how."""
    check_bits(bits)
    for taken in (LABELS, NORMALISATION):
        if taken in synthetic.arrays:
            raise DataError(f"synthetic set: no stored array may be called {taken!r}")
    arrays = {name: _to_numpy(array) for name, array in synthetic.arrays.items()}
    labels = _how_labels_travel(synthetic)
    values: dict[str, MatchContext] = dict(arrays)
    if labels == SOFT:
        values[LABELS] = _to_numpy(synthetic.labels)
    header = Header(
        bits=bits,
        parameterization=synthetic.parameterization.name,
        settings=stored_settings(synthetic.parameterization),
        class_names=synthetic.class_names,
        labels=labels,
        normalisation=None if (as_array := _normalisation_array(synthetic)) is not None else synthetic.normalisation,
        value_range=synthetic.value_range,
        ranges={name: Range.of(array) for name, array in values.items()} if bits < 32 else {},
        shapes={name: array.shape for name, array in arrays.items()} if is_packed(bits) else {},
        provenance=synthetic.provenance if provenance else {},
        allow_hflip=synthetic.allow_hflip,
        tasks=synthetic.spec.tasks,
        backbone=synthetic.spec.backbone,
        feature_names=synthetic.spec.feature_names if provenance else (),
    )
    if as_array is not None:
        values[NORMALISATION] = as_array
    if labels == HARD:
        values[LABELS] = synthetic.labels.cpu().numpy().astype(label_dtype(synthetic.num_classes))
    return values, header


def _normalisation_array(synthetic: SyntheticSet) -> MatchContext | None:
    """float32 or float64 (2, features): mean and deviation of feature vectors, where text would take more bytes.

    (2, 1) where all features have the same, as those of a frozen backbone do.
    """
    if synthetic.is_image:
        return None
    moments = synthetic.normalisation
    exact = np.array([moments.mean, moments.std], dtype="<f8")
    if bool((exact == exact[:, :1]).all()):
        exact = exact[:, :1]
    array = single if np.array_equal(single := exact.astype("<f4"), exact) else exact
    return array if array.nbytes + _ARRAY_ENTRY_BYTES < len(compact(_moments(moments))) else None


def _how_labels_travel(synthetic: SyntheticSet) -> str | tuple[int, ...]:
    labels = synthetic.labels
    if labels.ndim == 2:
        return SOFT
    in_order = bool((labels[1:] >= labels[:-1]).all())
    # A count takes two bytes of the header, an array one byte a label and its entry in the container.
    if in_order and 2 * synthetic.num_classes <= len(labels) + _ARRAY_ENTRY_BYTES:
        return tuple(synthetic.class_counts.tolist())
    return HARD


def _depth(name: str, header: Header) -> int:
    """Bits of a value of the array ``name``, hard labels excepted."""
    return label_bits(header.bits) if name == LABELS else header.bits


def _spec(name: str, values: MatchContext, header: Header) -> Spec:
    """What :func:`_store` will give, without the work."""
    if name == NORMALISATION or (name == LABELS and header.labels == HARD):
        return Spec(values.dtype, values.shape)
    bits = _depth(name, header)
    return Spec(STORED_DTYPES[bits], (packed_bytes(values.size, bits),) if is_packed(bits) else values.shape)


def _store(name: str, values: MatchContext, header: Header) -> MatchContext:
    """The array that goes into the container for ``values``."""
    spec = _spec(name, values, header)
    if name in header.ranges:
        bits = _depth(name, header)
        codes = quantise(values, header.ranges[name], bits)
        values = pack(codes, bits) if is_packed(bits) else codes
    return values.astype(spec.dtype, copy=False)


def _to_numpy(array: Tensor) -> Floats:
    values: Floats = array.detach().cpu().numpy()
    return values


P = ParamSpec("P")
T = TypeVar("T")
_MAX_MESSAGE = 300  # characters of an error: a hostile payload chooses the names that errors repeat


def as_payload_error(decoder: Callable[P, T]) -> Callable[P, T]:
    """``decoder``, out of which no other exception comes than a PayloadError of bounded length.

    A hostile payload may provoke any error in what reads it; callers need to handle only one.
    """

    @wraps(decoder)
    def guarded(*args: P.args, **settings: P.kwargs) -> T:
        try:
            return decoder(*args, **settings)
        except PayloadError as error:
            raise PayloadError(_clipped(error)) from error
        except Exception as error:
            raise PayloadError(f"payload cannot be decoded: {_clipped(error)}") from error

    return guarded


@as_payload_error
def decode(payload: bytes | bytearray | memoryview, limits: Limits = DEFAULT_LIMITS) -> SyntheticSet:
    """The set that :func:`encode` wrote, float32 on the CPU. Safe on bytes from anyone.

    Every size is checked against ``limits`` and against the bytes present before anything of that size is
    allocated. A set without samples decodes; whether it is welcome is for an
    :class:`~fedcl_distill.synthetic.Expectation` to say.

    Raises:
        PayloadError: whatever is wrong with the payload; no other exception leaves this function.
    """
    view = memoryview(payload)
    if is_packed_format(view):
        return read_packed(view, limits)
    stored, text = read_container(payload, limits)
    header = Header.from_text(text, limits)
    labels, moments = stored.pop(LABELS, None), stored.pop(NORMALISATION, None)
    parameterization = build_parameterization(header.parameterization, header.settings)
    decoded = _check_sizes(stored, header, parameterization, limits)
    return SyntheticSet(
        labels=_load_labels(labels, header, decoded[0]),
        arrays={name: _load_array(name, view, header, header.bits) for name, view in stored.items()},
        parameterization=parameterization,
        spec=header.spec(decoded[1:], _load_normalisation(moments, header, decoded[1], limits)),
        provenance=header.provenance,
    )


def _check_sizes(stored: dict[str, MatchContext], header: Header, how: Parameterization, limits: Limits) -> Shape:
    """Shape of the decoded samples, (n, …), after everything that the arrays declare was held against ``limits``."""
    quantised = {*stored, LABELS} if header.labels == SOFT else set(stored)
    _check_names("ranges", set(header.ranges), quantised if header.bits < 32 else set())
    _check_names("shapes", set(header.shapes), set(stored) if is_packed(header.bits) else set())
    shapes = {name: _check_array(name, view, header) for name, view in stored.items()}
    if sum(map(math.prod, shapes.values())) > limits.max_values:
        raise PayloadError(f"stored arrays have more than {limits.max_values} values")
    decoded = how.decoded_shape(shapes)
    limits.check_decoded(decoded)
    return decoded


def _load_normalisation(array: MatchContext | None, header: Header, features: int, limits: Limits) -> Normalisation:
    """What the header says, or the array that says it in its place, for all features or for each."""
    if header.normalisation is not None:
        if array is not None:
            raise PayloadError("normalisation travels twice")
        return header.normalisation
    if array is None or array.dtype not in _FLOATS or array.ndim != 2 or len(array) != 2:
        raise PayloadError("normalisation must be an array of float32 or float64, (2, features) or (2, 1)")
    if array.shape[1] == 1 and features <= limits.max_values:
        array = array.repeat(features, axis=1)
    mean, std = array.astype(np.float64).tolist()
    return Normalisation(tuple(mean), tuple(std))


def _check_names(what: str, given: set[str], expected: set[str]) -> None:
    if given != expected:
        raise PayloadError(f"metadata: {what} for {sorted(given)}, expected for {sorted(expected)}")


def _check_array(name: str, view: MatchContext, header: Header) -> Shape:
    """Shape of the values that ``view`` stands for, once its declared sizes agree with each other."""
    _check_dtype(name, view, STORED_DTYPES[header.bits])
    if not is_packed(header.bits):
        return view.shape
    shape = header.shapes[name]
    if view.shape != (packed_bytes(math.prod(shape), header.bits),):
        raise PayloadError(f"array {name!r} holds bytes {view.shape} for {header.bits}-bit values of shape {shape}")
    return shape


def _check_dtype(name: str, view: MatchContext, expected: np.dtype[Any]) -> None:
    if view.dtype != expected:
        raise PayloadError(f"array {name!r} has dtype {view.dtype}, expected {expected}")


def _load_array(name: str, view: MatchContext, header: Header, bits: int) -> Tensor:
    if bits == 32:
        return torch.from_numpy(view.astype(np.float32))
    if is_packed(bits):
        shape = header.shapes[name]
        view = unpack(view, bits, math.prod(shape)).reshape(shape)
    return torch.from_numpy(dequantise(view, header.ranges[name], bits))


def _load_labels(view: MatchContext | None, header: Header, samples: int) -> Tensor:
    classes = len(header.class_names)
    if isinstance(header.labels, tuple):
        if view is not None:
            raise PayloadError("payload has an array of labels that its header does not announce")
        if len(header.labels) != classes or sum(header.labels) != samples:
            raise PayloadError(f"label counts do not fit {samples} samples of {classes} classes")
        return torch.arange(classes).repeat_interleave(torch.tensor(header.labels))
    expected = (samples, classes) if header.labels == SOFT else (samples,)
    if view is None or view.shape != expected:
        found = "there are none" if view is None else f"their shape is {view.shape}"
        raise PayloadError(f"labels must have shape {expected}, {found}")
    if header.labels == SOFT:
        bits = label_bits(header.bits)
        _check_dtype(LABELS, view, STORED_DTYPES[bits])
        return _load_array(LABELS, view, header, bits)
    _check_dtype(LABELS, view, label_dtype(classes))
    return torch.from_numpy(view.astype(np.int64))


def _clipped(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return text if len(text) <= _MAX_MESSAGE else f"{text[:_MAX_MESSAGE]}…"


def save(
    synthetic: SyntheticSet, path: str | os.PathLike[str], bits: int = 32, *, coding: Encoding = "safetensors"
) -> int:
    """Write ``synthetic`` to ``path`` (usually ``*.safetensors``) and return the file's size in bytes.

    A crash leaves the older file or the new one, never a part. The file says how to train on the set, wherever it gets
    to: the provenance of what is read has a ``recipe`` (:func:`~fedcl_distill.synthetic.recipe.recipe`).

    Raises:
        StorageError: the file could not be written.
        SettingsError, PayloadError, DataError: as for :func:`~fedcl_distill.synthetic.encode`.
    """
    from fedcl_distill.synthetic.recipe import recipe  # here: it imports training, which decoding does without

    told = synthetic.provenance if len(synthetic) == 0 else {**synthetic.provenance, "recipe": recipe(synthetic)}
    payload = encode(replace(synthetic, provenance=told), bits, coding=coding)
    write_atomically(path, payload)
    return len(payload)


def load(path: str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS) -> SyntheticSet:
    """Read a set that :func:`save` wrote; safe on files from anyone, as ``decode`` is on bytes.

    Raises:
        StorageError: there is no such file, or it cannot be read.
        PayloadError: its content is not a synthetic set within ``limits``; a file too large is never read.
    """
    content = read_bounded(place(path), limits.max_payload_bytes)
    try:
        return decode(content, limits)
    except PayloadError as error:
        raise PayloadError(f"{path}: {error}") from error


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """The file's content; PayloadError if it is larger, or no file, and StorageError if it cannot be read."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise PayloadError(f"{path} is not a file")
        if status.st_size > max_bytes:
            raise PayloadError(f"{path} has {status.st_size} bytes, at most {max_bytes} are allowed")
        with path.open("rb") as stream:
            return stream.read(max_bytes + 1)  # one more than allowed: a file that grew meanwhile is noticed
    except OSError as error:
        raise StorageError(f"could not read {path}: {error.strerror or error}") from error
