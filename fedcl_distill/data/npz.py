"""Data sets in one ``.npz`` file of the MedMNIST layout (Yang et al. 2023, https://medmnist.com)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from fedcl_distill.data.assemble import Pair, channels_first, image_splits, int_labels
from fedcl_distill.data.labelled import Normalisation, Splits
from fedcl_distill.data.room import check_fits
from fedcl_distill.errors import DataError, SettingsError

Validation = Literal["unused", "train", "test"]


def load_npz(
    path: str | os.PathLike[str],
    *,
    class_names: Sequence[str] | None = None,
    normalisation: Normalisation | None = None,
    validation: Validation = "unused",
    name: str | None = None,
    mirrorable: bool = True,
) -> Splits:
    """Load ``{train,val,test}_images`` and ``{train,val,test}_labels`` from an npz file.

    Args:
        path: images are uint8 (n, height, width) or (n, height, width, channels), labels integers (n,) or (n,
            1).
        class_names: default "0", "1", … up to the largest training label.
        normalisation: default measured on the training images.
        validation: what to do with ``val_*``: nothing, add it to the training data, or test on it in place of
            the test data (to choose settings without looking at the test data).
        name: default the name of the file without its suffix.
        mirrorable: whether a mirrored image keeps its class.

    Raises:
        DataError: no such file, a damaged one, one with pickled objects, missing arrays, wrong shapes or
            labels.
    """
    if validation not in ("unused", "train", "test"):
        raise SettingsError(f"validation must be 'unused', 'train' or 'test', got {validation!r}")
    file = Path(path)
    train = _read_pair(file, "train")
    test = _read_pair(file, "val" if validation == "test" else "test")
    if validation == "train":
        train = _joined(train, _read_pair(file, "val"), file)
    return image_splits(
        train, test, name=name or file.stem, class_names=class_names, normalisation=normalisation, mirrorable=mirrorable
    )


def _read_pair(file: Path, part: str) -> Pair:
    images = _read_array(file, f"{part}_images")
    labels = int_labels(_read_array(file, f"{part}_labels"), f"{file}: {part}_labels")
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise DataError(
            f"{file}: {part}_images must be uint8 (n, height, width[, channels]), got {images.dtype} {images.shape}"
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
