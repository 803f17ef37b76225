"""Data of any kind as :class:`LabelledData`: torch data sets, Hugging Face, loaders, arrays."""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from fedcl_distill.data.arrays import numbered, pixel_normalisation
from fedcl_distill.data.labelled import LabelledData, grey_images, plain
from fedcl_distill.data.pictures import Fit, is_pil_image, pixels_of, resized
from fedcl_distill.data.spec import Normalisation
from fedcl_distill.errors import DataError

_LOG = logging.getLogger(__name__)


class MapStyle(Protocol):
    """What is needed of a data set: a length and items by position."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


DataLike: TypeAlias = LabelledData | MapStyle | DataLoader[Any] | tuple[Any, Any]
"""Whatever :func:`as_labelled` reads."""

SAMPLE_KEYS = ("image", "img", "pixel_values")
LABEL_KEYS = ("label", "labels", "fine_label")
_NATURAL_IMAGES = frozenset({"CIFAR10", "CIFAR100", "FashionMNIST", "STL10", "Flowers102", "OxfordIIITPet", "Food101"})
_REPEATED = "grey, repeated to three channels"
_CHUNK = 16  # items that are held as they came, before they become bytes


def from_dataset(
    dataset: MapStyle,
    *,
    keys: tuple[str, str] | None = None,
    size: int | tuple[int, int] | None = None,
    fit: Fit = "crop",
    channels: Literal["first", "last"] | None = None,
    class_names: Sequence[str] | None = None,
    normalisation: Normalisation | None = None,
    value_range: tuple[float, float] | None = None,
    name: str | None = None,
    allow_hflip: bool | None = None,
    seed: int = 0,
) -> LabelledData:
    """Read every item of ``dataset`` into memory: once each, in order, transforms included.

    Random transforms so give one draw an item. They draw from torch's, numpy's and Python's global random states,
    which are seeded with ``seed`` for the time of reading and put back afterwards.

    Args:
        dataset: items are ``(sample, label, …)``, of which anything after the label is ignored (Avalanche adds a task
            label), or dicts, as those of Hugging Face and flwr-datasets. A sample is a PIL image, or a tensor or array
            (channels, height, width), (height, width, channels), (height, width) or (features,); what a label may be
            says :func:`~fedcl_distill.data.arrays.numbered`. PIL images become 8-bit pixels as
            :func:`~fedcl_distill.data.pictures.pixels_of` says; grey ones among coloured ones get three channels.
        keys: where items are dicts, those of sample and label; by default "image", "img" or "pixel_values" and
            "label", "labels" or "fine_label", if an item has just one of each.
        size, fit: of PIL images, as for :func:`~fedcl_distill.data.load_image_folder`.
        channels: where tensors and arrays of 3 dimensions have their channels. None takes the one place that has 1, 3
            or 4 entries, and the first where both or neither have; cubes are refused, for they may be volumes.
        class_names: default those that ``dataset`` knows (``classes``, or the names of Hugging Face's feature; of what
            is below a ``Subset`` too). Else classes are the texts or numbers that occur.
        normalisation: default measured on these samples; pass the training data's for test data.
        value_range: of float samples; default (0, 1) for images within it, else the smallest and largest value.
        name: default the class name of ``dataset``.
        allow_hflip: whether a mirrored image keeps its class. None allows it for torchvision's data sets of natural
            images (CIFAR, Fashion-MNIST, Flowers, …), and for no other data.
        seed: of what transforms draw.

    Returns:
        uint8 images where the items are 8-bit images, also after torchvision's ``ToTensor``; else float32 samples.

    Raises:
        DataError: not map-style, empty, items of another form, samples of several shapes or types, volumes,
            waveforms, several labels a sample.
    """
    base = _base(dataset)
    label = name or type(base).__name__
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise DataError(
            f"{label}: expected a map-style data set, with a length and items by position, "
            f"got a {type(dataset).__name__}"
        )
    reader = _Reader(label, keys, (size, size) if isinstance(size, int) else size, fit, channels)
    with _global_seed(seed):
        samples, raw_labels = reader.read(dataset)
    label_key = reader.keys[1] if reader.keys else None
    known = class_names or _class_names(base, label_key)
    labels, names = numbered(raw_labels, known, label)
    if samples.ndim == 3:
        samples = grey_images(samples, label)
    if samples.dtype == torch.uint8 and samples.ndim == 4 and normalisation is None:
        normalisation = pixel_normalisation(samples)
    data = LabelledData.from_tensors(
        samples,
        labels,
        class_names=names,
        normalisation=normalisation,
        value_range=value_range or _value_range(samples),
        name=label,
        allow_hflip=_is_natural(base) if allow_hflip is None else allow_hflip,
    )
    return replace(data, notes=reader.notes)


def from_arrays(
    samples: Any,
    labels: Any,
    *,
    channels: Literal["first", "last"] | None = None,
    class_names: Sequence[str] | None = None,
    normalisation: Normalisation | None = None,
    value_range: tuple[float, float] | None = None,
    name: str = "data",
    allow_hflip: bool = False,
    feature_names: Sequence[str] = (),
) -> LabelledData:
    """Build from numpy arrays, tensors or nested lists.

    Args:
        samples: (n, features); grey images (n, height, width); or colour images. Integers from 0 to 255 make 8-bit
            images; other numbers are taken as float32.
        labels: (n,) or (n, 1): whole numbers from 0 on, booleans or texts (numbered in sorted order).
        channels: where images of 4 dimensions have their channels. None decides if only one of the two places has 1,
            3 or 4 entries, and refuses otherwise.
        class_names, normalisation, value_range, name, allow_hflip: as for :func:`from_dataset`.
        feature_names: one name a feature.

    Raises:
        DataError: other shapes, text among numbers, NaN or infinity, or a place of channels that nothing tells.

    Example:
        >>> data = from_arrays([[0.0, 1.0], [2.0, 3.0]], ["no", "yes"])
        >>> data.sample_shape, data.class_names, data.labels.tolist()
        ((2,), ('no', 'yes'), [0, 1])
    """
    if channels not in (None, "first", "last"):
        raise DataError(f"{name}: channels must be 'first' or 'last', got {channels!r}")
    values = _numbers(samples, name)
    if values.ndim == 4 and (channels or place_of_channels(values.shape[1:], name)) == "last":
        values = values.transpose(0, 3, 1, 2)
    if values.ndim > 2 and values.dtype.kind in "iu" and values.dtype != np.uint8:
        if values.size and not 0 <= values.min() <= values.max() <= 255:
            raise DataError(f"{name}: whole-number images must lie within 0 and 255, or be given as floats")
        values = values.astype(np.uint8)
    if values.dtype != np.uint8 or values.ndim == 2:
        values = values.astype(np.float32)
    targets, names = numbered(labels, class_names, name)
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    if tensor.dtype == torch.uint8 and tensor.ndim == 3:
        tensor = grey_images(tensor, name)
    if tensor.dtype == torch.uint8 and len(tensor) and normalisation is None:
        normalisation = pixel_normalisation(tensor)
    return LabelledData.from_tensors(
        tensor,
        targets,
        class_names=names,
        normalisation=normalisation,
        value_range=value_range or _value_range(tensor),
        name=name,
        allow_hflip=allow_hflip,
        feature_names=feature_names,
    )


def _numbers(values: Any, name: str) -> NDArray[Any]:
    try:
        array = np.asarray(plain(values, name) if isinstance(values, Tensor) else values)
    except ValueError as error:
        raise DataError(f"{name}: samples have several lengths: {error}") from error
    if array.dtype.kind not in "biuf":
        raise DataError(
            f"{name}: samples must be numbers, got {array.dtype}; from_dataframe reads tables with texts and categories"
        )
    if array.ndim not in (2, 3, 4):
        raise DataError(f"{name}: samples must be (n, features) or images (n, …), got shape {array.shape}")
    return array.astype(np.uint8) if array.dtype.kind == "b" else array


def place_of_channels(
    shape: Sequence[int], where: str, unless_told: Literal["first", "last"] | None = None
) -> Literal["first", "last"]:
    """Where an image of this shape, 3 dimensions long, has its channels: the place that has 1, 3 or 4 entries.

    Args:
        shape: of one image.
        where: begins messages.
        unless_told: what holds if both places have, or neither has and it is no cube; None refuses then.

    Raises:
        DataError: nothing tells.
    """
    first, last = (size in (1, 3, 4) for size in (shape[0], shape[-1]))
    cube = len(set(shape)) == 1 and not first
    if first == last and (unless_told is None or cube):
        raise DataError(
            f"{where}: images of shape {tuple(shape)} do not tell where channels are: give channels='first' or 'last' "
            "(volumes are not supported)"
        )
    if first == last:
        return unless_told or "first"
    return "first" if first else "last"


@dataclass
class _Reader:
    """Reads items, and keeps account of what it did to pictures."""

    name: str
    keys: tuple[str, str] | None
    size: tuple[int, int] | None
    fit: Fit
    channels: Literal["first", "last"] | None
    done: Counter[str] = field(default_factory=Counter)

    def read(self, dataset: MapStyle) -> tuple[Tensor, list[Any]]:
        """All samples (as bytes where all are 8-bit pixels), and their labels as they came."""
        samples, labels, chunk = _Samples(len(dataset), self.name, self.done), list[Any](), list[Tensor]()
        for index, item in enumerate(_items(dataset)):
            where = f"{self.name}: item {index}"
            if isinstance(item, Mapping):
                self.keys = self.keys or _guess_keys(item, where)
                sample, target = (_entry(item, key, where) for key in self.keys)
            elif isinstance(item, tuple | list) and len(item) >= 2:
                sample, target = item[0], item[1]
            else:
                raise DataError(f"{where} is a {type(item).__name__}, expected (sample, label, …) or a dict of both")
            chunk.append(self._sample(sample, where))
            labels.append(target)
            if len(chunk) == _CHUNK:
                samples.add(chunk)
                chunk = []
        samples.add(chunk)
        return samples.values(), labels

    @property
    def notes(self) -> tuple[str, ...]:
        return tuple(f"{count} pictures {doing}" for doing, count in self.done.items() if count)

    def _sample(self, value: Any, where: str) -> Tensor:
        try:
            if is_pil_image(value):
                pixels = pixels_of(value, self.done)
                pixels = pixels if self.size is None else resized(pixels, self.size, self.fit, self.done)
                return torch.from_numpy(pixels.copy())
            sample = plain(value, where) if isinstance(value, Tensor) else torch.from_numpy(np.asarray(value))
        except (TypeError, ValueError) as error:
            raise DataError(f"{where}: the sample is no image, tensor or array: {error}") from error
        if sample.ndim == 3:
            place = self.channels or place_of_channels(sample.shape, where, unless_told="first")
            return sample if place == "first" else sample.permute(2, 0, 1)
        return sample


class _Samples:
    """Room for all samples: one byte a value as long as all are 8-bit pixels."""

    def __init__(self, count: int, name: str, notes: Counter[str]) -> None:
        self._count, self._name, self._done, self._notes = count, name, 0, notes
        self._first: Tensor | None = None
        self._room: Tensor | None = None

    def add(self, chunk: Sequence[Tensor]) -> None:
        if not chunk:
            return
        chunk = self._in_colour(chunk)
        self._check_alike(chunk)
        stacked = _as_pixels(torch.stack(list(chunk)))
        if self._room is None:
            self._room = torch.empty((self._count, *stacked.shape[1:]), dtype=stacked.dtype)
        elif self._room.dtype == torch.uint8 and stacked.dtype != torch.uint8:
            self._room = self._room.to(stacked.dtype).div_(255)  # what were pixels so far is as ToTensor gave it
        elif stacked.dtype == torch.uint8 and self._room.dtype != torch.uint8:
            stacked = torch.stack(list(chunk))
        self._room[self._done : self._done + len(chunk)] = stacked
        self._done += len(chunk)

    def values(self) -> Tensor:
        if self._room is None:
            raise DataError(f"{self._name}: there are no samples")
        return self._room

    def _in_colour(self, chunk: Sequence[Tensor]) -> Sequence[Tensor]:
        """``chunk`` with three channels in grey 8-bit images if any image so far has colour; the room follows."""
        channels = {len(one) for one in chunk if one.dtype == torch.uint8 and one.ndim == 3}
        seen = {len(self._first)} if self._first is not None and self._first.ndim == 3 else set[int]()
        if channels | seen != {1, 3} or (self._room is not None and self._room.dtype != torch.uint8):
            return chunk
        if self._room is not None and self._first is not None and len(self._first) == 1:
            self._room, self._first = self._room.repeat(1, 3, 1, 1), self._first.repeat(3, 1, 1)
            self._notes[_REPEATED] += self._done
        self._notes[_REPEATED] += sum(len(one) == 1 for one in chunk)
        return [one.repeat(3, 1, 1) if len(one) == 1 else one for one in chunk]

    def _check_alike(self, chunk: Sequence[Tensor]) -> None:
        first = self._first = chunk[0] if self._first is None else self._first
        for index, sample in enumerate(chunk, self._done):
            if sample.shape != first.shape or sample.dtype != first.dtype:
                raise DataError(
                    f"{self._name}: item {index} is {_form(sample)}, item 0 is {_form(first)}; all must be "
                    "alike (size=64 resizes PIL images, and crops them to squares)"
                )


def _items(dataset: MapStyle) -> Iterator[Any]:
    # By position up to the length: iterating would not end for data sets that never raise IndexError.
    return (dataset[index] for index in range(len(dataset)))


def _guess_keys(item: Mapping[str, Any], where: str) -> tuple[str, str]:
    found = [[key for key in keys if key in item] for keys in (SAMPLE_KEYS, LABEL_KEYS)]
    if any(len(keys) != 1 for keys in found):
        raise DataError(
            f"{where} is a dict with {sorted(map(str, item))[:20]}: say which are sample and label, "
            "such as from_dataset(data, keys=('img', 'label')); a table by from_dataframe(data.to_pandas(), label=…)"
        )
    return found[0][0], found[1][0]


def _entry(item: Mapping[str, Any], key: str, where: str) -> Any:
    if key not in item:
        raise DataError(f"{where} has no {key!r}, only {sorted(map(str, item))[:20]}")
    return item[key]


def _form(sample: Tensor) -> str:
    return f"{sample.dtype} {tuple(sample.shape)}"


def _as_pixels(samples: Tensor) -> Tensor:
    """Undo ``ToTensor``: float images whose every value is a multiple of 1/255 in [0, 1] become uint8."""
    if samples.ndim < 3 or not samples.is_floating_point():
        return samples
    pixels = (samples * 255).round().clamp(0, 255)
    # Two roundings of float32 lie between dividing by 255 and multiplying by its inverse.
    exact = torch.allclose(samples, pixels / 255, rtol=0, atol=1e-6)
    return pixels.to(torch.uint8) if exact else samples


def _value_range(samples: Tensor) -> tuple[float, float] | None:
    within = samples.ndim >= 3 and bool(((samples >= 0) & (samples <= 1)).all())
    return (0.0, 1.0) if within or samples.dtype == torch.uint8 else None


def _base(dataset: Any) -> Any:
    """What a ``Subset``, or another wrapper with a ``dataset``, looks at."""
    while not hasattr(dataset, "classes") and hasattr(dataset, "dataset"):
        dataset = dataset.dataset
    return dataset


def _class_names(base: Any, label_key: str | None) -> tuple[str, ...] | None:
    """What a torchvision or Hugging Face data set calls its classes."""
    classes = getattr(base, "classes", None)
    if label_key is not None and classes is None:
        features = getattr(base, "features", None)
        classes = getattr(features.get(label_key), "names", None) if isinstance(features, Mapping) else None
    return tuple(str(one) for one in classes) if isinstance(classes, list | tuple) and classes else None


def _is_natural(base: Any) -> bool:
    return type(base).__module__.startswith("torchvision.") and type(base).__name__ in _NATURAL_IMAGES


@contextmanager
def _global_seed(seed: int) -> Iterator[None]:
    """Seed what transforms draw from, and put it back afterwards."""
    python, arrays = random.getstate(), np.random.get_state()  # noqa: NPY002  (what transforms draw from)
    with torch.random.fork_rng(devices=[]):
        try:
            torch.default_generator.manual_seed(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002
            yield
        finally:
            random.setstate(python)
            np.random.set_state(arrays)  # noqa: NPY002
