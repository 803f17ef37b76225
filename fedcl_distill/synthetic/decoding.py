"""Synthetic sets from bytes, which may come from anyone."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor

from fedcl_distill.data.labelled import Normalisation
from fedcl_distill.errors import PayloadError
from fedcl_distill.parameterizations import Parameterization, Shape, build_parameterization
from fedcl_distill.synthetic.container import View, read_container
from fedcl_distill.synthetic.header import SOFT, Header
from fedcl_distill.synthetic.layout import LABELS, STORED_DTYPES, label_bits, label_dtype
from fedcl_distill.synthetic.limits import DEFAULT_LIMITS, Limits
from fedcl_distill.synthetic.packing import packed_bytes, unpack
from fedcl_distill.synthetic.quantise import dequantise, is_packed
from fedcl_distill.synthetic.set import SyntheticSet

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
    stored, text = read_container(payload, limits)
    header = Header.from_text(text, limits)
    labels = stored.pop(LABELS, None)
    parameterization = build_parameterization(header.parameterization, header.settings)
    samples = _check_sizes(stored, header, parameterization, limits)
    return SyntheticSet(
        labels=_load_labels(labels, header, samples),
        arrays={name: _load_array(name, view, header, header.bits) for name, view in stored.items()},
        parameterization=parameterization,
        class_names=header.class_names,
        normalisation=Normalisation(header.mean, header.std),
        value_range=header.value_range,
        provenance=header.provenance,
    )


def _check_sizes(stored: dict[str, View], header: Header, how: Parameterization, limits: Limits) -> int:
    """Number of decoded samples, after everything that the arrays declare was held against ``limits``."""
    quantised = {*stored, LABELS} if header.labels == SOFT else set(stored)
    _check_names("ranges", set(header.ranges), quantised if header.bits < 32 else set())
    _check_names("shapes", set(header.shapes), set(stored) if is_packed(header.bits) else set())
    shapes = {name: _check_array(name, view, header) for name, view in stored.items()}
    if sum(map(math.prod, shapes.values())) > limits.max_values:
        raise PayloadError(f"stored arrays have more than {limits.max_values} values")
    decoded = how.decoded_shape(shapes)
    if len(decoded) not in (2, 4) or 0 in decoded[1:]:
        raise PayloadError(f"decoded samples would have shape {decoded}")
    if decoded[0] > limits.max_samples:
        raise PayloadError(f"{decoded[0]} samples, at most {limits.max_samples} are allowed")
    if math.prod(decoded) > limits.max_values:
        raise PayloadError(f"{math.prod(decoded)} decoded values, at most {limits.max_values} are allowed")
    if len(header.mean) != decoded[1]:
        raise PayloadError(f"normalisation is for {len(header.mean)} channels, samples have {decoded[1]}")
    return decoded[0]


def _check_names(what: str, given: set[str], expected: set[str]) -> None:
    if given != expected:
        raise PayloadError(f"metadata: {what} for {sorted(given)}, expected for {sorted(expected)}")


def _check_array(name: str, view: View, header: Header) -> Shape:
    """Shape of the values that ``view`` stands for, once its declared sizes agree with each other."""
    _check_dtype(name, view, STORED_DTYPES[header.bits])
    if not is_packed(header.bits):
        return view.shape
    shape = header.shapes[name]
    if view.shape != (packed_bytes(math.prod(shape), header.bits),):
        raise PayloadError(f"array {name!r} holds bytes {view.shape} for {header.bits}-bit values of shape {shape}")
    return shape


def _check_dtype(name: str, view: View, expected: np.dtype[Any]) -> None:
    if view.dtype != expected:
        raise PayloadError(f"array {name!r} has dtype {view.dtype}, expected {expected}")


def _load_array(name: str, view: View, header: Header, bits: int) -> Tensor:
    if bits == 32:
        return torch.from_numpy(view.astype(np.float32))
    if is_packed(bits):
        shape = header.shapes[name]
        view = unpack(view, bits, math.prod(shape)).reshape(shape)
    return torch.from_numpy(dequantise(view, header.ranges[name], bits))


def _load_labels(view: View | None, header: Header, samples: int) -> Tensor:
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
