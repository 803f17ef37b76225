"""Images in folders, one folder a class."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedcl_distill.data.assemble import Pair, image_splits, stratified_split
from fedcl_distill.data.labelled import Splits
from fedcl_distill.data.optional import require
from fedcl_distill.data.pil import as_rgb, pixels_of
from fedcl_distill.errors import DataError, SettingsError

_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"})

_MOST_PIXELS = 1 << 25
"""Of one picture, 5,792 a side: a hundred bytes may say that they are more, and decoding would make room for them."""


def load_image_folder(
    root: str | os.PathLike[str],
    *,
    size: tuple[int, int] | None = None,
    test_fraction: float = 0.2,
    seed: int = 0,
    name: str | None = None,
) -> Splits:
    """Load ``root/train/<class>/*.png`` with ``root/test/<class>/*.png``, or split ``root/<class>/*.png``.

    All common image formats are read, subfolders of a class too; hidden files and other files are passed
    over. Classes are the folder names in alphabetical order. If every image is grey the samples have one
    channel, else three (grey ones are repeated).

    Args:
        root: the folder.
        size: (height, width) to resize every image to, bilinearly; default: all must have one size already.
        test_fraction: of each class, in (0, 1); only where there are no ``train`` and ``test`` folders.
        seed: fixes that split.
        name: default the name of the folder.

    Raises:
        DataError: no such folder, no classes, a class without images, a test class unknown in training, an
            image that is unreadable, has more than 8 bits a channel or 33 million pixels, or has another size.
        DependencyError: pillow is not installed.
    """
    folder = Path(root)
    if size is not None and min(size) < 1:
        raise SettingsError(f"size must be a positive (height, width), got {size}")
    label = name or folder.resolve().name
    train_folder, test_folder = folder / "train", folder / "test"
    if _class_folders(train_folder):
        classes = _classes(train_folder)
        parts = _load_parts(train_folder, test_folder, classes, size)
    else:
        classes = _classes(folder)
        parts = _load_and_split(folder, classes, size, test_fraction, seed)
    return image_splits(*parts, name=label, class_names=classes)


def _load_and_split(
    folder: Path, classes: list[str], size: tuple[int, int] | None, test_fraction: float, seed: int
) -> tuple[Pair, Pair]:
    images, labels = _stack(*_files(folder, classes), size)
    train, test = stratified_split(labels, test_fraction, seed)
    return (images[train], labels[train]), (images[test], labels[test])


def _load_parts(
    train_folder: Path, test_folder: Path, classes: list[str], size: tuple[int, int] | None
) -> tuple[Pair, Pair]:
    tested = _classes(test_folder)
    unknown = sorted(set(tested) - set(classes))
    if unknown:
        raise DataError(f"{test_folder}: classes {unknown[:5]} have no folder in {train_folder}")
    train_files, train_labels = _files(train_folder, classes)
    test_files, positions = _files(test_folder, tested)
    labels = train_labels + [classes.index(tested[position]) for position in positions]
    # One stack, so that both parts get the same number of channels.
    images, both = _stack(train_files + test_files, labels, size)
    count = len(train_files)
    return (images[:count], both[:count]), (images[count:], both[count:])


def _class_folders(folder: Path) -> list[str]:
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _classes(folder: Path) -> list[str]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    classes = _class_folders(folder)
    if not classes:
        raise DataError(f"{folder}: holds no folders, expected one a class")
    return classes


def _files(folder: Path, classes: list[str]) -> tuple[list[Path], list[int]]:
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(file for file in (folder / name).rglob("*") if _is_image(file))
        if not found:
            raise DataError(f"{folder / name}: holds no images ({', '.join(sorted(_SUFFIXES))})")
        files += found
        labels += [label] * len(found)
    return files, labels


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in _SUFFIXES and not file.name.startswith(".") and file.is_file()


def _stack(files: list[Path], labels: list[int], size: tuple[int, int] | None) -> tuple[Tensor, Tensor]:
    opener = require("PIL.Image", "reading an image folder")
    arrays = [_read(opener, file, size) for file in files]
    for file, array in zip(files, arrays, strict=True):
        if array.shape[1:] != arrays[0].shape[1:]:
            raise DataError(
                f"{file}: is {_size(array)} pixels, {files[0]} is {_size(arrays[0])}; "
                "pass size=(height, width) to resize"
            )
    if any(array.shape[0] == 3 for array in arrays):
        arrays = [as_rgb(array) for array in arrays]
    return torch.from_numpy(np.stack(arrays)), torch.tensor(labels, dtype=torch.int64)


def _read(opener: Any, file: Path, size: tuple[int, int] | None) -> NDArray[np.uint8]:
    try:
        with opener.open(file) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise ValueError(f"{image.height} x {image.width} are more than {_MOST_PIXELS:,} pixels")
            pixels = pixels_of(image)
            if size is None or pixels.shape[1:] == size:
                return pixels
            # PIL interpolates palette and 1-bit images by nearest neighbour: resize the decoded pixels
            # instead.
            decoded = opener.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
            return pixels_of(decoded.resize((size[1], size[0]), opener.Resampling.BILINEAR))
    except Exception as error:  # what decoders raise of damaged files has no end
        raise DataError(f"{file}: cannot be read as an image: {error}") from error


def _size(array: NDArray[np.uint8]) -> str:
    return f"{array.shape[1]} x {array.shape[2]}"
