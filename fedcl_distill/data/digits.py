"""The handwritten digits inside scikit-learn: real images without any download."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedcl_distill.data.assemble import channels_first, image_splits, int_labels, stratified_split
from fedcl_distill.data.labelled import Splits
from fedcl_distill.data.optional import require

_LARGEST_VALUE = 16
_SIDE = 8


def load_digits() -> Splits:
    """Return 1,797 grey images, 8 x 8, of ten digits (test part of the UCI "optical recognition" set).

    The values 0 to 16 become uint8 by ``round(value * 255 / 16)``. About a fifth of each class is held out
    for testing, always the same samples.

    Raises:
        DependencyError: scikit-learn is not installed.
    """
    table = _table()
    pixels = np.rint(table[:, :-1].reshape(-1, _SIDE, _SIDE) * (255 / _LARGEST_VALUE)).astype(np.uint8)
    images, labels = channels_first(pixels), int_labels(table[:, -1].astype(np.int64), "digits")
    train, test = stratified_split(labels, test_fraction=0.2, seed=0)
    return image_splits(
        (images[train], labels[train]),
        (images[test], labels[test]),
        name="digits",
        class_names=[str(digit) for digit in range(10)],
        mirrorable=False,
    )


def _table() -> NDArray[np.float64]:
    """(1797, 65): pixels and class. scikit-learn's file is read as it lies there, for importing it takes a second."""
    package = importlib.util.find_spec("sklearn")
    if package is not None and package.origin is not None:
        file = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
        if file.exists():
            return np.loadtxt(file, delimiter=",")
    bunch = require("sklearn.datasets", "the 'digits' data set").load_digits()
    return np.column_stack([bunch.data, bunch.target])
