"""What data look like, without the data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from fedcl_distill.errors import DataError

_FLOAT32 = torch.finfo(torch.float32)


@dataclass(frozen=True)
class Normalisation:
    """Per-channel (or per-feature) mean and standard deviation, in unit values (pixels in [0, 1], raw features)."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std):
            raise DataError(f"normalisation has {len(self.mean)} means but {len(self.std)} standard deviations")
        if not all(0 < value < float("inf") for value in self.std):
            raise DataError(f"normalisation needs positive, finite standard deviations, got {self.std}")
        if not all(abs(value) < float("inf") for value in self.mean):
            raise DataError(f"normalisation needs finite means, got {self.mean}")

    def apply(self, unit: Tensor) -> Tensor:
        """Map unit values, float (n, channels, height, width) or (n, features), to what a network reads."""
        mean, std = self._broadcast(unit)
        return (unit - mean).div_(std)

    def invert(self, inputs: Tensor) -> Tensor:
        """Map network inputs back to unit values; the inverse of :meth:`apply`."""
        mean, std = self._broadcast(inputs)
        return inputs * std + mean

    def _broadcast(self, values: Tensor) -> tuple[Tensor, Tensor]:
        shape = (1, -1) + (1,) * (values.ndim - 2)
        return values.new_tensor(self.mean).view(shape), values.new_tensor(self.std).view(shape)

    @classmethod
    def of(cls, unit: Tensor) -> Normalisation:
        """Measure the normalisation of ``unit``, float (n, channels, …): a constant channel gets deviation 1.

        Constant is what deviates by no more than float32 resolves at its mean, however small that is.

        Numbers are rounded to float32, in which they are applied: payloads so carry them in half the bytes.
        """
        variance, mean = torch.var_mean(unit.double().transpose(0, 1).flatten(1), dim=1, correction=0)
        return cls.of_moments(mean, variance)

    @classmethod
    def of_moments(cls, mean: Tensor, variance: Tensor) -> Normalisation:
        """What :meth:`of` gives for data of this ``mean`` and ``variance``, float64 (channels,)."""
        std = variance.sqrt()
        varies = (std > _FLOAT32.eps * mean.abs()) & (std > _FLOAT32.tiny)
        std = std.where(varies, std.new_ones(()))
        return cls(tuple(mean.float().tolist()), tuple(std.float().tolist()))

    def applies_like(self, other: Normalisation) -> bool:
        """Whether both map values alike, in float32."""
        return torch.equal(torch.tensor([self.mean, self.std]), torch.tensor([other.mean, other.std]))


