"""Data sets by name."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from fedcl_distill.data.digits import load_digits
from fedcl_distill.data.heart import load_heart
from fedcl_distill.data.image_folder import load_image_folder
from fedcl_distill.data.labelled import Splits
from fedcl_distill.data.npz import load_npz
from fedcl_distill.data.roots import data_roots
from fedcl_distill.data.torchvision_sets import TORCHVISION_SETS, TorchvisionSet, load_torchvision_set
from fedcl_distill.errors import DataError

_Loader = Callable[[list[Path], bool], Splits]


def list_sources() -> tuple[str, ...]:
    """Return the names that :func:`load` knows, besides files and folders."""
    return tuple(_LOADERS)


def load(name: str, *, root: str | os.PathLike[str] | None = None, download: bool = True) -> Splits:
    """Load a data set by name.

    Args:
        name: one of :func:`list_sources` (capitals, "-" and "_" do not matter); the path of an ``.npz`` file
            in the MedMNIST layout; the path of an image folder; or the name of such a file or folder in a
            data root.
        root: the folder to search first. Then come the environment variable FEDCL_DISTILL_DATA and
            ``~/.cache/fedcl-distill``. In each, ``<name>.npz`` comes before torchvision's layout.
        download: whether torchvision may download what is found nowhere, into the first of those folders.

    Returns:
        Training and test data, both with the normalisation of the training data.

    Raises:
        DataError: unknown name, data found nowhere, or damaged data; the message lists the places searched.
        DependencyError: an optional package is needed and not installed.
    """
    roots = data_roots(root)
    loader = _LOADERS.get(_CANONICAL.get(_plain(name), ""))
    return loader(roots, download) if loader is not None else _load_path(name, roots)


def _load_path(name: str, roots: list[Path]) -> Splits:
    places = [
        Path(name).expanduser(),
        *(root / f"{name}.npz" for root in roots),
        *(root / name for root in roots),
    ]
    for place in places:
        if place.suffix == ".npz" and place.is_file():
            return load_npz(place)
        if place.is_dir():
            return load_image_folder(place)
    searched = ", ".join(str(place) for place in places)
    raise DataError(f"no data set {name!r}: known are {', '.join(_LOADERS)}; searched {searched}")


def _plain(name: str) -> str:
    return re.sub("[-_]", "", name.lower())


def _load_digits(roots: list[Path], download: bool) -> Splits:
    return load_digits()


def _load_heart(roots: list[Path], download: bool) -> Splits:
    return load_heart(roots)


def _load_torchvision(known: TorchvisionSet, roots: list[Path], download: bool) -> Splits:
    return load_torchvision_set(known, roots, download=download)


_LOADERS: dict[str, _Loader] = {
    "digits": _load_digits,
    "heart": _load_heart,
    **{known.name: partial(_load_torchvision, known) for known in TORCHVISION_SETS},
}
_CANONICAL = {_plain(name): name for name in _LOADERS}
