"""The sums themselves: they add up over clients and over time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.errors import DataError
from fedcl_distill.statistics.domain import Domain
from fedcl_distill.statistics.features import coarse_shape, feature_dimensions
from fedcl_distill.statistics.spec import BOUNDED, StatisticsSpec

FEATURES, SAMPLES, MOMENTS = "features", "samples", "moments"
_MOST_BLANK = 100_000
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
    domain: Domain
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
        return self.domain.blank(self.class_counts.clamp(max=_MOST_BLANK).tolist())

    def digest(self) -> str:
        """SHA-256, in hexadecimal, over counts and sums."""
        found = hashlib.sha256()
        for name in sorted(self.sums):
            for tensor in (self.sums[name].counts, self.sums[name].values):
                found.update(tensor.contiguous().numpy().data)
        return found.hexdigest()


def no_statistics(spec: StatisticsSpec, domain: Domain) -> ClassStatistics:
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


def shapes_of(spec: StatisticsSpec, domain: Domain) -> dict[str, tuple[int, int]]:
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
