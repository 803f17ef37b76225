"""Readers of arrays in files (idx, npz), and what all readers of images share."""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import struct
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedcl_distill.data.labelled import LabelledData, Splits
from fedcl_distill.data.spec import DataSpec, Normalisation
from fedcl_distill.data.targets import numbered
from fedcl_distill.errors import DataError, SettingsError
from fedcl_distill.seeding import generator_for


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


_UNSIGNED_BYTE = 0x08
_MAX_DIMENSIONS = 8


def read_idx(path: str | os.PathLike[str]) -> Tensor:
    """Read the uint8 array of one idx file; a name ending in ``.gz`` is decompressed.

    Raises:
        DataError: no such file, another format, another value type than unsigned byte, too few or too many
            bytes.
    """
    file = Path(path)
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            return _parse(cast(BinaryIO, stream), file)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file}: cannot be read as an idx file: {error}") from error


def _parse(stream: BinaryIO, file: Path) -> Tensor:
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] != _UNSIGNED_BYTE or magic[3] == 0:
        raise DataError(f"{file}: starts with {magic.hex(' ')}, expected the idx header 00 00 08 and dimensions")
    header = stream.read(4 * magic[3])
    if len(header) < 4 * magic[3]:
        raise DataError(f"{file}: ends inside the idx header")
    shape = struct.unpack(f">{magic[3]}I", header)
    if len(shape) > _MAX_DIMENSIONS:
        raise DataError(f"{file}: has {len(shape)} dimensions, at most {_MAX_DIMENSIONS} are read")
    check_fits(file, shape)
    expected = math.prod(shape)
    # One byte more than expected shows a file that is too long without reading all of it.
    content = _read_at_most(stream, expected + 1)
    if len(content) != expected:
        found = "more" if len(content) > expected else str(len(content))
        raise DataError(f"{file}: shape {shape} needs {expected} bytes, the file holds {found}")
    return torch.from_numpy(np.frombuffer(content, dtype=np.uint8).reshape(shape).copy())


def _read_at_most(stream: BinaryIO, limit: int) -> bytes:
    """Read up to ``limit`` bytes in pieces: one large ``read`` would allocate whatever a header claims."""
    pieces: list[bytes] = []
    while limit > 0 and (piece := stream.read(min(limit, 1 << 20))):
        pieces.append(piece)
        limit -= len(piece)
    return b"".join(pieces)


def has_idx_pairs(folder: Path) -> bool:
    """Whether ``folder`` holds the four files of MNIST's layout."""
    return all(_plain_or_compressed(folder, stem) is not None for part in _PARTS for stem in _stems(part))


def read_idx_pairs(folder: Path) -> tuple[Pair, Pair]:
    """Read training and test pairs from the four files of MNIST's layout.

    Images are uint8 (n, 1, height, width), labels int64 (n,).

    Raises:
        DataError: a file is missing, damaged, or not of that shape.
    """
    train, test = (_read_pair(folder, part) for part in _PARTS)
    return train, test


_PARTS = ("train", "t10k")


def _stems(part: str) -> tuple[str, str]:
    return f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"


def _plain_or_compressed(folder: Path, stem: str) -> Path | None:
    return next((f for f in (folder / stem, folder / f"{stem}.gz") if f.is_file()), None)


def _read_pair(folder: Path, part: str) -> Pair:
    arrays = []
    for stem, dimensions in zip(_stems(part), (3, 1), strict=True):
        file = _plain_or_compressed(folder, stem)
        if file is None:
            raise DataError(f"{folder / stem}: no such file, nor one ending in .gz")
        array = read_idx(file)
        if array.ndim != dimensions:
            raise DataError(f"{file}: has {array.ndim} dimensions, expected {dimensions}")
        arrays.append(array)
    return arrays[0].unsqueeze(1), arrays[1].long()


Validation = Literal["unused", "train", "test"]


def load_npz(
    path: str | os.PathLike[str],
    *,
    class_names: Sequence[str] | None = None,
    normalisation: Normalisation | None = None,
    validation: Validation = "unused",
    name: str | None = None,
    allow_hflip: bool = False,
) -> Splits:
    """Load ``{train,val,test}_images`` and ``{train,val,test}_labels`` from an npz file.

    Args:
        path: images are uint8 (n, height, width) or (n, height, width, channels), labels integers (n,) or (n,
            1).
        class_names: default the numbers that occur among the labels.
        normalisation: default measured on the training images.
        validation: what to do with ``val_*``: nothing, add it to the training data, or test on it in place of
            the test data (to choose settings without looking at the test data).
        name: default the name of the file without its suffix.
        allow_hflip: whether a mirrored image keeps its class; augmentation mirrors images only then.

    Raises:
        DataError: no such file, a damaged one, one with pickled objects, missing arrays, wrong shapes or
            labels.
    """
    if validation not in ("unused", "train", "test"):
        raise SettingsError(f"validation must be 'unused', 'train' or 'test', got {validation!r}")
    file = Path(path)
    train = _npz_read_pair(file, "train")
    test = _npz_read_pair(file, "val" if validation == "test" else "test")
    if validation == "train":
        train = _joined(train, _npz_read_pair(file, "val"), file)
    return image_splits(
        train,
        test,
        name=name or file.stem,
        class_names=class_names,
        normalisation=normalisation,
        allow_hflip=allow_hflip,
    )


def _npz_read_pair(file: Path, part: str) -> Pair:
    images = _read_array(file, f"{part}_images")
    labels = int_labels(_read_array(file, f"{part}_labels"), f"{file}: {part}_labels")
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise DataError(
            f"{file}: {part}_images must be uint8 (n, height, width[, channels]), got {images.dtype} {images.shape}"
        )
    if images.ndim == 4 and images.shape[3] not in (1, 3, 4):
        raise DataError(
            f"{file}: {part}_images of shape {images.shape} are no images of 1, 3 or 4 channels; volumes are not "
            "supported, and images of more channels come by from_arrays(…, channels='last')"
        )
    return channels_first(images), labels


def _read_array(file: Path, key: str) -> NDArray[Any]:
    if not file.is_file():
        raise DataError(f"{file}: no such file")
    try:
        with np.load(file, allow_pickle=False) as archive:
            check_fits(file, (archive.zip.getinfo(f"{key}.npy").file_size,))
            array = archive[key]
    except KeyError as error:
        raise DataError(f"{file}: has no array {key!r}, which the MedMNIST layout needs") from error
    except DataError:
        raise
    except Exception as error:  # what zipfile, zlib and numpy raise of damaged content has no end
        raise DataError(f"{file}: {key} cannot be read from this npz file: {error}") from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"{file}: {key} is not an array")
    return array


def _joined(first: Pair, second: Pair, file: Path) -> Pair:
    if first[0].shape[1:] != second[0].shape[1:]:
        raise DataError(f"{file}: training and validation images differ in shape")
    return torch.cat([first[0], second[0]]), torch.cat([first[1], second[1]])
