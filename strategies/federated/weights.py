"""Arrays from anyone, and a network's weights as such arrays, whole or in fewer bits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from flwr.app import Array, ArrayRecord
from numpy.lib import format as npy
from torch import Tensor, nn

from fedcl_distill.errors import PayloadError, SettingsError
from fedcl_distill.synthetic.quantise import Range, dequantise, quantise

_MAX_NPY_HEADER = 4096  # bytes; NumPy writes 118 for arrays of ordinary shape


def read_array(name: str, array: Array, dtype: npt.DTypeLike, shape: tuple[int, ...] | None = None) -> npt.NDArray[Any]:
    """The values of ``array``, which must be of ``dtype`` and ``shape`` (None: of one dimension, of any length).

    Flower checks neither what an array declares against its data, nor the data against its size: NumPy would
    allocate whatever the header inside the data asks for. Here, every size is held against the bytes that are there.

    Raises:
        PayloadError: declaration, header, data and expectation are not one.
    """
    if array.stype != "numpy.ndarray":
        raise PayloadError(f"array {name!r} is serialised as {array.stype[:50]!r}, expected 'numpy.ndarray'")
    stream = BytesIO(array.data[:_MAX_NPY_HEADER])
    try:
        if npy.read_magic(stream) != (1, 0):
            raise ValueError("unknown version")
        found_shape, fortran, found_dtype = npy.read_array_header_1_0(stream, max_header_size=_MAX_NPY_HEADER)
    except Exception as error:  # the header is parsed as Python: a hostile one may provoke anything
        raise PayloadError(f"array {name!r} is truncated or has no valid .npy header") from error
    expected = found_shape if shape is None and len(found_shape) == 1 else shape
    if found_dtype != np.dtype(dtype) or found_shape != expected:
        raise PayloadError(
            f"array {name!r} holds {found_dtype} of shape {found_shape}, expected {np.dtype(dtype)} of shape "
            f"{'(any,)' if shape is None else shape}"
        )
    if array.dtype != str(found_dtype) or tuple(array.shape) != found_shape:
        raise PayloadError(
            f"array {name!r} declares {array.dtype[:20]} of shape {tuple(array.shape)[:8]}, "
            f"but holds {found_dtype} of shape {found_shape}"
        )
    values = np.frombuffer(array.data, np.uint8, offset=stream.tell())
    needed = int(np.prod(found_shape, dtype=object)) * found_dtype.itemsize
    if len(values) != needed:
        raise PayloadError(f"array {name!r} holds {len(values)} bytes, its shape needs {needed}")
    return values.view(found_dtype).reshape(found_shape, order="F" if fortran else "C")


def weights_of(network: nn.Module) -> ArrayRecord:
    """Parameters and buffers of ``network``, in its own order, for a message; counters stay where they are."""
    return ArrayRecord(
        {name: Array(np.ascontiguousarray(tensor.detach().cpu().numpy())) for name, tensor in _floats(network).items()}
    )


def _floats(network: nn.Module) -> dict[str, Tensor]:
    """What can be averaged: all but counters, such as that of the batches that batch norm has seen."""
    return {name: tensor for name, tensor in network.state_dict().items() if tensor.is_floating_point()}


def read_weights(record: ArrayRecord, like: nn.Module) -> dict[str, Tensor]:
    """The tensors of ``record``, which must have the names, dtypes and shapes of ``like``'s weights.

    Raises:
        PayloadError: they have not, or a value is NaN or infinite.
    """
    expected = _floats(like)
    if set(record) != set(expected):
        raise PayloadError(f"{len(record)} weight arrays, expected {len(expected)} with the names of the global model")
    weights = {}
    for name, tensor in expected.items():
        values = read_array(name, record[name], str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
        weights[name] = torch.from_numpy(values.copy())
        if not torch.isfinite(weights[name]).all():
            raise PayloadError(f"weights {name!r} hold NaN or infinity")
    return weights


_PARAMETER_GROWTH, _BUFFER_GROWTH = 100.0, 1e6


@dataclass(frozen=True)
class LargestModel:
    """How large a model may come back: a finite one of 1e38 is no model, and would end the run of all others.

    Attributes:
        parameters: Euclidean norm of all parameters together: 100 times that of the model that was sent, or of a fresh
            one where that is larger.
        buffers: of all buffers, such as the running statistics of batch norm: a million times, and at least that.
    """

    parameters: float
    buffers: float

    @classmethod
    def after(cls, sent: Mapping[str, Tensor], fresh: nn.Module) -> LargestModel:
        """The bounds where ``sent`` is what nodes start from and ``fresh`` a network of that kind."""
        start, first = _norms(sent, fresh), _norms(_floats(fresh), fresh)
        return cls(_PARAMETER_GROWTH * max(start[0], first[0]), _BUFFER_GROWTH * max(start[1], first[1], 1.0))

    def check(self, weights: Mapping[str, Tensor], like: nn.Module) -> None:
        """Return if ``weights`` are within these bounds; PayloadError if not."""
        for what, norm, most in zip(
            ("parameters", "buffers"), _norms(weights, like), (self.parameters, self.buffers), strict=True
        ):
            if not norm <= most:
                raise PayloadError(f"the model's {what} have a norm of {norm:.3g}, at most {most:.3g} is believed")


def _norms(weights: Mapping[str, Tensor], like: nn.Module) -> tuple[float, float]:
    """Of the parameters and of all else, in float64."""
    learned = {name for name, _ in like.named_parameters()}
    squares = {name: float(tensor.double().square().sum()) for name, tensor in weights.items()}
    return (
        math.sqrt(sum(one for name, one in squares.items() if name in learned)),
        math.sqrt(sum(one for name, one in squares.items() if name not in learned)),
    )


def typed_like(record: ArrayRecord, like: nn.Module) -> ArrayRecord:
    """``record`` with the dtypes of ``like``'s weights: Flower's FedAdam makes float64 of float32 (flwr 1.41)."""
    typed = {}
    for name, tensor in _floats(like).items():
        dtype = str(tensor.dtype).removeprefix("torch.")
        typed[name] = record[name] if record[name].dtype == dtype else Array(record[name].numpy().astype(dtype))
    return ArrayRecord(typed)


def put_weights(network: nn.Module, record: ArrayRecord) -> None:
    """Load ``record`` into ``network``; PayloadError as for :func:`read_weights`."""
    network.load_state_dict(read_weights(record, network), strict=False)


WEIGHT_BITS = (8, 16, 32)
RANGES = "ranges"
_DTYPES = {8: np.uint8, 16: np.uint16}


def check_weight_bits(bits: int) -> None:
    """SettingsError unless ``bits`` is one of :data:`WEIGHT_BITS`."""
    if bits not in WEIGHT_BITS:
        raise SettingsError(f"weights are sent in {', '.join(map(str, WEIGHT_BITS))} bits, got {bits}")


def pack_network(network: nn.Module, bits: int) -> ArrayRecord:
    """Parameters and buffers of ``network``: as they are, or as codes over the range of each array.

    Below 32 bits, an array ``ranges``, float32 (arrays, 2), tells smallest and largest value, in the network's order.
    """
    check_weight_bits(bits)
    if bits == 32:
        return weights_of(network)
    arrays, ranges = {}, []
    for name, tensor in _floats(network).items():
        values = np.ascontiguousarray(tensor.detach().cpu().numpy())
        span = Range.of(values)
        arrays[name] = Array(quantise(values, span, bits))
        ranges.append((span.low, span.high))
    return ArrayRecord({**arrays, RANGES: Array(np.array(ranges, np.float32))})


def unpack_network(network: nn.Module, record: ArrayRecord, bits: int) -> None:
    """Load what :func:`pack_network` wrote into ``network``.

    Raises:
        PayloadError: names, dtypes, shapes or ranges are not those of such a network.
    """
    check_weight_bits(bits)
    if bits == 32:
        put_weights(network, record)
        return
    expected = _floats(network)
    if set(record) != {*expected, RANGES}:
        raise PayloadError(f"{len(record)} weight arrays, expected {len(expected)} and their ranges")
    ranges = read_array(RANGES, record[RANGES], np.float32, (len(expected), 2))
    loaded = {}
    for (name, tensor), (low, high) in zip(expected.items(), ranges.tolist(), strict=True):
        codes = read_array(name, record[name], _DTYPES[bits], tuple(tensor.shape))
        loaded[name] = torch.from_numpy(dequantise(codes, Range(low, high), bits))
    network.load_state_dict(loaded, strict=False)
