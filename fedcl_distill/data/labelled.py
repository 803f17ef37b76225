"""The in-memory type for labelled data that everything else takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fedcl_distill.errors import DataError


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

    def _broadcast(self, like: Tensor) -> tuple[Tensor, Tensor]:
        shape = (1, -1) + (1,) * (like.ndim - 2)
        return like.new_tensor(self.mean).view(shape), like.new_tensor(self.std).view(shape)

    @classmethod
    def of(cls, unit: Tensor, *, min_std: float = 1e-6) -> Normalisation:
        """Measure the normalisation of ``unit``, float (n, channels, …): a constant channel gets deviation 1."""
        flat = unit.double().transpose(0, 1).flatten(1)
        std = flat.std(dim=1, correction=0)
        std = torch.where(std < min_std, torch.ones_like(std), std)
        return cls(tuple(flat.mean(dim=1).tolist()), tuple(std.tolist()))


@dataclass(frozen=True)
class LabelledData:
    """Labelled samples in memory.

    Attributes:
        samples: uint8 images (n, channels, height, width), or float32 (n, features) or float32 images in unit values.
        labels: int64 (n,), each in [0, number of class names).
        class_names: one name a class; defines the number of classes, also of those without a sample here.
        normalisation: what maps unit values to network inputs; subsets and test data share the training data's.
        value_range: smallest and largest unit value that a sample may take; (0, 1) for uint8 images.
        name: what reports call the data.
        allow_hflip: whether an image seen in a mirror keeps its class (not so for digits); augmentation asks.
        groups: int64 (n,) natural groups (a hospital, a writer) for natural partitions, if the data have them.
        group_names: one name a group.

    Raises:
        DataError: on construction, if shapes, dtypes, labels or values break the above (NaN and infinity included).
    """

    samples: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    normalisation: Normalisation
    value_range: tuple[float, float] = (0.0, 1.0)
    name: str = "data"
    allow_hflip: bool = True
    groups: Tensor | None = None
    group_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_samples(self.samples, self.value_range, self.name)
        _check_labels(self.labels, len(self.samples), len(self.class_names), self.name)
        channels = self.samples.shape[1]
        if len(self.normalisation.mean) != channels:
            raise DataError(
                f"{self.name}: normalisation for {len(self.normalisation.mean)} channels, samples have {channels}"
            )
        if self.groups is not None:
            _check_labels(self.groups, len(self.samples), len(self.group_names), f"{self.name} (groups)")

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample: (channels, height, width) or (features,)."""
        return tuple(self.samples.shape[1:])

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample as it is, with its label in as many whole bytes as number the classes."""
        values = math.prod(self.sample_shape) * self.samples.element_size()
        return values + (1 if self.num_classes <= 256 else 2)

    @property
    def is_image(self) -> bool:
        return self.samples.ndim == 4

    @property
    def class_counts(self) -> Tensor:
        """int64 (classes,): how many samples each class has; 0 for an absent class."""
        return torch.bincount(self.labels, minlength=self.num_classes)

    def indices_of(self, label: int) -> Tensor:
        """int64 (count,): positions of the samples of class ``label``, ascending."""
        return torch.nonzero(self.labels == label).flatten()

    def unit(self, indices: Tensor | slice = slice(None)) -> Tensor:
        """float32 unit values of the chosen samples: uint8 pixels divided by 255, floats as they are."""
        chosen = self.samples[indices]
        return chosen.float().div_(255) if chosen.dtype == torch.uint8 else chosen

    def inputs(self, indices: Tensor | slice = slice(None)) -> Tensor:
        """float32 network inputs of the chosen samples: normalised unit values."""
        return self.normalisation.apply(self.unit(indices))

    def subset(self, indices: Tensor, name: str | None = None) -> LabelledData:
        """The chosen samples (int64 (k,)), with this data's classes, normalisation and range."""
        return replace(
            self,
            samples=self.samples[indices],
            labels=self.labels[indices],
            groups=None if self.groups is None else self.groups[indices],
            name=self.name if name is None else name,
        )

    def require_every_class(self) -> None:
        """Raise DataError if a class has no sample."""
        absent = [self.class_names[c] for c in (self.class_counts == 0).nonzero().flatten().tolist()]
        if absent:
            raise DataError(f"{self.name}: no samples of class {', '.join(absent[:10])}; every class needs one")

    @classmethod
    def from_tensors(
        cls,
        samples: Tensor,
        labels: Tensor,
        *,
        class_names: Sequence[str] | None = None,
        normalisation: Normalisation | None = None,
        value_range: tuple[float, float] | None = None,
        name: str = "data",
        allow_hflip: bool = True,
    ) -> LabelledData:
        """Build from tensors, measuring what is not given.

        Grey images may come as (n, height, width). Class names default to "0", "1", … up to the largest label; the
        normalisation is measured on these samples; the range of float samples is their smallest and largest value.

        Raises:
            DataError: as for the class itself, and where there is no sample to measure from.
        """
        if samples.ndim == 3:
            samples = samples.unsqueeze(1)
        labels = labels.long() if labels.dtype in _INTEGERS else labels
        _check_samples(samples, None, name)
        if len(samples) == 0:
            raise DataError(f"{name}: there are no samples")
        if class_names is None:
            class_names = [str(c) for c in range(int(labels.max()) + 1)] if labels.numel() else []
        if samples.dtype != torch.uint8:
            samples = samples.float()
        unit = samples.float() / 255 if samples.dtype == torch.uint8 else samples
        if value_range is None:
            value_range = (0.0, 1.0) if samples.dtype == torch.uint8 else (float(unit.min()), float(unit.max()))
        return cls(
            samples=samples,
            labels=labels,
            class_names=tuple(class_names),
            normalisation=normalisation or Normalisation.of(unit),
            value_range=value_range,
            name=name,
            allow_hflip=allow_hflip,
        )


