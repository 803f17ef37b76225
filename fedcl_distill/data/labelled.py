"""The in-memory type for labelled data that everything else takes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fedcl_distill.data.spec import DataSpec, Normalisation
from fedcl_distill.data.targets import numbered
from fedcl_distill.errors import DataError


@dataclass(frozen=True, eq=False, repr=False)
class LabelledData:
    """Labelled samples in memory, with a :class:`DataSpec` that says what they look like.

    Attributes:
        samples: uint8 images (n, channels, height, width), or float32 (n, features) or float32 images in unit values.
        labels: int64 (n,), each in [0, number of class names).
        spec: shape, classes, normalisation, range and whether images may be mirrored; subsets and test data share the
            training data's. Its fields are attributes here too (``data.class_names``).
        name: what reports call the data.
        groups: int64 (n,) natural groups (a hospital, a writer) for natural partitions, if the data have them.
        group_names: one name a group.
        notes: what reading did to the samples and what it left out, one line each.

    Raises:
        DataError: on construction, if shapes, dtypes, labels or values break the above (NaN and infinity included).
    """

    samples: Tensor
    labels: Tensor
    spec: DataSpec
    name: str = "data"
    groups: Tensor | None = None
    group_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for what, tensor in (("samples", self.samples), ("labels", self.labels)):
            _check_plain(tensor, f"{self.name}: {what}")
        _check_samples(self.samples, self.spec.value_range, self.name)
        if self.sample_shape != tuple(self.spec.sample_shape):
            raise DataError(
                f"{self.name}: samples of shape {self.sample_shape}, its spec says {self.spec.sample_shape}"
            )
        _check_labels(self.labels, len(self.samples), self.num_classes, self.name)
        if self.groups is not None:
            _check_labels(self.groups, len(self.samples), len(self.group_names), f"{self.name} (groups)")

    def __len__(self) -> int:
        return len(self.samples)

    def __repr__(self) -> str:
        shape = "×".join(map(str, self.sample_shape))
        size = self.samples.numel() * self.samples.element_size()
        kind = str(self.samples.dtype).removeprefix("torch.")
        what = f"{len(self)} samples of {self.num_classes} classes"
        return f"LabelledData({self.name}: {what}, {kind} {shape}, {size:,} bytes)"

    def __eq__(self, other: object) -> bool:
        """The same samples, labels, spec and groups; names do not count."""
        if not isinstance(other, LabelledData):
            return NotImplemented
        pairs = ((self.samples, other.samples), (self.labels, other.labels), (self.groups, other.groups))
        return self.spec == other.spec and all(same_tensors(one, another) for one, another in pairs)

    __hash__ = None  # type: ignore[assignment]  # holds tensors, as a list holds items

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample: (channels, height, width) or (features,)."""
        return tuple(self.samples.shape[1:])

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.spec.class_names

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
    def num_classes(self) -> int:
        return self.spec.num_classes

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

    def with_spec(self, **changes: Any) -> LabelledData:
        """The same samples under a spec with these fields changed, such as ``normalisation`` or ``allow_hflip``."""
        return replace(self, spec=replace(self.spec, **changes))

    @classmethod
    def blank(cls, spec: DataSpec, counts: Sequence[int], name: str = "blank") -> LabelledData:
        """Data of this kind with so many samples of each class, none of which says anything: all are one constant.

        They stand where only the kind of data and their counts are asked for; a single sample takes up memory.
        """
        low, high = spec.value_range
        eight_bits = spec.is_image and (low, high) == (0, 1)
        constant = torch.zeros((1, *spec.sample_shape), dtype=torch.uint8 if eight_bits else torch.float32)
        return cls(
            samples=(constant + min(max(0, low), high)).to(constant.dtype).expand(sum(counts), *spec.sample_shape),
            labels=torch.arange(spec.num_classes).repeat_interleave(torch.tensor(counts)),
            spec=spec,
            name=name,
        )

    def require_every_class(self, wanted: Sequence[int] | None = None) -> None:
        """Raise DataError if a class has no sample; only classes of which ``wanted`` asks for some, if it is given."""
        counts = self.class_counts.tolist()
        needed = [True] * self.num_classes if wanted is None else [count > 0 for count in wanted]
        absent = [
            name for name, count, need in zip(self.class_names, counts, needed, strict=True) if need and not count
        ]
        if absent:
            raise DataError(
                f"{self.name}: no samples of class {', '.join(absent[:10])}; every class needs one "
                "(a count of 0, or absent_classes='skip' where data are distilled, does without)"
            )

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
        allow_hflip: bool = False,
        feature_names: Sequence[str] = (),
    ) -> LabelledData:
        """Build from tensors, measuring what is not given.

        Grey images may come as (n, height, width). Without class names, classes are the numbers that occur among the
        labels, named by these; the normalisation is measured on these samples; the range of float samples is their
        smallest and largest value. Images are not mirrored unless ``allow_hflip`` says that a mirrored image keeps its
        class. Tensors lose their gradients; other floats become float32.

        Raises:
            DataError: as for the class itself, and where there is no sample to measure from.
        """
        samples, labels = plain(samples, f"{name}: samples"), plain(labels, f"{name}: labels")
        if samples.ndim == 3:
            samples = grey_images(samples, name)
        if samples.is_floating_point():
            samples = samples.float()
        _check_samples(samples, None, name)
        if len(samples) == 0:
            raise DataError(f"{name}: there are no samples")
        if class_names is None:
            labels, class_names = numbered(labels, None, name)
        labels = labels.long() if labels.dtype in _INTEGERS else labels
        if value_range is None:
            bounds = (0.0, 1.0) if samples.dtype == torch.uint8 else tuple(map(float, torch.aminmax(samples)))
            value_range = (bounds[0], bounds[1])
        if normalisation is None:
            normalisation = Normalisation.of(samples.float() / 255 if samples.dtype == torch.uint8 else samples)
        spec = DataSpec(
            sample_shape=tuple(samples.shape[1:]),
            class_names=tuple(class_names),
            normalisation=normalisation,
            value_range=value_range,
            allow_hflip=allow_hflip,
            feature_names=tuple(feature_names),
        )
        return cls(samples, labels, spec, name)


