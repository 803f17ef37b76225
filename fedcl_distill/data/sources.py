"""Data sets by name, and where they are found."""

from __future__ import annotations

import importlib.util
import os
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from fedcl_distill._imports import require
from fedcl_distill.data import class_names
from fedcl_distill.data.arrays import Pair, channels_first, int_labels, stratified_split
from fedcl_distill.data.files import has_idx_pairs, load_npz, read_idx_pairs
from fedcl_distill.data.folders import load_image_folder
from fedcl_distill.data.labelled import Splits, image_splits
from fedcl_distill.data.pictures import Fit
from fedcl_distill.data.spec import Normalisation
from fedcl_distill.data.tables import TABLE_SUFFIXES, Column, load_heart, load_table
from fedcl_distill.errors import DataError, SettingsError
from fedcl_distill.settings import checked, suggest

ENVIRONMENT_VARIABLE = "FEDCL_DISTILL_DATA"


def data_roots(root: str | os.PathLike[str] | None = None) -> list[Path]:
    """Return the folders to search, in order; downloads go into the first.

    They are ``root``, the environment variable FEDCL_DISTILL_DATA, and ``~/.cache/fedcl-distill``: those that
    are set, whether they exist or not.
    """
    named = [root, os.environ.get(ENVIRONMENT_VARIABLE)]
    folders = [Path(folder).expanduser() for folder in named if folder]
    return list(dict.fromkeys([*folders, Path.home() / ".cache" / "fedcl-distill"]))


_MAX_VALUE = 16
_SIDE = 8


