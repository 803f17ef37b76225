"""Sums, plain and noisy, to bytes and back."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedcl_distill.data.spec import DataSpec, Normalisation
from fedcl_distill.errors import PayloadError, SettingsError
from fedcl_distill.files import place, write_atomically
from fedcl_distill.privacy import Guarantee, PrivacyTarget
from fedcl_distill.seeding import generator_for
from fedcl_distill.settings import Positive, settings
from fedcl_distill.statistics.noisy import COUNTS, NoisyStatistics, Shares, max_mean, release_guarantee
from fedcl_distill.statistics.spec import BOUNDED, StatisticsSpec, feature_map
from fedcl_distill.statistics.sums import FEATURES, MOMENTS, SAMPLES, ClassStatistics, Sums, shapes_of
from fedcl_distill.synthetic.codec import (
    STORED_DTYPES,
    as_payload_error,
    numbered,
    read_bounded,
    read_class_names,
    read_mapping,
    read_numbers,
)
from fedcl_distill.synthetic.container import (
    DEFAULT_LIMITS,
    Limits,
    MatchContext,
    compact,
    parse_object,
    read_container,
    read_shape,
    write_container,
)
from fedcl_distill.synthetic.quantise import Floats, Range, dequantise, quantise

BITS = (8, 16, 32)


def counts_name(name: str) -> str:
    """What the array with the counts of the sums ``name`` is called."""
    return f"counts of {name}"


def stored_counts(spec: StatisticsSpec, names: Iterable[str]) -> list[str]:
    """Sums whose counts travel; all others count every sample."""
    return [name for name in names if name == SAMPLES or (name == FEATURES and spec.share < 1)]


FORMAT = 1
_KEYS = {"format", "bits", "spec", "shape", "classes", "mean", "std", "range", "allow_hflip", "ranges"}


@dataclass(frozen=True)
class StatisticsHeader:
    """What the metadata text says.

    Attributes:
        bits: of a value.
        spec, domain: of the statistics.
        ranges: of the means of each kind, where they are quantised.
    """

    bits: int
    spec: StatisticsSpec
    domain: DataSpec
    ranges: Mapping[str, Range] = field(default_factory=dict)

    def to_text(self) -> str:
        """Compact JSON."""
        domain = self.domain
        numbers = domain.class_names == numbered(domain.num_classes)
        return compact(
            ({"backbone": domain.backbone} if domain.backbone else {})
            | {
                "format": FORMAT,
                "bits": self.bits,
                "spec": self.spec.settings(),
                "shape": list(domain.sample_shape),
                "classes": domain.num_classes if numbers else list(domain.class_names),
                "mean": [float(value) for value in domain.normalisation.mean],
                "std": [float(value) for value in domain.normalisation.std],
                "range": [float(value) for value in domain.value_range],
                "allow_hflip": domain.allow_hflip,
                "ranges": {name: span.to_text() for name, span in self.ranges.items()},
            }
        )

    @classmethod
    def from_text(cls, text: str, limits: Limits) -> StatisticsHeader:
        """The inverse of :meth:`to_text` for untrusted text; raises PayloadError or DataError on what is wrong."""
        raw = parse_object(text, "metadata")
        if "mirrorable" in raw and "allow_hflip" not in raw:  # what older payloads call it
            raw["allow_hflip"] = raw.pop("mirrorable")
        if set(raw) - {"backbone"} != _KEYS or type(raw["format"]) is not int or raw["format"] != FORMAT:
            raise PayloadError(f"metadata is not that of statistics of format {FORMAT}")
        if type(raw["bits"]) is not int or raw["bits"] not in BITS:
            raise PayloadError(f"metadata: bits must be one of {BITS}, got {str(raw['bits'])[:50]}")
        return cls(
            bits=raw["bits"],
            spec=StatisticsSpec.of(read_mapping(raw, "spec")),
            domain=_domain(raw, limits),
            ranges={name: Range.from_text(span) for name, span in read_mapping(raw, "ranges").items()},
        )


def _domain(raw: dict[str, Any], limits: Limits) -> DataSpec:
    shape = read_shape("samples", raw["shape"], limits)
    if len(shape) not in (1, 3) or 0 in shape:
        raise PayloadError(f"metadata: samples cannot have shape {shape}")
    if type(raw["allow_hflip"]) is not bool:
        raise PayloadError("metadata: allow_hflip must be true or false")
    if not isinstance(raw.get("backbone", ""), str):
        raise PayloadError("metadata: the backbone must be a text")
    low, high = read_numbers(raw, "range", 2)
    if low > high:
        raise PayloadError(f"metadata: value range must ascend, got [{low}, {high}]")
    return DataSpec(
        sample_shape=shape,
        class_names=read_class_names(raw["classes"], limits),
        normalisation=Normalisation(read_numbers(raw, "mean", shape[0]), read_numbers(raw, "std", shape[0])),
        value_range=(low, high),
        allow_hflip=raw["allow_hflip"],
        backbone=raw.get("backbone", ""),
    )


def encode_statistics(statistics: ClassStatistics, bits: int = 8) -> bytes:
    """The statistics as bytes; only classes with samples take any.

    Means travel (sums divided by counts), so that the step of quantisation does not grow with the number of samples.
    At 32 bits they are rounded to float32; at 16 and 8 to the nearest of ``2**bits`` even steps over the range of
    their kind. Counts are exact.

    Raises:
        SettingsError: ``bits`` is none of 8, 16, 32.
    """
    if bits not in BITS:
        raise SettingsError(f"statistics are sent in {', '.join(map(str, BITS))} bits a value, got {bits!r}")
    arrays: dict[str, MatchContext] = {}
    ranges: dict[str, Range] = {}
    for name, sums in statistics.sums.items():
        rows: Floats = sums.means[sums.counts > 0].float().numpy()
        if bits < 32:
            ranges[name] = Range.of(rows)
        arrays[name] = (rows if bits == 32 else quantise(rows, ranges[name], bits)).astype(STORED_DTYPES[bits])
    for name in stored_counts(statistics.spec, statistics.sums):
        arrays[counts_name(name)] = _smallest(statistics.sums[name].counts.numpy())
    return write_container(arrays, StatisticsHeader(bits, statistics.spec, statistics.domain, ranges).to_text())


def save_statistics(statistics: ClassStatistics, path: str | os.PathLike[str], bits: int = 32) -> int:
    """Write them to ``path`` and return the file's size in bytes; a crash leaves the older file or the new one.

    Raises:
        StorageError: the file could not be written.
        SettingsError: as for :func:`encode_statistics`.
    """
    payload = encode_statistics(statistics, bits)
    write_atomically(path, payload)
    return len(payload)


def _smallest(counts: Any) -> MatchContext:
    """The same counts as the smallest unsigned integers that hold them all."""
    if counts.max() > np.iinfo(np.uint32).max:
        raise SettingsError("statistics of more than 4,294,967,295 samples of a class cannot be sent")
    smallest: MatchContext = counts.astype(np.min_scalar_type(int(counts.max())).newbyteorder("<"))
    return smallest


@as_payload_error
def decode_statistics(payload: bytes | bytearray | memoryview, limits: Limits = DEFAULT_LIMITS) -> ClassStatistics:
    """The statistics that ``encode_statistics`` wrote. Safe on bytes from anyone.

    Raises:
        PayloadError: whatever is wrong with the payload; no other exception leaves this function.
    """
    arrays, text = read_container(payload, limits)
    header = StatisticsHeader.from_text(text, limits)
    shapes = shapes_of(header.spec, header.domain)
    classes = header.domain.num_classes
    if sum(views * classes * size for views, size in shapes.values()) > limits.max_values:
        raise PayloadError(f"statistics have more than {limits.max_values} values")
    counted = stored_counts(header.spec, shapes)
    if set(arrays) != {*shapes, *map(counts_name, counted)} or set(header.ranges) != set(_quantised(header, shapes)):
        raise PayloadError("payload has other arrays or ranges than its specification asks for")
    counts = {name: _read_counts(arrays[counts_name(name)], (shapes[name][0], classes)) for name in counted}
    sums = {}
    for name, (views, size) in shapes.items():
        of_name = counts.get(name, counts[SAMPLES].expand(views, classes)).clone()
        sums[name] = Sums(of_name, _read_sums(name, arrays[name], of_name, size, header))
    return ClassStatistics(header.spec, header.domain, sums)


def load_statistics(path: str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS) -> ClassStatistics:
    """Read a file that ``save_statistics`` wrote; safe on files from anyone.

    Raises:
        StorageError: there is no such file, or it cannot be read.
        PayloadError: its content is not statistics within ``limits``.
    """
    content = read_bounded(place(path), limits.max_payload_bytes)
    try:
        return decode_statistics(content, limits)
    except PayloadError as error:
        raise PayloadError(f"{path}: {error}") from error


def _quantised(header: StatisticsHeader, shapes: Mapping[str, tuple[int, int]]) -> list[str]:
    return list(shapes) if header.bits < 32 else []


def _read_counts(view: MatchContext, shape: tuple[int, int]) -> Tensor:
    if view.dtype.kind != "u" or view.shape != shape:
        raise PayloadError(f"counts are {view.dtype} {view.shape}, expected unsigned integers {shape}")
    return torch.from_numpy(view.astype(np.int64))


def _read_sums(name: str, view: MatchContext, counts: Tensor, size: int, header: StatisticsHeader) -> Tensor:
    """float64 (views, classes, size): means times counts; 0 where there are no samples."""
    present = counts > 0
    expected = (int(present.sum()), size)
    if view.dtype != STORED_DTYPES[header.bits] or view.shape != expected:
        raise PayloadError(f"{name} are {view.dtype} {view.shape}, expected {STORED_DTYPES[header.bits]} {expected}")
    means = view if header.bits == 32 else dequantise(view, header.ranges[name], header.bits)
    sums = torch.zeros(*counts.shape, size, dtype=torch.float64)
    sums[present] = torch.from_numpy(means.astype(np.float64)) * counts[present][:, None]
    return sums


_PROBES = 16  # noise samples by which to tell how large features may be
_EPSILON = 1e-2


@settings
class StatisticsExpectation:
    """What statistics must be to be welcome.

    Attributes:
        spec, domain: exactly these.
        slack: means of embeddings may be so many times as large as the largest that noise gives. Nothing bounds
            embeddings of an arbitrary network; a mean far beyond could make all that is added to it useless.

    Raises:
        SettingsError: on construction, if the slack is not positive or the specification does not suit the domain.
    """

    spec: StatisticsSpec
    domain: DataSpec
    slack: Positive = 10.0

    def __post_init__(self) -> None:
        shapes_of(self.spec, self.domain)

    @property
    def limits(self) -> Limits:
        """What a decoder may read of an honest answer, at 32 bits a value."""
        pairs = [(views * self.domain.num_classes, size) for views, size in shapes_of(self.spec, self.domain).values()]
        values = sum(rows * size for rows, size in pairs)
        counts = sum(rows for rows, _ in pairs)
        names = sum(len(name.encode()) for name in self.domain.class_names) + 40 * sum(self.domain.sample_shape[:1])
        header = Limits.max_metadata_bytes + 2 * names
        return Limits(
            max_payload_bytes=4 * (values + counts) + header,
            max_metadata_bytes=header,
            max_values=max(values, 1),
        )

    def check(self, statistics: ClassStatistics) -> None:
        """Return if ``statistics`` are as expected.

        Raises:
            PayloadError: they are not; the message says what was found and what was expected.
        """
        if statistics.spec != self.spec:
            raise PayloadError("statistics are of another specification than was asked for")
        if statistics.domain != self.domain:
            raise PayloadError("statistics are of another kind of data than was asked for (shape, classes, scale)")
        if int(statistics.class_counts.sum()) == 0:
            raise PayloadError("statistics count no samples")
        for name, (low, high) in self._bounds.items():
            smallest, largest = (extreme.item() for extreme in torch.aminmax(statistics.sums[name].means))
            if not low <= smallest <= largest <= high:
                raise PayloadError(
                    f"means of {name} span [{smallest:g}, {largest:g}], expected within [{low:g}, {high:g}]"
                )

    @property
    def magnitudes(self) -> dict[str, float]:
        """The largest absolute mean of each kind; 1 where features are bounded by design."""
        bounds = {name: max(-low, high) for name, (low, high) in self._bounds.items()}
        return {**bounds, FEATURES: 1.0} if self.spec.kind in BOUNDED else bounds

    @cached_property
    def _bounds(self) -> dict[str, tuple[float, float]]:
        """Between which all means of each kind must lie; 0, that of absent classes, always does."""
        channels = self.domain.sample_shape[0]
        shape = (2, channels) + (1,) * (len(self.domain.sample_shape) - 1)
        corners = torch.tensor(self.domain.value_range)[:, None].expand(2, channels).reshape(shape)
        inputs = self.domain.normalisation.apply(corners)
        low, high = min(float(inputs.min()), 0.0), max(float(inputs.max()), 0.0)
        most = max(-low, high)
        bounds = {SAMPLES: _widened(low, high), FEATURES: self._feature_bound()}
        if MOMENTS in shapes_of(self.spec, self.domain):
            bounds[MOMENTS] = _widened(-(most**2), most**2)
        return bounds

    @torch.no_grad()
    def _feature_bound(self) -> tuple[float, float]:
        if self.spec.kind in BOUNDED:
            return _widened(-1, 1)
        noise = torch.randn(_PROBES, *self.domain.sample_shape, generator=generator_for(self.spec.seed, "probes"))
        classes = torch.arange(_PROBES) % self.domain.num_classes
        features = feature_map(self.spec, self.domain, 0, torch.device("cpu"))
        most = self.slack * float(features(noise, classes).abs().max())
        return -most, most


def _widened(low: float, high: float) -> tuple[float, float]:
    """AnswerLimits for rounding."""
    margin = _EPSILON * max(1.0, abs(low), abs(high))
    return low - margin, high + margin


_FORMAT = 2
_NOISY_CODEC_KEYS = {"format", "statistics", "shares", "guarantee", "variance"}
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
    if set(raw) != _NOISY_CODEC_KEYS or raw["format"] != _FORMAT or not isinstance(raw["statistics"], str):
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
