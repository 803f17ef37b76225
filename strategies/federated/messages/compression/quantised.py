"""Few bits a value, rounded at random so that the mean is right (QSGD, Alistarh et al. 2017).

As in that paper's experiments, values are cut into buckets and each bucket has the scale of its largest magnitude.
FedPAQ (Reisizadeh et al. 2020) sends the updates of FedAvg so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedcl_distill.errors import PayloadError
from fedcl_distill.synthetic.quantise import pack, packed_bytes, padding_is_zero, unpack
from strategies.federated.messages.compression.codec import Bytes, Vector, check_size, read_floats, require


@dataclass(frozen=True)
class Quantised:
    """2**bits − 1 levels, even from −scale to scale, with 0 among them; rounded to a neighbour without bias.

    Attributes:
        bits: of each value: 2, 4 or 8.
        bucket: values that share a scale, which takes 4 bytes.

    Raises:
        SettingsError: on construction, if a value is out of range.
    """

    bits: int = 8
    bucket: int = 512
    error_feedback = False

    def __post_init__(self) -> None:
        require(self.bits in (2, 4, 8), f"bits must be 2, 4 or 8, got {self.bits}")
        require(type(self.bucket) is int and self.bucket >= 1, f"bucket must be at least 1, got {self.bucket}")

    @property
    def steps(self) -> int:
        """Levels above 0."""
        return int(2 ** (self.bits - 1)) - 1

    def size(self, count: int) -> int:
        return 4 * self._buckets(count) + packed_bytes(count, self.bits)

    def encode(self, values: Vector, generator: np.random.Generator) -> Bytes:
        buckets = self._in_buckets(values.astype(np.float64))
        scales = np.abs(buckets).max(axis=1)
        exact = buckets / np.where(scales == 0, 1, scales)[:, None] * self.steps
        below = np.floor(exact)
        levels = below + (generator.random(exact.shape) < exact - below)
        codes = (levels + self.steps).astype(np.uint8).reshape(-1)[: len(values)]
        return np.concatenate([scales.astype("<f4").view(np.uint8), pack(codes, self.bits)])

    def decode(self, payload: Bytes, count: int) -> Vector:
        check_size(payload, self.size(count))
        start, packed = np.split(payload, [4 * self._buckets(count)])
        scales, codes = read_floats(start, "<f4"), unpack(packed, self.bits, count)
        if (scales < 0).any():
            raise PayloadError("update has a negative scale")
        if (count and int(codes.max()) > 2 * self.steps) or not padding_is_zero(packed, self.bits, count):
            raise PayloadError(f"update has a code above {2 * self.steps}, or bits where padding was expected")
        levels = self._in_buckets(codes.astype(np.float64) - self.steps)
        values = levels * (scales.astype(np.float64) / self.steps)[:, None]
        return values.reshape(-1)[:count].astype(np.float32)

    def _buckets(self, count: int) -> int:
        return -(-count // self.bucket)

    def _in_buckets(self, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """(buckets, bucket), the last one filled up with zeros."""
        rows = self._buckets(len(values))
        padded = np.zeros(rows * self.bucket)
        padded[: len(values)] = values
        return padded.reshape(rows, self.bucket)