@dataclass(frozen=True)
class DataSpec:
    """What data look like: all that networks, augmentation, payloads and a federation must agree on.

    :class:`LabelledData` and :class:`~fedcl_distill.synthetic.SyntheticSet` carry one, and so do payloads.

    Attributes:
        sample_shape: of one sample: (channels, height, width) or (features,).
        class_names: one name a class, in the order of labels; also of classes without a sample.
        normalisation: maps unit values (pixels in [0, 1], raw features) to network inputs.
        value_range: smallest and largest unit value that a real sample may take; (0, 1) for 8-bit images.
        allow_hflip: whether an image seen in a mirror keeps its class (not so for digits); augmentation asks. It is
            told, never guessed: False unless whoever knows the data says so.
        tasks: the task of each class, for streams that tell the task; None where there are none.
        backbone: fingerprint of the frozen network that made the features; "" for data as they are. Features of
            different networks are data of different kinds.
        feature_names: one name a feature, where they are known; they say what exported tables call their columns and
            do not count when specs are compared.
        feature_ranges: smallest and largest value of each feature, where they are known: what clamped methods keep to,
            and exported tables are clipped to. They stay at home: records, payloads and comparisons leave them out.

    Raises:
        DataError: on construction, if these do not fit each other.

    Example:
        >>> grey = DataSpec((1, 28, 28), ("cat", "dog"), Normalisation((0.5,), (0.25,)), allow_hflip=True)
        >>> grey.num_classes, grey.is_image
        (2, True)
        >>> grey.describe_difference(DataSpec((1, 32, 32), ("cat", "dog"), grey.normalisation))
        'samples have shape (1, 32, 32), expected (1, 28, 28)'
    """

    sample_shape: tuple[int, ...]
    class_names: tuple[str, ...]
    normalisation: Normalisation
    value_range: tuple[float, float] = (0.0, 1.0)
    allow_hflip: bool = False
    tasks: tuple[int, ...] | None = None
    backbone: str = ""
    feature_names: tuple[str, ...] = field(default=(), compare=False)
    feature_ranges: tuple[tuple[float, float], ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        shape, channels = tuple(self.sample_shape), len(self.normalisation.mean)
        if len(shape) not in (1, 3) or min(shape) < 1:
            raise DataError(f"samples must be (channels, height, width) or (features,), got shape {shape}")
        if not self.class_names:
            raise DataError("there are no classes")
        if channels != shape[0]:
            raise DataError(f"normalisation for {channels} channels, samples have {shape[0]}")
        low, high = self.value_range
        if not -math.inf < low <= high < math.inf:
            raise DataError(f"value range must ascend and be finite, got [{low}, {high}]")
        if self.tasks is not None and len(self.tasks) != self.num_classes:
            raise DataError(f"{len(self.tasks)} tasks for {self.num_classes} classes: each class needs one")
        if self.feature_names and (len(self.feature_names),) != shape:
            raise DataError(f"{len(self.feature_names)} feature names for samples of shape {shape}")
        if self.feature_ranges and (len(self.feature_ranges),) != shape:
            raise DataError(f"{len(self.feature_ranges)} feature ranges for samples of shape {shape}")

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def is_image(self) -> bool:
        return len(self.sample_shape) == 3

    def covering(self, samples: Tensor) -> DataSpec:
        """This spec with ranges that reach as far as ``samples``, float (n, features), and as far as they did."""
        low, high = (bounds.tolist() for bounds in torch.aminmax(samples, dim=0))
        known = self.feature_ranges or tuple(zip(low, high, strict=True))
        ranges = tuple((min(a, b), max(c, d)) for (a, c), b, d in zip(known, low, high, strict=True))
        bounds = [self.value_range] if self.feature_ranges else []
        value_range = (min(a for a, _ in [*ranges, *bounds]), max(b for _, b in [*ranges, *bounds]))
        return replace(self, feature_ranges=ranges, value_range=value_range)

    @property
    def made_by(self) -> str:
        """Of which backbone samples are features, in words."""
        return f"features of the backbone {self.backbone[:50]!r}" if self.backbone else "of no backbone that is named"

    def describe_difference(self, other: DataSpec) -> str | None:
        """What ``other`` has otherwise than this spec, in one clause; None where they describe data of one kind.

        Tasks count where both know them. ``allow_hflip`` is a permission, not a kind of data, and does not count.
        """
        if other.sample_shape != self.sample_shape:
            return f"samples have shape {other.sample_shape}, expected {self.sample_shape}"
        if other.num_classes != self.num_classes:
            return f"there are {other.num_classes} classes, expected {self.num_classes}"
        for found, expected in zip(other.class_names, self.class_names, strict=True):
            if found != expected:
                return f"there is a class {found[:50]!r} where {expected[:50]!r} was expected"
        if not other.normalisation.applies_like(self.normalisation):
            return "normalised with another mean or standard deviation than expected"
        if other.value_range != self.value_range:
            return f"value range {other.value_range}, expected {self.value_range}"
        if other.backbone != self.backbone:
            return f"they are {other.made_by}, expected {self.made_by}"
        if None not in (self.tasks, other.tasks) and other.tasks != self.tasks:
            return "classes belong to other tasks than expected"
        return None

    def check(self, data: DataSpec | Any) -> None:
        """Return if ``data`` (a spec, or what carries one) are of the kind that this spec describes.

        Raises:
            DataError: they are not; the message says what was found and what was expected.
        """
        difference = self.describe_difference(spec_of(data))
        if difference is not None:
            raise DataError(f"{getattr(data, 'name', 'data')}: {difference}")

    @classmethod
    def common(cls, specs: Sequence[DataSpec]) -> DataSpec:
        """One spec for data of all ``specs`` together: they may be mirrored if each of them may.

        Raises:
            DataError: there is none, or they differ in shape, classes, normalisation, range or tasks.
        """
        if not specs:
            raise DataError("no data, so nothing says what they look like")
        first = specs[0]
        for other in specs[1:]:
            difference = first.describe_difference(other)
            if difference is not None:
                raise DataError(f"cannot unite data of different kinds: {difference}")
        return replace(
            first,
            allow_hflip=all(one.allow_hflip for one in specs),
            tasks=next((one.tasks for one in specs if one.tasks is not None), None),
            feature_names=next((one.feature_names for one in specs if one.feature_names), ()),
            feature_ranges=first.feature_ranges if all(o.feature_ranges == first.feature_ranges for o in specs) else (),
        )

    def as_record(self) -> dict[str, Any]:
        """JSON values that :meth:`from_record` reads; tasks, backbone and names of features where known."""
        record: dict[str, Any] = {
            "sample_shape": list(self.sample_shape),
            "class_names": list(self.class_names),
            "mean": [float(value) for value in self.normalisation.mean],
            "std": [float(value) for value in self.normalisation.std],
            "value_range": [float(value) for value in self.value_range],
            "allow_hflip": self.allow_hflip,
        }
        optional = {"tasks": self.tasks, "feature_names": self.feature_names}
        record |= {"backbone": self.backbone} if self.backbone else {}
        return record | {name: list(value) for name, value in optional.items() if value}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> DataSpec:
        """The spec that :meth:`as_record` wrote.

        Raises:
            DataError: something is missing, superfluous or out of place.
        """
        known = {"sample_shape", "class_names", "mean", "std", "value_range", "allow_hflip"}
        optional = {"tasks", "backbone", "feature_names"}
        missing, superfluous = known - set(record), set(record) - known - optional
        if missing or superfluous:
            raise DataError(f"data spec: missing {sorted(missing)}, superfluous {sorted(superfluous)}")
        try:
            low, high = (float(value) for value in record["value_range"])
            return cls(
                sample_shape=tuple(int(size) for size in record["sample_shape"]),
                class_names=tuple(str(name) for name in record["class_names"]),
                normalisation=Normalisation(
                    tuple(float(value) for value in record["mean"]), tuple(float(value) for value in record["std"])
                ),
                value_range=(low, high),
                allow_hflip=bool(record["allow_hflip"]),
                tasks=tuple(int(task) for task in record["tasks"]) if record.get("tasks") else None,
                backbone=str(record.get("backbone", "")),
                feature_names=tuple(str(name) for name in record.get("feature_names", ())),
            )
        except (TypeError, ValueError, OverflowError) as error:
            raise DataError(f"data spec: a value is out of place: {error}") from error


class Described:
    """Whatever carries a spec, with its fields as attributes."""

    spec: DataSpec

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.spec.class_names

    @property
    def num_classes(self) -> int:
        return self.spec.num_classes

    @property
    def normalisation(self) -> Normalisation:
        return self.spec.normalisation

    @property
    def value_range(self) -> tuple[float, float]:
        return self.spec.value_range

    @property
    def allow_hflip(self) -> bool:
        return self.spec.allow_hflip

    @property
    def is_image(self) -> bool:
        return self.spec.is_image


def spec_of(data: DataSpec | Any) -> DataSpec:
    """The spec of ``data``: itself, or the ``spec`` of labelled data, a synthetic set or the training part of splits.

    Raises:
        DataError: ``data`` carry none.
    """
    spec = data if isinstance(data, DataSpec) else getattr(getattr(data, "train", data), "spec", None)
    if not isinstance(spec, DataSpec):
        raise DataError(
            f"a {type(data).__name__} does not say what its data look like; give a DataSpec, LabelledData or a "
            "SyntheticSet (from_dataset makes LabelledData of any data set)"
        )
    return spec