@dataclass(frozen=True)
class Splits:
    """Training and test data of one data set; both carry the normalisation of the training data."""

    train: LabelledData
    test: LabelledData


_INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def _check_samples(samples: Tensor, value_range: tuple[float, float] | None, name: str) -> None:
    if samples.ndim not in (2, 4):
        raise DataError(
            f"{name}: samples must be (n, channels, height, width) or (n, features), got {tuple(samples.shape)}"
        )
    if 0 in samples.shape[1:]:
        raise DataError(f"{name}: samples have an empty dimension: {tuple(samples.shape)}")
    if samples.dtype == torch.uint8:
        return
    if not samples.is_floating_point():
        raise DataError(f"{name}: samples must be uint8 or floating point, got {samples.dtype}")
    bad = ~torch.isfinite(samples.flatten(1)).all(dim=1)
    if bad.any():
        first = int(bad.nonzero()[0])
        raise DataError(f"{name}: {int(bad.sum())} samples hold NaN or infinity, the first at index {first}")
    if value_range is not None and len(samples):
        low, high = float(samples.min()), float(samples.max())
        slack = 1e-4 * max(1.0, abs(value_range[0]), abs(value_range[1]))
        if low < value_range[0] - slack or high > value_range[1] + slack:
            raise DataError(f"{name}: values span [{low:g}, {high:g}], outside the stated range {value_range}")


def _check_labels(labels: Tensor, count: int, classes: int, name: str) -> None:
    if labels.ndim != 1 or len(labels) != count:
        raise DataError(f"{name}: {count} samples need labels of shape ({count},), got {tuple(labels.shape)}")
    if labels.dtype != torch.int64:
        raise DataError(f"{name}: labels must be int64, got {labels.dtype}")
    if classes == 0:
        raise DataError(f"{name}: there are no classes")
    if count and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise DataError(f"{name}: labels span [{int(labels.min())}, {int(labels.max())}], expected [0, {classes - 1}]")
