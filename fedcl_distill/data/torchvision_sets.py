"""MNIST, Fashion-MNIST, CIFAR-10, CIFAR-100 and SVHN: found on disk in the usual layouts, or downloaded.

Nothing here goes through torchvision's item-by-item access: arrays are read whole.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch

from fedcl_distill.data import class_names
from fedcl_distill.data.assemble import Pair, channels_first, image_splits, int_labels
from fedcl_distill.data.idx import has_idx_pairs, read_idx_pairs
from fedcl_distill.data.labelled import Normalisation, Splits
from fedcl_distill.data.npz import load_npz
from fedcl_distill.data.optional import require
from fedcl_distill.errors import DataError

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
        mirrorable: whether a mirrored image keeps its class.
    """

    name: str
    torchvision_name: str
    class_names: tuple[str, ...]
    folder: str
    files: tuple[str, ...] = ()
    normalisation: Normalisation | None = None
    other_folders: tuple[Path, ...] = ()
    mirrorable: bool = True


TORCHVISION_SETS = (
    TorchvisionSet(
        "mnist",
        "MNIST",
        class_names.DIGITS,
        "MNIST/raw",
        normalisation=Normalisation((0.1307,), (0.3081,)),
        mirrorable=False,
    ),
    TorchvisionSet(
        "fashion-mnist",
        "FashionMNIST",
        class_names.FASHION_MNIST,
        "FashionMNIST/raw",
        normalisation=Normalisation((0.2861,), (0.3530,)),
        other_folders=(_FASHION_MNIST_OF_DEBIAN,),
    ),
    TorchvisionSet(
        "cifar10",
        "CIFAR10",
        class_names.CIFAR10,
        "cifar-10-batches-py",
        ("batches.meta",),
        Normalisation((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    ),
    TorchvisionSet("cifar100", "CIFAR100", class_names.CIFAR100, "cifar-100-python", ("meta",)),
    TorchvisionSet("svhn", "SVHN", class_names.DIGITS, ".", ("train_32x32.mat", "test_32x32.mat"), mirrorable=False),
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
        mirrorable=known.mirrorable,
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
        mirrorable=known.mirrorable,
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