def load_digits() -> Splits:
    """Return 1,797 grey images, 8 x 8, of ten digits (test part of the UCI "optical recognition" set).

    The values 0 to 16 become uint8 by ``round(value * 255 / 16)``. About a fifth of each class is held out
    for testing, always the same samples.

    Raises:
        DependencyError: scikit-learn is not installed.
    """
    table = _table()
    pixels = np.rint(table[:, :-1].reshape(-1, _SIDE, _SIDE) * (255 / _MAX_VALUE)).astype(np.uint8)
    images, labels = channels_first(pixels), int_labels(table[:, -1].astype(np.int64), "digits")
    train, test = stratified_split(labels, test_fraction=0.2, seed=0)
    return image_splits(
        (images[train], labels[train]),
        (images[test], labels[test]),
        name="digits",
        class_names=[str(digit) for digit in range(10)],
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


_FASHION_MNIST_OF_DEBIAN = Path("/usr/share/datasets/fashion-mnist")


@dataclass(frozen=True)
class TorchvisionSet:
    """One data set of torchvision.

    Attributes:
        name: ours, such as "fashion-mnist".
        torchvision_name: the class in ``torchvision.datasets``.
        class_names: in the order of the labels.
        folder: where below the data root torchvision keeps the files ("." for the root itself).
        files: files that show that the set is there; empty for the idx layout of MNIST.
        normalisation: the constants that publications use; None to measure it on the training images.
        other_folders: folders of idx files to look into besides the data roots.
        allow_hflip: whether a mirrored image keeps its class.
    """

    name: str
    torchvision_name: str
    class_names: tuple[str, ...]
    folder: str
    files: tuple[str, ...] = ()
    normalisation: Normalisation | None = None
    other_folders: tuple[Path, ...] = ()
    allow_hflip: bool = False


TORCHVISION_SETS = (
    TorchvisionSet(
        "mnist",
        "MNIST",
        class_names.DIGITS,
        "MNIST/raw",
        normalisation=Normalisation((0.1307,), (0.3081,)),
    ),
    TorchvisionSet(
        "fashion-mnist",
        "FashionMNIST",
        class_names.FASHION_MNIST,
        "FashionMNIST/raw",
        normalisation=Normalisation((0.2861,), (0.3530,)),
        other_folders=(_FASHION_MNIST_OF_DEBIAN,),
        allow_hflip=True,
    ),
    TorchvisionSet(
        "cifar10",
        "CIFAR10",
        class_names.CIFAR10,
        "cifar-10-batches-py",
        ("batches.meta",),
        Normalisation((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
        allow_hflip=True,
    ),
    TorchvisionSet("cifar100", "CIFAR100", class_names.CIFAR100, "cifar-100-python", ("meta",), allow_hflip=True),
    TorchvisionSet("svhn", "SVHN", class_names.DIGITS, ".", ("train_32x32.mat", "test_32x32.mat")),
)


def load_torchvision_set(known: TorchvisionSet, roots: Sequence[Path], *, download: bool) -> Splits:
    """Load ``known`` from the first place that holds it, else download it into ``roots[0]``.

    Raises:
        DataError: found nowhere and not downloaded (the message lists the places searched), or a damaged
            file.
        DependencyError: it must be downloaded or read through torchvision, which is not installed.
    """
    places = list(_places(known, roots))
    for path, read in places:
        if _is_there(known, path):
            return read(path)
    searched = "\n".join(f"  {path}" for path, _ in places)
    hint = f"searched:\n{searched}\nPut the data into one of these places, or pass root= with their folder"
    if not download:
        raise DataError(f"{known.name}: not found and download=False; {hint}")
    try:
        return _splits(known, _read_layout(known, roots[0], download=True))
    except _DOWNLOAD_FAILURES as error:
        raise DataError(f"{known.name}: not found and the download failed ({error}); {hint}") from error


_DOWNLOAD_FAILURES = (OSError, RuntimeError, HTTPException, tarfile.TarError, EOFError, zlib.error)

_Place = tuple[Path, Callable[[Path], Splits]]


def _places(known: TorchvisionSet, roots: Sequence[Path]) -> Iterator[_Place]:
    read_npz = partial(
        load_npz,
        class_names=known.class_names,
        normalisation=known.normalisation,
        name=known.name,
        allow_hflip=known.allow_hflip,
    )
    for root in roots:
        for stem in dict.fromkeys([known.name, known.name.replace("-", ""), known.name.replace("-", "_")]):
            yield root / f"{stem}.npz", read_npz
        yield root / known.folder, partial(_read_found, known, root)
    for folder in known.other_folders:
        yield folder, partial(_read_idx, known)


def _is_there(known: TorchvisionSet, path: Path) -> bool:
    if path.suffix == ".npz":
        return path.is_file()
    return all((path / file).is_file() for file in known.files) if known.files else has_idx_pairs(path)


def _splits(known: TorchvisionSet, pairs: tuple[Pair, Pair]) -> Splits:
    return image_splits(
        *pairs,
        name=known.name,
        class_names=known.class_names,
        normalisation=known.normalisation,
        allow_hflip=known.allow_hflip,
    )


def _read_idx(known: TorchvisionSet, folder: Path) -> Splits:
    return _splits(known, read_idx_pairs(folder))


def _read_found(known: TorchvisionSet, root: Path, place: Path) -> Splits:
    try:
        return _splits(known, _read_layout(known, root, download=False))
    except _DOWNLOAD_FAILURES as error:
        raise DataError(f"{place}: {known.name} is damaged ({error}); remove it to start over") from error


def _read_layout(known: TorchvisionSet, root: Path, *, download: bool) -> tuple[Pair, Pair]:
    if known.files:
        train, test = (_arrays(known, dataset) for dataset in _torchvision_parts(known, root, download))
        return train, test
    if download:
        _torchvision_parts(known, root, download)
    # Our reader takes the compressed files as well, and needs no torchvision.
    return read_idx_pairs(root / known.folder)


def _torchvision_parts(known: TorchvisionSet, root: Path, download: bool) -> tuple[Any, Any]:
    datasets = require("torchvision.datasets", f"the {known.name!r} data set")
    factory = getattr(datasets, known.torchvision_name)
    if known.name == "svhn":
        return factory(root, split="train", download=download), factory(root, split="test", download=download)
    return factory(root, train=True, download=download), factory(root, train=False, download=download)


def _arrays(known: TorchvisionSet, dataset: Any) -> Pair:
    if known.name == "svhn":
        return torch.from_numpy(dataset.data).contiguous(), int_labels(dataset.labels, known.name)
    return channels_first(dataset.data), torch.tensor(dataset.targets, dtype=torch.int64)


_Loader = Callable[[list[Path], bool], Splits]


def list_sources() -> tuple[str, ...]:
    """Return the names that :func:`load` knows, besides files and folders."""
    return tuple(_LOADERS)


@checked
def load(
    name: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    download: bool = True,
    size: int | tuple[int, int] | None = None,
    fit: Fit | None = None,
    on_error: Literal["raise", "skip"] | None = None,
    label_column: Column | None = None,
    feature_columns: Sequence[Column] | None = None,
    group_column: Column | None = None,
    allow_hflip: bool | None = None,
) -> Splits:
    """Load a data set by name.

    Args:
        name: one of :func:`list_sources` (capitals, "-" and "_" do not matter); the path of an ``.npz`` file
            in the MedMNIST layout, of a table (``.csv``, ``.tsv``, ``.parquet``) or of an image folder; or the name of
            such a file or folder in a data root.
        root: the folder to search first. Then come the environment variable FEDCL_DISTILL_DATA and
            ``~/.cache/fedcl-distill``. In each, ``<name>.npz`` comes before torchvision's layout.
        download: whether torchvision may download what is found nowhere, into the first of those folders.
        size, fit, on_error: of the images of a folder: their size in pixels, how they come to it, and what becomes of
            files that cannot be read; see :func:`load_image_folder`.
        label_column, feature_columns, group_column: of a table, by name or position, see :func:`load_csv`.
        allow_hflip: whether a mirrored image keeps its class; None takes what is known of the data set, and no for
            files and folders.

    Returns:
        Training and test data, both with the normalisation of the training data.

    Raises:
        DataError: unknown name, data found nowhere, or damaged data; the message lists the places searched.
        SettingsError: an argument for another kind of data.
        DependencyError: an optional package is needed and not installed.
    """
    roots, name = data_roots(root), os.fspath(name)
    loader = _LOADERS.get(_CANONICAL.get(_plain(name), ""))
    place = Path(name) if loader is not None else _place_of(name, roots)
    kind = "known" if loader is not None else _kind_of(place)
    pictures: dict[str, Any] = {"size": size, "fit": fit, "on_error": on_error}
    columns: dict[str, Any] = {
        "label_column": label_column,
        "feature_columns": feature_columns,
        "group_column": group_column,
    }
    for meant, arguments in (("folder", pictures), ("table", columns)):
        for argument, value in arguments.items():
            if value is not None and kind != meant:
                raise SettingsError(f"{argument} is for {_MEANT[meant]}, {name!r} is none")
    if loader is not None:
        splits = loader(roots, download)
    elif kind == "folder":
        splits = load_image_folder(place, **{key: value for key, value in pictures.items() if value is not None})
    elif kind == "npz":
        splits = load_npz(place)
    elif label_column is None:
        hint = "label_column='…' or its position (on the command line --label-column)"
        raise SettingsError(f"{place}: which column is the label? Give {hint}")
    else:
        splits = load_table(place, label=label_column, features=feature_columns, group=group_column)
    if allow_hflip is None:
        return splits
    return Splits(*(part.with_spec(allow_hflip=allow_hflip) for part in (splits.train, splits.test)))


_MEANT = {"folder": "folders of images", "table": "tables (.csv, .tsv, .parquet)"}


def _place_of(name: str, roots: list[Path]) -> Path:
    """Where the file or folder called ``name`` is."""
    places = [
        Path(name).expanduser(),
        *(root / f"{name}.npz" for root in roots),
        *(root / name for root in roots),
    ]
    for place in places:
        if place.is_dir() or (place.is_file() and place.suffix.lower() in (".npz", *TABLE_SUFFIXES)):
            return place
    there = next((place for place in places if place.is_file()), None)
    if there is not None:
        raise DataError(
            f"{there}: what ends in {there.suffix!r} is not read; known are .npz, {', '.join(TABLE_SUFFIXES)}"
        )
    searched = ", ".join(str(place) for place in places)
    raise DataError(f"{suggest('data set', name, _LOADERS)}; searched {searched}")


def _kind_of(place: Path) -> Literal["folder", "npz", "table"]:
    if place.is_dir():
        return "folder"
    return "npz" if place.suffix.lower() == ".npz" else "table"


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