@dataclass(frozen=True)
class Splits:
    """Training and test data of one data set; both carry the normalisation of the training data."""

    train: LabelledData
    test: LabelledData

    @property
    def notes(self) -> tuple[str, ...]:
        """What reading did to the samples of both parts and what it left out, one line each."""
        return tuple(dict.fromkeys([*self.train.notes, *self.test.notes]))


def same_tensors(one: Tensor | None, other: Tensor | None) -> bool:
    """Whether both are None, or hold the same values in the same shape and dtype, on whatever device."""
    if one is None or other is None:
        return one is other
    return one.dtype == other.dtype and torch.equal(one.cpu(), other.cpu())


def _check_plain(tensor: Any, what: str) -> None:
    plain(tensor, what)
    if tensor.requires_grad:
        raise DataError(f"{what}: must not require a gradient; give .detach() of them")


def plain(tensor: Any, what: str) -> Tensor:
    """``tensor`` on the CPU, dense and without a gradient.

    Raises:
        DataError: it is no tensor, sparse, or a meta tensor, which holds no values.
    """
    if not isinstance(tensor, Tensor):
        raise DataError(f"{what}: expected a tensor, got a {type(tensor).__name__}; from_arrays reads arrays and lists")
    if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
        kind = "meta" if tensor.is_meta else str(tensor.layout).removeprefix("torch.")
        raise DataError(f"{what}: expected a dense tensor with values, got a {kind} one")
    return tensor.detach().cpu()


def grey_images(samples: Tensor, name: str) -> Tensor:
    """Images (n, height, width) as (n, 1, height, width).

    Raises:
        DataError: they are of height 1, which waveforms are and images are not.
    """
    if samples.shape[1] == 1:
        raise DataError(
            f"{name}: samples of shape {tuple(samples.shape[1:])} look like waveforms; give vectors (features,), or "
            "spectrograms (1, height, width)"
        )
    return samples.unsqueeze(1)


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
    if samples.dtype != torch.float32:
        raise DataError(f"{name}: samples must be uint8 or floating point, in float32, got {samples.dtype}")
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
        raise DataError(f"{name}: there are no groups")
    if count and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise DataError(f"{name}: labels span [{int(labels.min())}, {int(labels.max())}], expected [0, {classes - 1}]")
