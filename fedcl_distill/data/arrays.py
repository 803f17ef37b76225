"""What all readers do with arrays: labels become int64, images get their normalisation, samples are split."""

from __future__ import annotations

import hashlib
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedcl_distill.data.spec import Normalisation
from fedcl_distill.errors import DataError, SettingsError
from fedcl_distill.seeding import generator_for


def numbered(labels: Any, names: Sequence[str] | None, where: str) -> tuple[Tensor, tuple[str, ...]]:
    """int64 labels (n,) and the names of their classes.

    Args:
        labels: one a sample: whole numbers (as floats, too), booleans, texts, bytes (UTF-8), or one-hot rows (n,
            classes); arrays, tensors or sequences, (n, 1) as well as (n,).
        names: of the classes. Numbers and one-hot rows are positions in them, texts must be among them. None takes
            the texts in sorted order; of numbers, those that occur, in ascending order and named by themselves, so that
            labels from 1 on, or with gaps, make no class that nothing belongs to; of one-hot rows, all columns.
        where: begins messages.

    Raises:
        DataError: several labels a sample, probabilities, numbers that are not whole or (without names) negative, or
            anything else.

    Example:
        >>> numbered([3, 1, 3], None, "data")
        (tensor([1, 0, 1]), ('1', '3'))
    """
    values = _array(labels, where)
    if values.ndim == 2:
        values, width = _positions(values, where), values.shape[1]
        classes = tuple(map(str, names)) if names else tuple(map(str, range(width)))
        return torch.from_numpy(values), classes
    if values.dtype.kind == "U":
        known = tuple(map(str, names)) if names else tuple(sorted({str(one) for one in values}))
        position = {name: index for index, name in enumerate(known)}
        unknown = sorted({str(one) for one in values} - set(known))
        if unknown:
            raise DataError(f"{where}: label {unknown[0]!r} is none of the classes {known[:20]}")
        return torch.tensor([position[str(one)] for one in values], dtype=torch.int64), known
    if names:
        return torch.from_numpy(values), tuple(map(str, names))
    if len(values) and values.min() < 0:
        raise DataError(f"{where}: labels must not be negative, got {values.min()} (unlabelled samples?)")
    present, positions = np.unique(values, return_inverse=True)
    return torch.from_numpy(positions.astype(np.int64)), tuple(map(str, present.tolist()))


def _array(labels: Any, where: str) -> NDArray[Any]:
    """int64 (n,) or (n, classes), or texts (n,)."""
    if isinstance(labels, Tensor):
        labels = labels.detach().cpu().numpy()
    elif isinstance(labels, list | tuple):
        labels = [_scalar(one) for one in labels]
        _check_alike(labels, where)
    try:
        values = np.asarray(labels)
    except ValueError as error:
        raise DataError(f"{where}: labels differ in length, where each sample needs one label: {error}") from error
    if values.ndim > 1 and values.shape[1:] == (1,) * (values.ndim - 1):
        values = values.reshape(len(values))
    if values.ndim not in (1, 2):
        raise DataError(
            f"{where}: labels must be (n,), one a sample, or one-hot (n, classes), got shape {values.shape}"
        )
    if values.dtype.kind in "SO":
        values = _texts(values, where)
    if values.dtype.kind == "U" and values.ndim == 1:
        return values
    if values.dtype.kind not in "biuf":
        raise DataError(f"{where}: a label must be one integer or text, got {_first(values)!r}")
    return values if values.ndim == 2 else _whole(values, where)


def _scalar(label: Any) -> Any:
    """One label as numpy has it; a tensor or array of one entry is that entry."""
    label = label.detach().cpu().numpy() if isinstance(label, Tensor) else label
    return label.reshape(()) if isinstance(label, np.ndarray) and label.size == 1 else label


def _check_alike(labels: Sequence[Any], where: str) -> None:
    """numpy would make texts of numbers that stand among texts."""
    texts = [isinstance(one, str | bytes) for one in labels]
    if any(texts) and not all(texts):
        odd = labels[texts.index(not texts[0])]
        raise DataError(f"{where}: label {odd!r} stands among labels such as {labels[0]!r}; all must be of one kind")
    for index, one in enumerate(labels):
        if one is None:
            raise DataError(f"{where}: item {index} has no label")


def _texts(values: NDArray[Any], where: str) -> NDArray[Any]:
    try:
        plain = [one.decode() if isinstance(one, bytes) else one for one in values.tolist()]
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: a label of bytes is no UTF-8: {error}") from error
    return np.asarray(plain) if all(isinstance(one, str) for one in plain) else values


def _whole(values: NDArray[Any], where: str) -> NDArray[np.int64]:
    if values.dtype.kind == "f":
        odd = np.flatnonzero(values != np.rint(values))  # NaN is among them
        if len(odd):
            raise DataError(f"{where}: labels must be whole numbers or texts, got {values[odd[0]]} (item {odd[0]})")
    return values.astype(np.int64)


