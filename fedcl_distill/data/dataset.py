"""Any map-style PyTorch data set, read into memory once."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from fedcl_distill.data.files import is_pil_image, pixel_normalisation, pixels_of
from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.data.spec import Normalisation
from fedcl_distill.errors import DataError


class MapStyle(Protocol):
    """What is needed of a data set: a length and items by position."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


def from_dataset(
    dataset: MapStyle,
    *,
    class_names: Sequence[str] | None = None,
    normalisation: Normalisation | None = None,
    value_range: tuple[float, float] | None = None,
    name: str | None = None,
) -> LabelledData:
    """Read every item of ``dataset`` into memory.

    Args:
        dataset: items are ``(sample, label, …)``; anything after the label is ignored (Avalanche adds a task
            label). A sample is a PIL image, or a tensor or array (channels, height, width), (height, width)
            or (features,); a label is an integer.
        class_names: default ``dataset.classes`` where it has them, else "0", "1", … up to the largest label.
        normalisation: default measured on these samples; pass the training data's for test data.
        value_range: of float samples; default (0, 1) for images within it, else the smallest and largest
            value.
        name: default the class name of ``dataset``.

    Returns:
        uint8 images where the items are 8-bit images, also after torchvision's ``ToTensor``; else float32
        samples.

    Raises:
        DataError: not map-style, empty, items of another form, samples of several shapes or types.
    """
    label = name or type(dataset).__name__
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise DataError(f"{label}: expected a map-style data set, with a length and items by position")
    samples, labels = _read(dataset, label)
    samples = _as_pixels(samples)
    if samples.dtype == torch.uint8 and samples.ndim == 3:
        samples = samples.unsqueeze(1)
    if samples.dtype == torch.uint8 and samples.ndim == 4 and normalisation is None:
        normalisation = pixel_normalisation(samples)
    return LabelledData.from_tensors(
        samples,
        torch.tensor(labels, dtype=torch.int64),
        class_names=class_names or _class_names(dataset, labels),
        normalisation=normalisation,
        value_range=value_range or _value_range(samples),
        name=label,
    )


def _read(dataset: MapStyle, label: str) -> tuple[Tensor, list[int]]:
    samples: list[Tensor] = []
    labels: list[int] = []
    for index, item in enumerate(_items(dataset)):
        where = f"{label}: item {index}"
        if not isinstance(item, tuple | list) or len(item) < 2:
            raise DataError(f"{where} is a {type(item).__name__}, expected (sample, label, …)")
        samples.append(_sample(item[0], where))
        labels.append(_label(item[1], where))
    if not samples:
        raise DataError(f"{label}: there are no samples")
    for index, sample in enumerate(samples):
        if sample.shape != samples[0].shape or sample.dtype != samples[0].dtype:
            raise DataError(
                f"{label}: item {index} is {_form(sample)}, item 0 is {_form(samples[0])}; all must be alike"
            )
    return torch.stack(samples), labels


def _items(dataset: MapStyle) -> Iterator[Any]:
    # By position up to the length: iterating would not end for data sets that never raise IndexError.
    return (dataset[index] for index in range(len(dataset)))


def _sample(value: Any, where: str) -> Tensor:
    try:
        if is_pil_image(value):
            value = pixels_of(value).copy()
        if isinstance(value, Tensor):
            return value.detach().cpu()
        return torch.from_numpy(np.asarray(value))
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: the sample is no image, tensor or array: {error}") from error


def _label(value: Any, where: str) -> int:
    try:
        return operator.index(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{where}: the label must be one integer, got {value!r}") from error


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


def _class_names(dataset: MapStyle, labels: Sequence[int]) -> tuple[str, ...]:
    classes = getattr(dataset, "classes", None)
    if isinstance(classes, list | tuple) and classes:
        return tuple(str(c) for c in classes)
    return tuple(str(c) for c in range(max(labels) + 1))
