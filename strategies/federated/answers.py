"""What nodes answer: a few facts, and a synthetic set, weights or vectors, as Flower records and back.

synthetic    ArrayRecord    payload: uint8 (bytes,), the codec's bytes (train.distil, train.ensemble)
arrays       ArrayRecord    the weights (train, train.scaffold, train.ensemble)
statistics   ArrayRecord    payload: uint8 (bytes,), encoded class statistics (train.statistics)
update       ArrayRecord    payload: uint8 (bytes,), a coded vector (train.compressed)
masked       ArrayRecord    payload: uint16 or uint32 (words,) (train.masked)
control      ArrayRecord    values: float32 (parameters,) (train.scaffold)
metrics      MetricRecord   num-examples, seconds, partition-id; class-counts where asked for
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict

from fedcl_distill.errors import PayloadError
from fedcl_distill.privacy import guarantee_of
from fedcl_distill.privacy.accounting import KEY
from fedcl_distill.statistics.fixed_point import Words
from fedcl_distill.synthetic import Expectation, Limits, SyntheticSet, decode, encode
from strategies.federated.weights import read_array

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
