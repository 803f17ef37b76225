"""Sums of features class by class: measured, added up, bounded."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.data.spec import DataSpec
from fedcl_distill.errors import DataError, SettingsError
from fedcl_distill.networks.base import as_device, micro_batch_size
from fedcl_distill.robust import CENTRES, capped
from fedcl_distill.seeding import derive_seed
from fedcl_distill.statistics.spec import (
    BOUNDED,
    CHARACTERISTIC,
    StatisticsSpec,
    coarse,
    coarse_shape,
    feature_dimensions,
    feature_map,
    products,
)

Hashes = npt.NDArray[np.uint64]
FEATURES, SAMPLES, MOMENTS = "features", "samples", "moments"
_MAX_BLANK = 100_000
_ROUNDING = 1e-3  # relative: what a sum of many numbers in [-1, 1] may be too large by


@dataclass(frozen=True)
class Sums:
    """Class-wise sums of one kind of feature, view by view.

    Attributes:
        counts: int64 (views, classes): samples in each sum.
        values: float64 (views, classes, dimensions); 0 where the count is 0.
    """

    counts: Tensor
    values: Tensor

    @property
    def means(self) -> Tensor:
        """float64 (views, classes, dimensions); 0 for absent classes."""
        return self.values / self.counts.clamp(min=1)[..., None]

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.counts + other.counts, self.values + other.values)


@dataclass(frozen=True)
class ClassStatistics:
    """What parties send instead of data or models: counts and sums, which add up.

    ``statistics + statistics`` is what the two data sets together would have given, up to rounding in float64.

    Attributes:
        spec: what was summed.
        domain: of which kind of data.
        sums: by name. "features": of each view. "samples": of the network inputs themselves (one view). "moments": of
            products of coarse inputs (one view), absent where ``spec`` asks for none.

    Raises:
        DataError: on construction, if shapes, dtypes or values break the above, or bounded features break their bound.
    """

    spec: StatisticsSpec
    domain: DataSpec
    sums: Mapping[str, Sums]

    def __post_init__(self) -> None:
        expected = shapes_of(self.spec, self.domain)
        if set(self.sums) != set(expected):
            raise DataError(f"statistics hold {sorted(self.sums)[:5]}, expected {sorted(expected)}")
        for name, (views, dimensions) in expected.items():
            _check_sums(name, self.sums[name], (views, self.domain.num_classes, dimensions))
        self._check_counts()
        if self.spec.kind in BOUNDED:
            _check_bound(self.sums[FEATURES])

    def _check_counts(self) -> None:
        total = self.sums[SAMPLES].counts
        for name, sums in self.sums.items():
            if bool((sums.counts > total).any()) or (name == MOMENTS and not torch.equal(sums.counts, total)):
                raise DataError(f"statistics: {name} count other samples than there are")
        if self.spec.share == 1 and bool((self.sums[FEATURES].counts != total).any()):
            raise DataError("statistics: views count other samples than there are")

    @property
    def class_counts(self) -> Tensor:
        """int64 (classes,): samples of each class, whether or not a view looked at them."""
        return self.sums[SAMPLES].counts[0]

    def __add__(self, other: ClassStatistics) -> ClassStatistics:
        """Of both data together.

        Raises:
            DataError: the two are not sums of the same features of the same kind of data.
        """
        if self.spec != other.spec or self.domain != other.domain:
            what = "specification" if self.spec != other.spec else "kind of data"
            raise DataError(f"statistics of another {what} cannot be added")
        return ClassStatistics(
            self.spec, self.domain, {name: one + other.sums[name] for name, one in self.sums.items()}
        )

    def as_blank_data(self) -> LabelledData:
        """Data of this kind with as many samples of each class as were counted, all of them blank.

        No more than 100,000 of a class, which is beyond any synthetic set: labels take memory, and counts may be lies.
        """
        return LabelledData.blank(self.domain, self.class_counts.clamp(max=_MAX_BLANK).tolist(), "statistics")

    def digest(self) -> str:
        """SHA-256, in hexadecimal, over counts and sums."""
        found = hashlib.sha256()
        for name in sorted(self.sums):
            for tensor in (self.sums[name].counts, self.sums[name].values):
                found.update(tensor.contiguous().numpy().data)
        return found.hexdigest()


def no_statistics(spec: StatisticsSpec, domain: DataSpec) -> ClassStatistics:
    """Of no data: adding them changes nothing."""
    classes = domain.num_classes
    return ClassStatistics(
        spec,
        domain,
        {
            name: Sums(torch.zeros(views, classes, dtype=torch.int64), torch.zeros(views, classes, size).double())
            for name, (views, size) in shapes_of(spec, domain).items()
        },
    )


def add_up(many: Iterable[ClassStatistics]) -> ClassStatistics:
    """The sum of at least one, in the order given.

    Raises:
        DataError: there is none, or they cannot be added.
    """
    total: ClassStatistics | None = None
    for one in many:
        total = one if total is None else total + one
    if total is None:
        raise DataError("there are no statistics to add up")
    return total


def shapes_of(spec: StatisticsSpec, domain: DataSpec) -> dict[str, tuple[int, int]]:
    """Views and dimensions of each kind of sums.

    Raises:
        SettingsError: the specification does not suit such data.
    """
    shapes = {FEATURES: (spec.views, feature_dimensions(spec, domain)), SAMPLES: (1, _size(domain.sample_shape))}
    small = coarse_shape(spec, domain)
    if small is not None:
        shapes[MOMENTS] = (1, _size(small) * (_size(small) + 1) // 2)
    return shapes


def _size(shape: tuple[int, ...]) -> int:
    return int(torch.Size(shape).numel())


def _check_sums(name: str, sums: Sums, shape: tuple[int, int, int]) -> None:
    if sums.values.dtype != torch.float64 or tuple(sums.values.shape) != shape:
        raise DataError(
            f"statistics: {name} must be float64 {shape}, got {sums.values.dtype} {tuple(sums.values.shape)}"
        )
    if sums.counts.dtype != torch.int64 or tuple(sums.counts.shape) != shape[:2]:
        raise DataError(f"statistics: counts of {name} must be int64 {shape[:2]}, got {tuple(sums.counts.shape)}")
    if not torch.isfinite(sums.values).all():
        raise DataError(f"statistics: {name} hold NaN or infinity")
    if bool((sums.counts < 0).any()):
        raise DataError(f"statistics: {name} have a negative count")
    if bool(sums.values[sums.counts == 0].any()):
        raise DataError(f"statistics: {name} have a sum over no samples that is not 0")


def _check_bound(sums: Sums) -> None:
    if bool((sums.values.abs() > sums.counts[..., None] * (1 + _ROUNDING)).any()):
        raise DataError("statistics: a sum of features in [-1, 1] is larger than its count")


Features = Callable[[Tensor, Tensor], Tensor]


@torch.no_grad()
def class_statistics(
    data: LabelledData, spec: StatisticsSpec, *, device: str | torch.device = "cpu"
) -> ClassStatistics:
    """Sums of features of ``data``, class by class; classes without samples have count 0 and sum 0.

    Args:
        data: images or feature vectors; all parties need the same normalisation, for features are of network inputs.
        spec: which features.
        device: where to compute; the result is on the CPU.

    Raises:
        SettingsError: the specification does not suit such data.
    """
    domain, where = data.spec, as_device(device)
    sums = dict(no_statistics(spec, domain).sums)
    everything = torch.arange(len(data))
    _add(sums[SAMPLES], 0, data, everything, where, lambda inputs, _: inputs.flatten(1))
    small = coarse_shape(spec, domain)
    if small is not None:
        _add(sums[MOMENTS], 0, data, everything, where, lambda inputs, _: products(coarse(inputs, small)))
    hashes = sample_hashes(data, spec.seed)
    for view in range(spec.views):
        rows = looked_at(hashes, spec.share, spec.seed, view)
        _add(sums[FEATURES], view, data, rows, where, feature_map(spec, domain, view, where))
    return ClassStatistics(spec, domain, sums)


def _add(sums: Sums, view: int, data: LabelledData, rows: Tensor, device: torch.device, features: Features) -> None:
    """Add the features of some ``rows`` of ``data`` to one view, in place."""
    classes = data.labels[rows]
    sums.counts[view] += torch.bincount(classes, minlength=data.num_classes)
    size = micro_batch_size(data.samples[:1].to(device)) if device.type == "cpu" else 1024
    for chosen in torch.split(rows, size):
        labels = data.labels[chosen]
        values = features(data.inputs(chosen).to(device), labels.to(device))
        sums.values[view].index_add_(0, labels, values.double().cpu())


_LARGEST_INPUT = 1e4  # far below what overflows float32 in any network, and far above any sensible scale
_BOUNDS_ROUNDING = 1e-4  # relative: what float32 may make of a length of 1, and data of the ends of their range


def radii(spec: StatisticsSpec, domain: DataSpec) -> dict[str, float]:
    """The largest L2 norm of what one record adds to each kind of sums, all views together.

    Raises:
        SettingsError: the features are not bounded, or views look at a part of the samples only, by which counts of
            views would need noise of their own.
    """
    if spec.kind not in BOUNDED:
        raise SettingsError(f"statistics: features of kind {spec.kind!r} have no bound; take {' or '.join(BOUNDED)}")
    if spec.share != 1:
        raise SettingsError(f"statistics: private ones look at all samples in every view, not at a share {spec.share}")
    shapes = shapes_of(spec, domain)
    views, dimensions = shapes[FEATURES]
    if not bool((input_ends(domain).abs() <= _LARGEST_INPUT).all()):  # NaN as well
        raise SettingsError(
            f"statistics: network inputs of private ones lie within ±{_LARGEST_INPUT:g}; with this normalisation and "
            "value range they do not, and whether a record overflows would tell of it"
        )
    ends = input_ends(domain).square().amax(dim=0).double()  # per channel
    pixels = math.prod(domain.sample_shape[1:])
    found = {
        FEATURES: math.sqrt(views * dimensions / 2 if spec.kind == CHARACTERISTIC else views),
        SAMPLES: math.sqrt(float(ends.sum()) * pixels),
    }
    if coarse_shape(spec, domain) is not None:
        found[MOMENTS] = math.sqrt(shapes[MOMENTS][1]) * float(ends.max())
    return {name: radius * (1 + _BOUNDS_ROUNDING) for name, radius in found.items()}


def input_ends(domain: DataSpec) -> torch.Tensor:
    """float32 (2, channels): the least and the largest network input of each channel."""
    channels = domain.sample_shape[0]
    corners = torch.tensor(domain.value_range)[:, None].expand(2, channels)
    return domain.normalisation.apply(corners)


@dataclass(frozen=True)
class RobustSum:
    """How statistics are added up.

    Attributes:
        centre: of the parties' means of each class in each view, weighted by their counts: "mean" is the plain sum;
            "geometric-median", "median" and "trimmed-mean" are hardly moved by a minority.
        count_share: the most, in (0, 1], that one party's count may be of a class's; the rest of what it says is not
            believed. 1 believes all.

    Raises:
        SettingsError: on construction, if the centre is unknown or the share out of range.
    """

    centre: str = "mean"
    count_share: float = 1.0

    def __post_init__(self) -> None:
        if self.centre not in CENTRES:
            raise SettingsError(f"statistics: unknown centre {self.centre!r}; known: {', '.join(CENTRES)}")
        if not 0 < self.count_share <= 1:
            raise SettingsError(f"statistics: count_share must be in (0, 1], got {self.count_share}")

    def add_up(self, many: Sequence[ClassStatistics]) -> ClassStatistics:
        """The sum of at least one, in the order given: centres of the believed means, times the believed counts.

        Raises:
            DataError: there is none, or they cannot be added.
        """
        if self.centre == "mean" and self.count_share == 1:
            return add_up(many)
        if not many:
            raise DataError("there are no statistics to add up")
        believed = [self._believed(one, factors) for one, factors in zip(many, self._factors(many), strict=True)]
        total = add_up(believed)
        if self.centre == "mean":
            return total
        return replace(total, sums={name: self._central(name, total, believed) for name in total.sums})

    def _factors(self, many: Sequence[ClassStatistics]) -> Tensor:
        """float64 (parties, classes), in [0, 1]: what part of its count each party may have."""
        counts = torch.stack([one.class_counts for one in many]).double()
        allowed = torch.stack([capped(column, self.count_share) for column in counts.T], dim=1)
        return allowed / counts.clamp(min=1)

    def _believed(self, one: ClassStatistics, factors: Tensor) -> ClassStatistics:
        """The same means, of fewer samples; a class that is there stays there."""
        total = _scaled(one.sums[SAMPLES].counts, factors)
        sums = {}
        for name, own in one.sums.items():
            counts = torch.minimum(_scaled(own.counts, factors), total) if name == FEATURES else total
            sums[name] = Sums(counts, own.means * counts[..., None])
        return replace(one, sums=sums)

    def _central(self, name: str, total: ClassStatistics, many: Sequence[ClassStatistics]) -> Sums:
        sums = total.sums[name]
        means = torch.stack([one.sums[name].means for one in many])
        counts = torch.stack([one.sums[name].counts for one in many]).double()
        values = torch.zeros_like(sums.values)
        for view, label in torch.nonzero(sums.counts).tolist():
            centre = CENTRES[self.centre](means[:, view, label], counts[:, view, label])
            values[view, label] = centre * sums.counts[view, label]
        return Sums(sums.counts, values)


def _scaled(counts: Tensor, factors: Tensor) -> Tensor:
    """int64: ``counts`` (views, classes) times ``factors`` (classes,), rounded up."""
    return (counts * factors - 1e-9).ceil().clamp(min=0).long()


def sample_hashes(data: LabelledData, seed: int) -> Hashes:
    """uint64 (n,): of each sample's values and label; equal samples are equal."""
    key = derive_seed(seed, "share").to_bytes(8, "little")
    rows = data.samples.flatten(1).contiguous().numpy()
    labels = data.labels.numpy()
    found = np.empty(len(rows), np.uint64)
    for position, (row, label) in enumerate(zip(rows, labels, strict=True)):
        digest = hashlib.blake2b(row.tobytes() + int(label).to_bytes(8, "little"), digest_size=8, key=key)
        found[position] = int.from_bytes(digest.digest(), "little")
    return found


def looked_at(hashes: Hashes, share: float, seed: int, view: int) -> Tensor:
    """int64 (m,), ascending: positions of the samples that this view looks at; each is one with chance ``share``."""
    if share == 1:
        return torch.arange(len(hashes))
    mixed = _mixed(hashes ^ np.uint64(derive_seed(seed, "share of view", view)))
    # 53 bits, as many as a float has: so the comparison is exact.
    chosen = (mixed >> np.uint64(11)).astype(np.float64) < share * 2.0**53
    return torch.from_numpy(np.flatnonzero(chosen))


def _mixed(values: Hashes) -> Hashes:
    """Every bit made to depend on all bits: the last steps of splitmix64 (Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
