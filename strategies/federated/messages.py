"""What nodes answer: a few facts, and a synthetic set or weights, as Flower records and back.

synthetic    ArrayRecord    payload: uint8 (bytes,), the codec's bytes (train.distil)
arrays       ArrayRecord    the weights (train)
metrics      MetricRecord   num-examples, seconds, partition-id
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict

from fedcl_distill.errors import PayloadError
from fedcl_distill.synthetic import Expectation, Limits, SyntheticSet, decode, encode
from strategies.federated.arrays import read_array

SYNTHETIC, PAYLOAD, WEIGHTS, METRICS = "synthetic", "payload", "arrays", "metrics"
_MAX_EXAMPLES = 10**9
_MAX_SECONDS = 10.0**9
_NPY_OVERHEAD = 4096


@dataclass(frozen=True)
class Facts:
    """What a node says about its work; nothing here is checked but type and range.

    Attributes:
        partition: which part of the data the node holds; orders the answers.
        examples: real samples it worked on, at least 1.
        seconds: wall-clock seconds it worked.
    """

    partition: int
    examples: int
    seconds: float

    def to_record(self) -> MetricRecord:
        return MetricRecord({"num-examples": self.examples, "seconds": self.seconds, "partition-id": self.partition})

    @classmethod
    def of(cls, content: RecordDict) -> Facts:
        """Read the facts in an answer.

        Raises:
            PayloadError: they are missing or out of range.
        """
        return cls(
            partition=int(_number(content, "partition-id", int, 0, 2**31)),
            examples=int(_number(content, "num-examples", int, 1, _MAX_EXAMPLES)),
            seconds=float(_number(content, "seconds", float, 0, _MAX_SECONDS)),
        )


def pack_set(synthetic: SyntheticSet, bits: int, facts: Facts) -> RecordDict:
    """An answer with ``synthetic``, each value in ``bits`` bits.

    The set's provenance stays where it is: it tells how many real samples each class has.
    """
    payload = encode(synthetic, bits, provenance=False)
    array = Array(np.frombuffer(payload, np.uint8))
    return RecordDict({SYNTHETIC: ArrayRecord({PAYLOAD: array}), METRICS: facts.to_record()})


def unpack_set(content: RecordDict, limits: Limits, expectation: Expectation) -> SyntheticSet:
    """The synthetic set in an answer from anyone.

    Raises:
        PayloadError: there is none, it breaks ``limits``, or it is not as expected.
    """
    array = _arrays(content, SYNTHETIC).get(PAYLOAD)
    if array is None:
        raise PayloadError(f"answer has no array {PAYLOAD!r}")
    if len(array.data) > limits.max_payload_bytes + _NPY_OVERHEAD:
        raise PayloadError(f"payload of {len(array.data)} bytes, at most {limits.max_payload_bytes} are allowed")
    synthetic = decode(read_array(PAYLOAD, array, np.uint8).data, limits)
    expectation.check(synthetic)
    return synthetic


def pack_weights(weights: ArrayRecord, facts: Facts) -> RecordDict:
    """An answer with trained weights."""
    return RecordDict({WEIGHTS: weights, METRICS: facts.to_record()})


def unpack_weights(content: RecordDict) -> ArrayRecord:
    """The record of weights in an answer or a request; its arrays are still to be checked.

    Raises:
        PayloadError: there is none.
    """
    return _arrays(content, WEIGHTS)


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