def _positions(rows: NDArray[Any], where: str) -> NDArray[np.int64]:
    """The positions of the ones in one-hot rows."""
    if not np.isin(rows, (0, 1)).all():
        kind = "probabilities" if np.allclose(rows.sum(axis=1), 1) and (rows >= 0).all() else "several numbers"
        raise DataError(f"{where}: a label must be one class or a one-hot row, got {kind} a sample: {rows[0].tolist()}")
    ones = rows.sum(axis=1)
    odd = np.flatnonzero(ones != 1)
    if len(odd):
        raise DataError(
            f"{where}: item {odd[0]} has {int(ones[odd[0]])} classes at once; multi-label data are not supported: "
            "make one class of each sample, or take one column of labels"
        )
    positions: NDArray[np.int64] = rows.argmax(axis=1).astype(np.int64)
    return positions


def _first(values: NDArray[Any]) -> Any:
    return values.flat[0] if values.size else None


def check_fits(file: Path, shape: Sequence[int], item_bytes: int = 1) -> None:
    """Return if an array of ``shape``, of items of so many bytes, fits into memory; axes of length 0 count as 1.

    Raises:
        DataError: it does not.
    """
    needed = math.prod(max(1, size) for size in shape) * item_bytes
    if needed > _memory():
        raise DataError(
            f"{file}: declares an array of shape {tuple(shape)[:8]}, which is more than this machine's memory"
        )


def _memory() -> int:
    """Bytes of physical memory; where that cannot be told, the most an address can name."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return sys.maxsize


Pair = tuple[Tensor, Tensor]
"""Samples and their labels, int64 (n,)."""


def overlap_note(train: Tensor, test: Tensor) -> list[str]:
    """A line that counts the samples of ``test`` (n, …) that ``train`` holds too, to the last bit; none for none."""
    known = {_digest(row) for row in train.contiguous().numpy()}
    count = sum(_digest(row) in known for row in test.contiguous().numpy())
    if not count:
        return []
    return [f"{count} of {len(test)} test samples are among the training samples too, to the last bit: results flatter"]


def _digest(row: NDArray[Any]) -> bytes:
    return hashlib.blake2b(row.tobytes(), digest_size=16).digest()


def pixel_normalisation(pixels: Tensor) -> Normalisation:
    """Measure the normalisation of uint8 images (n, channels, height, width) exactly, in unit values.

    It counts the 256 values of each channel, so that a large set needs no copy in floating point.
    """
    if pixels.dtype != torch.uint8 or pixels.ndim != 4:
        raise DataError(f"expected uint8 images of 4 dimensions, got {pixels.dtype} {tuple(pixels.shape)}")
    values = torch.arange(256, dtype=torch.float64) / 255
    means, deviations = [], []
    for channel in pixels.unbind(dim=1):
        counts = torch.zeros(256, dtype=torch.int64)
        for part in torch.split(channel, _COUNTED_TOGETHER):  # since counting takes eight bytes a pixel
            counts += torch.bincount(part.flatten(), minlength=256)
        share = counts.double() / channel.numel()
        mean = (share * values).sum()
        deviation = (share * (values - mean).square()).sum().sqrt()
        means.append(float(mean))
        deviations.append(float(deviation) if deviation > 1e-6 else 1.0)
    return Normalisation(tuple(means), tuple(deviations))


_COUNTED_TOGETHER = 64  # images


def channels_first(images: NDArray[np.uint8]) -> Tensor:
    """Turn uint8 (n, height, width[, channels]) into a tensor (n, channels, height, width)."""
    if images.ndim == 3:
        images = images[..., np.newaxis]
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def int_labels(labels: NDArray[Any], where: str) -> Tensor:
    """Turn integer labels, (n,) or (n, 1), into int64 (n,).

    Raises:
        DataError: labels of another shape (several labels a sample) or that are no integers.
    """
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1:
        raise DataError(f"{where}: labels must be (n,) or (n, 1), one label a sample, got {labels.shape}")
    if labels.dtype.kind not in "iu":
        raise DataError(f"{where}: labels must be integers, got {labels.dtype}")
    return torch.from_numpy(labels.astype(np.int64))


def stratified_split(strata: Tensor, test_fraction: float, seed: int) -> Pair:
    """Split positions so that each stratum keeps about ``test_fraction`` of its samples for testing.

    Args:
        strata: int64 (n,), what to balance, such as the labels; a stratum always keeps one sample for
            training.
        test_fraction: in (0, 1).
        seed: fixes the split.

    Returns:
        Training and test positions, int64, ascending.
    """
    if not 0 < test_fraction < 1:
        raise SettingsError(f"test_fraction must be in (0, 1), got {test_fraction}")
    held_out = torch.zeros(len(strata), dtype=torch.bool)
    for stratum in sorted(set(strata.tolist())):
        members = (strata == stratum).nonzero().flatten()
        order = torch.randperm(len(members), generator=generator_for(seed, "split", stratum))
        count = min(round(len(members) * test_fraction), len(members) - 1)
        held_out[members[order[:count]]] = True
    return (~held_out).nonzero().flatten(), held_out.nonzero().flatten()
