"""Noisy statistics to bytes and back, and what a server asks of them.

The container is that of other payloads. Unlike exact statistics, sums travel as they are, of every class: which classes
a party holds is part of what noise hides.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor

from fedcl_distill.data.spec import DataSpec
from fedcl_distill.errors import PayloadError, SettingsError
from fedcl_distill.privacy import Guarantee, PrivacyTarget
from fedcl_distill.statistics.codec import BITS, StatisticsExpectation, StatisticsHeader
from fedcl_distill.statistics.noisy import COUNTS, NoisyStatistics, Shares, max_mean, release_guarantee
from fedcl_distill.statistics.spec import StatisticsSpec
from fedcl_distill.statistics.sums import shapes_of
from fedcl_distill.synthetic.container import Limits
from fedcl_distill.synthetic.codec import STORED_DTYPES, as_payload_error
from fedcl_distill.synthetic.container import (
    DEFAULT_LIMITS,
    MatchContext,
    compact,
    parse_object,
    read_container,
    write_container,
)
from fedcl_distill.synthetic.quantise import Range, dequantise, quantise

_FORMAT = 2
_KEYS = {"format", "statistics", "shares", "guarantee", "variance"}
_MAX_RECORDS = 1e9
_MAX_VARIANCE = 1e6
_TOLERANCE = 0.02  # between accountants of other versions
_DEVIATIONS = 10.0  # that honest noise never leaves


def encode_noisy(noisy: NoisyStatistics, bits: int = 32) -> bytes:
    """The statistics as bytes: sums in 8, 16 or 32 bits, counts in 32.

    Rounding comes after the noise, and so costs no privacy; 8 and 16 bits are even steps over the range of each kind.

    Raises:
        SettingsError: ``bits`` is none of these.
    """
    if bits not in BITS:
        raise SettingsError(f"statistics are sent in {', '.join(map(str, BITS))} bits a value, got {bits!r}")
    arrays: dict[str, MatchContext] = {COUNTS: noisy.counts.float().numpy()}
    ranges: dict[str, Range] = {}
    for name, sums in noisy.sums.items():
        values = sums.float().numpy()
        if bits < 32:
            ranges[name] = Range.of(values)
        arrays[name] = (values if bits == 32 else quantise(values, ranges[name], bits)).astype(STORED_DTYPES[bits])
    header = {
        "format": _FORMAT,
        "statistics": StatisticsHeader(bits, noisy.spec, noisy.domain, ranges).to_text(),
        "shares": asdict(noisy.shares),
        "guarantee": None if noisy.guarantee is None else noisy.guarantee.as_record(),
        "variance": noisy.variance,
    }
    return write_container(arrays, compact(header))


@as_payload_error
def decode_noisy(payload: bytes | bytearray | memoryview, limits: Limits = DEFAULT_LIMITS) -> NoisyStatistics:
    """The statistics that ``encode_noisy`` wrote. Safe on bytes from anyone.

    Raises:
        PayloadError: whatever is wrong with the payload; no other exception leaves this function.
    """
    arrays, text = read_container(payload, limits)
    raw = parse_object(text, "metadata")
    if set(raw) != _KEYS or raw["format"] != _FORMAT or not isinstance(raw["statistics"], str):
        raise PayloadError(f"metadata is not that of noisy statistics of format {_FORMAT}")
    if type(raw["variance"]) not in (int, float) or not 1 <= raw["variance"] <= _MAX_VARIANCE:
        raise PayloadError(f"metadata: variance must be in [1, {_MAX_VARIANCE:g}], got {str(raw['variance'])[:50]}")
    header = StatisticsHeader.from_text(raw["statistics"], limits)
    shapes, classes = shapes_of(header.spec, header.domain), header.domain.num_classes
    if set(arrays) != {COUNTS, *shapes} or set(header.ranges) != set(shapes if header.bits < 32 else ()):
        raise PayloadError("payload has other arrays or ranges than its specification asks for")
    sums = {name: _read(name, arrays[name], (views, classes, size), header) for name, (views, size) in shapes.items()}
    counts = arrays[COUNTS]
    if counts.dtype != np.float32 or counts.shape != (classes,):
        raise PayloadError(f"counts are {counts.dtype} {counts.shape}, expected float32 ({classes},)")
    return NoisyStatistics(
        header.spec,
        header.domain,
        torch.from_numpy(counts.astype(np.float64)),
        sums,
        Shares.of(raw["shares"]),
        None if raw["guarantee"] is None else Guarantee.of(raw["guarantee"]),
        raw["variance"],
    )


@dataclass(frozen=True)
class NoisyExpectation:
    """What noisy statistics must be to be welcome.

    Attributes:
        spec, domain, shares, target: exactly these; one release, with noise that nobody knows.

    Raises:
        SettingsError: on construction, if the specification's features are not bounded or do not suit the domain.
    """

    spec: StatisticsSpec
    domain: DataSpec
    shares: Shares
    target: PrivacyTarget

    def __post_init__(self) -> None:
        self.shares.deviations(self.spec, self.domain, 1.0)

    @property
    def plain(self) -> StatisticsExpectation:
        """What exact statistics of this kind must be."""
        return StatisticsExpectation(self.spec, self.domain)

    @property
    def limits(self) -> Limits:
        """What a decoder may read of an honest answer."""
        plain = self.plain.limits
        room = 2 * plain.max_metadata_bytes + Limits.max_metadata_bytes  # a text inside a text, and the guarantee
        return Limits(
            max_payload_bytes=plain.max_payload_bytes + room,
            max_metadata_bytes=room,
            max_values=plain.max_values + self.domain.num_classes,
        )

    def check(self, noisy: NoisyStatistics) -> None:
        """Return if ``noisy`` are as expected: that their noise is what they say cannot be seen.

        Raises:
            PayloadError: they are not; the message says what was found and what was expected.
        """
        if (noisy.spec, noisy.domain, noisy.shares) != (self.spec, self.domain, self.shares):
            raise PayloadError("noisy statistics are of another specification or kind of data than was asked for")
        if noisy.variance != 1 or not self._welcome(noisy.guarantee):
            asked = f"({self.target.epsilon:g}, {self.target.delta:g})-DP"
            claim = f"{noisy.guarantee} with noise of variance {noisy.variance:g}"
            raise PayloadError(f"noisy statistics claim {claim}, expected {asked} of variance 1")
        spread = noisy.deviations()
        if float(noisy.counts.abs().max()) > _MAX_RECORDS:
            raise PayloadError(f"noisy statistics count more than {_MAX_RECORDS:g} records of a class")
        most = (noisy.counts.clamp(min=0) + _DEVIATIONS * spread[COUNTS])[:, None]
        for name, sums in noisy.sums.items():
            bound = most * max_mean(name, self.domain) + _DEVIATIONS * spread[name]
            if bool((sums.abs() > bound).any()):
                raise PayloadError(f"sums of {name} are larger than so many records and their noise can make them")

    def _welcome(self, claimed: Guarantee | None) -> bool:
        """Whether it is what was asked for; accountants of other versions may differ a little in the noise."""
        if claimed is None or claimed.seeded:
            return False
        asked, said = release_guarantee(self.spec, self.domain, self.target, self.shares), claimed.mechanism
        return (
            (claimed.epsilon, claimed.delta) == (self.target.epsilon, self.target.delta)
            and (said.sampling_rate, said.queries) == (1, 1)
            and math.isclose(said.noise_multiplier, asked.mechanism.noise_multiplier, rel_tol=_TOLERANCE)
            and math.isclose(claimed.bound, asked.bound, rel_tol=_TOLERANCE)
        )


def _read(name: str, view: MatchContext, shape: tuple[int, int, int], header: StatisticsHeader) -> Tensor:
    if view.dtype != STORED_DTYPES[header.bits] or view.shape != shape:
        raise PayloadError(f"{name} are {view.dtype} {view.shape}, expected {STORED_DTYPES[header.bits]} {shape}")
    values = view if header.bits == 32 else dequantise(view, header.ranges[name], header.bits)
    return torch.from_numpy(values.astype(np.float64))
