"""Readers of arrays in files: idx and npz."""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedcl_distill.data.arrays import Pair, channels_first, check_fits, int_labels
from fedcl_distill.data.labelled import Splits, image_splits
from fedcl_distill.data.spec import Normalisation
from fedcl_distill.errors import DataError, SettingsError

_UNSIGNED_BYTE = 0x08
_MAX_DIMENSIONS = 8


def read_idx(path: str | os.PathLike[str]) -> Tensor:
    """Read the uint8 array of one idx file; a name ending in ``.gz`` is decompressed.

    Raises:
        DataError: no such file, another format, another value type than unsigned byte, too few or too many
            bytes.
    """
    file = Path(path).expanduser()
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
    file = Path(path).expanduser()
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
