"""The in-memory type for labelled data that everything else takes: how data become it, and how they keep to a spec."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from fedcl_distill.data.arrays import Pair, numbered, pixel_normalisation
from fedcl_distill.data.spec import DataSpec, Described, Normalisation
from fedcl_distill.errors import DataError

if TYPE_CHECKING:
    from fedcl_distill.data.dataset import DataLike

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False, repr=False)
class LabelledData(Described):
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
    def sample_bytes(self) -> int:
        """Bytes of one sample as it is, with its label in as many whole bytes as number the classes."""
        values = math.prod(self.sample_shape) * self.samples.element_size()
        return values + (1 if self.num_classes <= 256 else 2)

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


def image_splits(
    train: Pair,
    test: Pair,
    *,
    name: str,
    class_names: Sequence[str] | None = None,
    normalisation: Normalisation | None = None,
    allow_hflip: bool = False,
    notes: Sequence[str] = (),
) -> Splits:
    """Build splits from uint8 images (n, channels, height, width).

    Without class names, classes are the numbers that occur among the training labels, named by these; the
    normalisation is measured on ``train``.

    Raises:
        DataError: no training images, two image shapes, or labels without a class.
    """
    if train[0].numel() == 0:
        raise DataError(f"{name}: the training images are empty, of shape {tuple(train[0].shape)}")
    if train[0].shape[1:] != test[0].shape[1:]:
        shapes = f"{tuple(train[0].shape[1:])} and {tuple(test[0].shape[1:])}"
        raise DataError(f"{name}: training and test images differ in shape (channels, height, width): {shapes}")
    for images, targets in (train, test):
        if len(images) != len(targets):
            raise DataError(f"{name}: {len(images)} samples need labels of as many samples, got {len(targets)}")
    labels, names = numbered(train[1], class_names, name)
    if not class_names:  # training labels name the classes, also those of the test data
        train, test = (train[0], labels), (test[0], numbered([*map(str, test[1].tolist())], names, f"{name} (test)")[0])
    measured = normalisation or pixel_normalisation(train[0])
    spec = DataSpec(tuple(train[0].shape[1:]), names, measured, allow_hflip=allow_hflip)
    return Splits(
        train=LabelledData(*train, spec, name, notes=tuple(notes)),
        test=LabelledData(*test, spec, f"{name} (test)", notes=tuple(notes)),
    )


def as_labelled(data: DataLike) -> LabelledData:
    """``data`` as what everything here works on; every public function that takes data calls this.

    Args:
        data: :class:`LabelledData` (returned as it is); a synthetic set (its samples with hard labels); any map-style
            data set, Hugging Face's included, as :func:`from_dataset` reads it; a ``DataLoader``, of which only the
            data set counts (batch size, sampler and ``collate_fn`` are ignored, and logged); or a pair (X, y) of
            tensors or arrays, as :func:`from_arrays` reads it.

    Raises:
        DataError: it is none of these, or what it holds does not fit together.

    Example:
        >>> as_labelled((torch.rand(4, 3), torch.tensor([0, 1, 1, 0]))).class_names
        ('0', '1')
    """
    if isinstance(data, LabelledData):
        return data
    from fedcl_distill.data.dataset import from_arrays, from_dataset

    if isinstance(data, Splits):
        raise DataError("these are splits; give one part, .train or .test")
    if hasattr(data, "as_labelled_data"):
        made: LabelledData = data.as_labelled_data()
        return made
    if isinstance(data, DataLoader):
        _LOG.info("of a DataLoader only its data set is read; batch size, sampler and collate_fn are ignored")
        return from_dataset(data.dataset)  # type: ignore[arg-type]
    if isinstance(data, Mapping):
        raise DataError(f"this is a dict of splits {sorted(map(str, data))[:20]}; give one of them")
    if hasattr(data, "columns") and hasattr(data, "iloc"):
        raise DataError("a data frame does not say which column is the label: give from_dataframe(frame, label=…)[0]")
    if isinstance(data, tuple) and len(data) == 2 and all(hasattr(one, "__len__") for one in data):
        return from_arrays(*data)
    return from_dataset(data)  # type: ignore[arg-type]


RANGE_SLACK = 10.0
"""How far real values may leave the range that was agreed on, as a multiple of its width: beyond is another unit."""
_MOST_NAMES = 10


def conform(data: LabelledData, spec: DataSpec) -> LabelledData:
    """``data`` as data of the kind that ``spec`` describes: the same samples, in its order and on its scale.

    Labels go by the names of classes, whatever their order here; classes that ``data`` lack have no samples. Columns of
    tables go by their names where both sides name them. Normalisation, permission to mirror and tasks are those of
    ``spec``; so is the range, but that float values which leave it (by at most ten times its width) widen it here, and
    a warning says so.

    Args:
        data: as some reader gave them.
        spec: what all who work together agreed on.

    Raises:
        DataError: samples have another shape or backbone, a class with samples or a column has no counterpart, a name
            stands for two of them, or values are far outside the range.

    Example:
        >>> here = from_arrays([[1.0, 2.0], [3.0, 4.0]], ["dog", "cat"])
        >>> agreed = replace(here.spec, class_names=("dog", "cat", "cow"))
        >>> here.labels.tolist(), conform(here, agreed).labels.tolist()
        ([1, 0], [0, 1])
    """
    if data.spec == spec and data.spec.feature_names == spec.feature_names:
        return data
    if data.spec.backbone != spec.backbone:
        raise DataError(f"{data.name}: samples are {data.spec.made_by}; agreed on are {spec.made_by}")
    samples, labels = _in_columns_of(spec, data), _in_classes_of(spec, data)
    agreed = replace(spec, value_range=_range_of(samples, spec, data.name))
    return replace(data, samples=samples, labels=labels, spec=agreed)


def _in_columns_of(spec: DataSpec, data: LabelledData) -> Tensor:
    own, wanted = data.spec.feature_names, spec.feature_names
    if own and wanted and own != wanted:
        missing, more = _without(wanted, own), _without(own, wanted)
        if missing or more:
            raise DataError(f"{data.name}: columns differ from what was agreed on: {_differences(missing, more)}")
        return data.samples[:, _places(own, wanted, f"{data.name}: column")]
    if data.sample_shape != spec.sample_shape:
        hint = "; let load_data put images through a backbone" if data.is_image and not spec.is_image else ""
        raise DataError(f"{data.name}: samples have shape {data.sample_shape}, agreed on is {spec.sample_shape}{hint}")
    return data.samples


def _in_classes_of(spec: DataSpec, data: LabelledData) -> Tensor:
    own, wanted = data.class_names, spec.class_names
    if own == wanted:
        return data.labels
    held = [name for name, count in zip(own, data.class_counts.tolist(), strict=True) if count]
    unknown = _without(held, wanted)
    if unknown:
        raise DataError(
            f"{data.name}: class {_listed(unknown)} is none of those agreed on, {_listed(wanted)}"
            + _unnamed(own, wanted)
        )
    _places(own, held, f"{data.name}: class")
    places = torch.zeros(len(own), dtype=torch.int64)
    places[data.class_counts > 0] = torch.tensor(_places(wanted, held, f"{data.name}: class"), dtype=torch.int64)
    return places[data.labels]


def _places(names: Sequence[str], wanted: Sequence[str], what: str) -> list[int]:
    """Where each of ``wanted`` is among ``names``."""
    twice = next((name for name in wanted if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{what} {twice[:50]!r} is there twice: names do not tell which is which")
    return [names.index(name) for name in wanted]


def _range_of(samples: Tensor, spec: DataSpec, name: str) -> tuple[float, float]:
    low, high = spec.value_range
    if samples.dtype == torch.uint8 or not len(samples):
        if samples.dtype == torch.uint8 and (low, high) != (0, 1):
            raise DataError(f"{name}: 8-bit pixels stand for values in [0, 1], agreed on is [{low:g}, {high:g}]")
        return low, high
    smallest, largest = (float(end) for end in torch.aminmax(samples))
    if low <= smallest and largest <= high:
        return low, high
    margin = RANGE_SLACK * (high - low)
    if smallest < low - margin or largest > high + margin:
        raise DataError(
            f"{name}: values span [{smallest:g}, {largest:g}], far outside [{low:g}, {high:g}], which was agreed on: "
            "are they in another unit?"
        )
    outside = int(((samples < low) | (samples > high)).flatten(1).any(dim=1).sum())
    _LOG.warning(
        "%s: %d of %d samples leave the range that was agreed on, [%g, %g]: values span [%g, %g]",
        *(name, outside, len(samples), low, high, smallest, largest),
    )
    return min(low, smallest), max(high, largest)


def _without(names: Sequence[str], others: Sequence[str]) -> list[str]:
    known = set(others)
    return [name for name in names if name not in known]


def _differences(missing: Sequence[str], more: Sequence[str]) -> str:
    both = (("missing are", missing), ("nobody knows", more))
    return "; ".join(f"{what} {_listed(names)}" for what, names in both if names)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name[:50]) for name in names[:_MOST_NAMES])
    return shown + (f", … ({len(names)} in all)" if len(names) > _MOST_NAMES else "")


def _unnamed(own: Sequence[str], wanted: Sequence[str]) -> str:
    """Advice where one side has numbers for names."""
    numbered = [all(name.isdigit() for name in names) for names in (own, wanted)]
    if numbered[0] == numbered[1]:
        return ""
    who = "these data" if numbered[0] else "those"
    return f"; {who} have numbers for names: give class_names=… where they are read"
