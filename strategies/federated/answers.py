"""What nodes answer, as Flower records and back: reports, synthetic sets, weights, vectors; and states of strategies.

synthetic    ArrayRecord    payload: uint8 (bytes,), the codec's bytes (train.distil, train.ensemble)
arrays       ArrayRecord    the weights (train, train.scaffold, train.ensemble)
statistics   ArrayRecord    payload: uint8 (bytes,), encoded class statistics (train.statistics)
update       ArrayRecord    payload: uint8 (bytes,), a coded vector (train.compressed)
masked       ArrayRecord    payload: uint16 or uint32 (words,) (train.masked)
control      ArrayRecord    values: float32 (parameters,) (train.scaffold)
metrics      MetricRecord   num-examples, seconds, partition-id; class-counts where asked for
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from numpy.lib import format as npy
from torch import Tensor, nn

from fedcl_distill.errors import PayloadError, SettingsError
from fedcl_distill.privacy import guarantee_of
from fedcl_distill.privacy.accounting import KEY
from fedcl_distill.statistics.fixed_point import Words
from fedcl_distill.synthetic import Expectation, Limits, SyntheticSet, decode, encode
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


State = dict[str, Any]
"""Tensors, numbers, texts, and lists and dictionaries of them."""


def tensors_of(record: ArrayRecord) -> dict[str, Tensor]:
    """The arrays of ``record``, in its order."""
    return {name: tensor_of(array.numpy()) for name, array in record.items()}


def arrays_of(tensors: Mapping[str, Tensor]) -> ArrayRecord:
    """The inverse of :func:`tensors_of`."""
    return ArrayRecord({name: Array(tensor.numpy()) for name, tensor in tensors.items()})


def tensor_of(values: npt.NDArray[Any]) -> Tensor:
    """A copy of ``values``, of their dtype."""
    return torch.from_numpy(np.array(values))


def set_as_state(synthetic: SyntheticSet | None) -> Tensor | None:
    """uint8 (bytes,): ``synthetic`` with its provenance, to the last bit."""
    return None if synthetic is None else tensor_of(np.frombuffer(encode(synthetic, 32), np.uint8))


def set_from_state(encoded: Tensor | None) -> SyntheticSet | None:
    """The inverse of :func:`set_as_state`."""
    return None if encoded is None else decode(encoded.numpy().tobytes())


SYNTHETIC, PAYLOAD, WEIGHTS, METRICS = "synthetic", "payload", "arrays", "metrics"
UPDATE, CONTROL, VALUES, SUMS = "update", "control", "values", "statistics"
_CLASS_COUNTS = "class-counts"
_MAX_EXAMPLES = 10**9
_MAX_SECONDS = 10.0**9
_NPY_OVERHEAD = 4096


@dataclass(frozen=True)
class ClientReport:
    """What a node says about its work; nothing here is checked but type and range, and that counts add up.

    Attributes:
        partition: which part of the data the node holds; orders the answers.
        examples: real samples it worked on; at least 1 but where nothing had to be worked on; always 1 where a node
            tells nothing of its data (secure aggregation, differential privacy).
        seconds: wall-clock seconds it worked.
        class_counts: how many of the examples each class has; empty where the request does not need them, for they
            tell something about the data.
    """

    partition: int
    examples: int
    seconds: float
    class_counts: tuple[int, ...] = ()

    def to_record(self) -> MetricRecord:
        record = MetricRecord({"num-examples": self.examples, "seconds": self.seconds, "partition-id": self.partition})
        if self.class_counts:
            record[_CLASS_COUNTS] = list(self.class_counts)
        return record

    @classmethod
    def of(cls, content: RecordDict, min_examples: int = 1) -> ClientReport:
        """Read the facts in an answer about at least so many examples.

        Raises:
            PayloadError: they are missing, out of range, or class counts do not add up to the examples.
        """
        partition = int(_number(content, "partition-id", int, 0, 2**31))
        examples = int(_number(content, "num-examples", int, min_examples, _MAX_EXAMPLES))
        return cls(
            partition=partition,
            examples=examples,
            seconds=float(_number(content, "seconds", float, 0, _MAX_SECONDS)),
            class_counts=_class_counts(content, examples),
        )


def pack_set(synthetic: SyntheticSet, bits: int) -> RecordDict:
    """An answer with ``synthetic``, each value in ``bits`` bits.

    The set's provenance stays where it is, for it tells how many real samples each class has; all but a guarantee.
    """
    if KEY not in synthetic.provenance:
        return pack_payload(SYNTHETIC, encode(synthetic, bits, provenance=False))
    told = replace(synthetic, provenance={KEY: synthetic.provenance[KEY]})
    return pack_payload(SYNTHETIC, encode(told, bits))


def unpack_set(content: RecordDict, limits: Limits, expectation: Expectation) -> SyntheticSet:
    """The synthetic set in an answer from anyone.

    Raises:
        PayloadError: there is none, it breaks ``limits``, it is not as expected, or it claims what is no guarantee.
    """
    synthetic = decode(unpack_payload(content, SYNTHETIC, limits), limits)
    expectation.check(synthetic)
    guarantee_of(synthetic.provenance)  # what cannot be read would end the run where sets are put together
    return synthetic


def pack_payload(key: str, payload: bytes) -> RecordDict:
    """An answer with encoded bytes under ``key``."""
    return RecordDict({key: ArrayRecord({PAYLOAD: Array(np.frombuffer(payload, np.uint8))})})


def unpack_payload(content: RecordDict, key: str, limits: Limits) -> memoryview:
    """The encoded bytes under ``key`` in an answer from anyone; what they say is still to be checked.

    Raises:
        PayloadError: there are none, or more than ``limits`` allow.
    """
    array = _arrays(content, key).get(PAYLOAD)
    if array is None:
        raise PayloadError(f"answer has no array {PAYLOAD!r}")
    if len(array.data) > limits.max_payload_bytes + _NPY_OVERHEAD:
        raise PayloadError(f"payload of {len(array.data)} bytes, at most {limits.max_payload_bytes} are allowed")
    return read_array(PAYLOAD, array, np.uint8).data


def unpack_weights(content: RecordDict) -> ArrayRecord:
    """The record of weights in an answer or a request; its arrays are still to be checked.

    Raises:
        PayloadError: there is none.
    """
    return _arrays(content, WEIGHTS)


def pack_update(payload: npt.NDArray[np.uint8]) -> ArrayRecord:
    """A coded vector as a record."""
    return ArrayRecord({PAYLOAD: Array(payload)})


def unpack_update(content: RecordDict, key: str, size: int) -> npt.NDArray[np.uint8]:
    """uint8 (size,): the coded vector in a request or an answer.

    Raises:
        PayloadError: there is none, or it has another size.
    """
    return unpack_words(content, key, np.uint8, size)


def pack_words(words: Words) -> ArrayRecord:
    """Words of fixed width as a record."""
    return ArrayRecord({PAYLOAD: Array(words)})


def unpack_words(content: RecordDict, key: str, dtype: npt.DTypeLike, size: int) -> Words:
    """(size,) of ``dtype``: the words in an answer.

    Raises:
        PayloadError: there are none, of another width, or another number of them.
    """
    array = _arrays(content, key).get(PAYLOAD)
    if array is None:
        raise PayloadError(f"{key!r} has no array {PAYLOAD!r}")
    return read_array(PAYLOAD, array, dtype, (size,))


def pack_vector(values: npt.NDArray[np.float32]) -> ArrayRecord:
    """float32 (n,) as a record."""
    return ArrayRecord({VALUES: Array(values)})


def unpack_vector(record: object, count: int) -> npt.NDArray[np.float32]:
    """float32 (count,): the vector in a record of a request, an answer or a node's state.

    Raises:
        PayloadError: there is none, it has another size, or a value is NaN or infinite.
    """
    array = record.get(VALUES) if isinstance(record, ArrayRecord) else None
    if array is None:
        raise PayloadError(f"there is no vector of {count} values where one was expected")
    values = read_array(VALUES, array, np.float32, (count,))
    if not np.isfinite(values).all():
        raise PayloadError("vector holds NaN or infinity")
    return values


def _arrays(content: RecordDict, key: str) -> ArrayRecord:
    record = content.get(key)
    if not isinstance(record, ArrayRecord):
        raise PayloadError(f"answer has no arrays {key!r}")
    return record


def _number(content: RecordDict, key: str, kind: type, low: float, high: float) -> int | float:
    record = content.get(METRICS)
    value = record.get(key) if isinstance(record, MetricRecord) else None
    if type(value) is not kind or not low <= value <= high:  # type: ignore[operator]
        raise PayloadError(f"answer has {key} {str(value)[:50]}, expected {kind.__name__} in [{low}, {high:g}]")
    return value  # type: ignore[return-value]


def _class_counts(content: RecordDict, examples: int) -> tuple[int, ...]:
    metrics = content[METRICS]
    counts = metrics.get(_CLASS_COUNTS, []) if isinstance(metrics, MetricRecord) else []
    if not isinstance(counts, list) or len(counts) > Limits.max_classes:
        raise PayloadError(f"answer has class counts that are no list of at most {Limits.max_classes} numbers")
    if not all(type(count) is int and count >= 0 for count in counts):
        raise PayloadError("answer has class counts that are no list of whole numbers from 0")
    if counts and sum(counts) != examples:
        raise PayloadError(f"class counts add up to {sum(counts)}, expected {examples}")
    return tuple(int(count) for count in counts)
