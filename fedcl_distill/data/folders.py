"""Folders of pictures, one folder a class, as people have them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from fedcl_distill._imports import require
from fedcl_distill.data.arrays import Pair, overlap_note, stratified_split
from fedcl_distill.data.files import Validation
from fedcl_distill.data.labelled import Splits, image_splits
from fedcl_distill.data.pictures import Fit, Pixels, as_rgb, pixels_of, resized
from fedcl_distill.errors import DataError, SettingsError
from fedcl_distill.settings import checked

ImageSize = int | tuple[int, int]
"""Side of a square, or (height, width), in pixels."""

_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jfif", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"})
_JUNK = frozenset({"__macosx", "__pycache__", "@eadir", "$recycle.bin", "system volume information", "lost+found"})
_JUNK_FILES = frozenset({"thumbs.db", "desktop.ini"})
_ROLES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
}

_MAX_PIXELS = 1 << 25
"""Of one picture, 5,792 a side: a hundred bytes may say that they are more, and decoding would make room for them."""
_LISTED = 10


@checked
def load_image_folder(
    root: str | os.PathLike[str],
    *,
    size: int | tuple[int, int] | None = None,
    fit: Fit = "crop",
    on_error: Literal["raise", "skip"] = "raise",
    validation: Validation = "unused",
    test_fraction: float = 0.2,
    seed: int = 0,
    name: str | None = None,
    allow_hflip: bool = False,
) -> Splits:
    """Load ``root/train/<class>/*.png`` with ``root/test/<class>/*.png``, or split ``root/<class>/*.png``.

    ``train`` and ``test`` may be called ``Training`` and ``Testing`` as well; where ``val`` (``valid``, ``validation``)
    stands beside ``train`` alone, it is tested on. Classes are the folder names in alphabetical order; subfolders of a
    class are read too. Hidden files and folders and those that systems leave behind (``__MACOSX``, ``Thumbs.db``, …)
    are passed over. If every picture is grey the samples have one channel, else three (grey ones are repeated). How
    pictures become 8-bit pixels says :func:`~fedcl_distill.data.pictures.pixels_of`.

    What was done to the pictures, and what was not read, are the ``notes`` of the data.

    Args:
        root: the folder.
        size: pixels of every picture: the side of a square, or (height, width), resized bilinearly. By default all
            pictures must have one size already.
        fit: "crop" keeps proportions: the picture is scaled until it covers ``size``, and its middle is kept; "stretch"
            scales each side on its own.
        on_error: what a file that cannot be read does: "raise" ends with an error that names them all, "skip" leaves
            them out, counts them and says so.
        validation: what to do with ``val`` beside ``train`` and ``test``: nothing, add it to the training data, or test
            on it in place of the test data.
        test_fraction: of each class, in (0, 1); only where nothing is there to test on.
        seed: fixes that split.
        name: default the name of the folder.
        allow_hflip: whether a mirrored image keeps its class; augmentation mirrors images only then.

    Returns:
        uint8 images (n, 1 or 3, height, width).

    Raises:
        DataError: no such folder, no classes, a class without pictures, a test class unknown in training, two sizes
            without ``size``; or, with on_error="raise", unreadable pictures, floating-point ones or those of more than
            33 million pixels.
        SettingsError: an argument that is not allowed.
        DependencyError: pillow is not installed.

    Example:
        splits = load_image_folder("pets", size=64, on_error="skip")
        print(*splits.train.notes, sep="\\n")
    """
    folder = Path(root).expanduser()
    sides = (size, size) if isinstance(size, int) else size
    if sides is not None and min(sides) < 1:
        raise SettingsError(f"size must be a positive integer or (height, width), got {size!r}")
    reader = _Reader(sides, fit, on_error)
    train_folders, test_folders = _parts(folder, validation, reader)
    classes = _classes(train_folders[0])
    train_files = [one for part in train_folders for one in reader.files(part, classes, part == train_folders[0])]
    test_files = [one for part in test_folders for one in reader.files(part, classes, False)]
    # One stack, so that both parts get the same number of channels.
    images, labels, kept = reader.read([*train_files, *test_files])
    if test_folders:
        count = sum(kept[: len(train_files)])
        train, test = (images[:count], labels[:count]), (images[count:], labels[count:])
    else:
        train, test = _split(images, labels, test_fraction, seed)
        reader.notes.append(f"held out {len(test[1])} of {len(labels)} pictures for testing, a share of every class")
    for label in sorted(set(range(len(classes))) - set(train[1].tolist())):
        raise DataError(f"{train_folders[0] / classes[label]}: none of its pictures can be read")
    notes = [*reader.notes, *overlap_note(train[0], test[0])]
    if not allow_hflip:
        notes.append("augmentation mirrors no picture: allow_hflip=True says that a mirrored one keeps its class")
    return image_splits(
        train,
        test,
        name=name or folder.resolve().name,
        class_names=classes,
        allow_hflip=allow_hflip,
        notes=notes,
    )


def _split(images: Tensor, labels: Tensor, test_fraction: float, seed: int) -> tuple[Pair, Pair]:
    train, test = stratified_split(labels, test_fraction, seed)
    return (images[train], labels[train]), (images[test], labels[test])


@dataclass
class _Reader:
    """Reads the pictures of all parts, and keeps account of what it did and passed over."""

    size: tuple[int, int] | None
    fit: Fit
    on_error: Literal["raise", "skip"]
    notes: list[str] = field(default_factory=list)

    def files(self, folder: Path, classes: Sequence[str], every_class: bool) -> list[tuple[Path, int]]:
        """The pictures below ``folder`` with their labels; DataError for a class that is unknown or holds none."""
        present, found, others = _classes(folder), list[tuple[Path, int]](), Counter[str]()
        unknown = sorted(set(present) - set(classes))
        if unknown:
            raise DataError(f"{folder}: classes {unknown[:5]} are not among those of training: {list(classes)[:20]}")
        for label, name in enumerate(classes):
            below = sorted(_walk(folder / name)) if name in present else []
            pictures = [file for file in below if file.suffix.lower() in _SUFFIXES]
            if not pictures and (every_class or name in present):
                raise DataError(f"{folder / name}: holds no images ({', '.join(sorted(_SUFFIXES))})")
            found += [(file, label) for file in pictures]
            others.update(file.suffix.lower() or "no suffix" for file in set(below) - set(pictures))
        loose = sum(1 for entry in folder.iterdir() if entry.suffix.lower() in _SUFFIXES and not _is_junk(entry))
        if loose:
            self.notes.append(f"not read: {_pictures(loose)} beside the folders of classes in {folder.name}/")
        if others:
            kinds = ", ".join(f"{kind} ({count})" for kind, count in others.most_common(_LISTED))
            self.notes.append(f"not read: files in {folder.name}/ that are no known pictures: {kinds}")
        return found

    def read(self, files: Sequence[tuple[Path, int]]) -> tuple[Tensor, Tensor, list[bool]]:
        """Images (n, channels, height, width) and labels of those that can be read; and of each file whether it can."""
        opener, done, bad = require("PIL.Image", "reading an image folder"), Counter[str](), dict[Path, str]()
        arrays, labels, kept = list[Pixels](), list[int](), list[bool]()
        first, odd, sizes = Path(), "", set[tuple[int, ...]]()
        for file, label in files:
            try:
                array = self._picture(opener, file, done)
            except Exception as error:  # what decoders raise of damaged files has no end
                bad[file] = str(error) or type(error).__name__
                kept.append(False)
                continue
            if not arrays:
                first = file
            elif array.shape[1:] != arrays[0].shape[1:]:
                odd = odd or f"{file}: is {_size(array)} pixels, {first} is {_size(arrays[0])}"
            sizes.add(array.shape[1:])
            arrays.append(array)
            labels.append(label)
            kept.append(True)
        self._refuse_or_count(bad, len(files))
        if not arrays:
            raise DataError(f"{files[0][0].parent}: no picture can be read")
        if len(sizes) > 1:
            raise DataError(
                f"{odd}; {len(sizes)} sizes in all: pass size=128 (on the command line --image-size 128) to "
                "resize and crop to squares, or size=(height, width)"
            )
        if any(len(array) == 3 for array in arrays):
            done["grey, repeated to three channels"] += sum(len(array) == 1 for array in arrays)
            arrays = [as_rgb(array) for array in arrays]
        shape = "×".join(map(str, arrays[0].shape[1:]))
        what = [f"{count} {doing}" for doing, count in done.items() if count]
        self.notes.insert(0, f"{_pictures(len(arrays))} of {shape} pixels" + (f": {'; '.join(what)}" if what else ""))
        return torch.from_numpy(np.stack(arrays)), torch.tensor(labels, dtype=torch.int64), kept

    def _picture(self, opener: Any, file: Path, done: Counter[str]) -> Pixels:
        with opener.open(file) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise ValueError(f"{image.height} x {image.width} are more than {_MAX_PIXELS:,} pixels")
            own = Counter[str]()  # counted only if the picture comes to its end
            pixels = pixels_of(image, own)
            pixels = pixels if self.size is None else resized(pixels, self.size, self.fit, own)
            done.update(own)
            return pixels

    def _refuse_or_count(self, bad: dict[Path, str], asked: int) -> None:
        if not bad:
            return
        listed = "; ".join(f"{file}: cannot be read as an image: {why}" for file, why in list(bad.items())[:_LISTED])
        more = f"; and {len(bad) - _LISTED} more" if len(bad) > _LISTED else ""
        if self.on_error == "raise":
            way = "on_error='skip' (on the command line --bad-pictures skip) leaves them out"
            raise DataError(f"{listed}{more} ({len(bad)} of {asked} files; {way})")
        self.notes.append(f"left out {_pictures(len(bad))} that cannot be read: {listed}{more}")


def _parts(folder: Path, validation: Validation, reader: _Reader) -> tuple[list[Path], list[Path]]:
    """Folders to train on and to test on; the latter are none where a part of the former must be held out."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    names = _folders(folder)
    roles: dict[str, list[Path]] = {}
    for name in names:
        if name.lower() in _ROLES:
            roles.setdefault(_ROLES[name.lower()], []).append(folder / name)
    divided = {role: [one for one in found if _folders(one)] for role, found in roles.items()}
    if not any(divided.values()):
        return _undivided(folder, names, roles), []
    double = [found for found in roles.values() if len(found) > 1]
    if double or not divided.get("train"):
        what = f"holds both {double[0][0].name}/ and {double[0][1].name}/" if double else "has no train/"
        raise DataError(f"{folder}: {what}; expected train/CLASS and test/CLASS, or one folder a class")
    others = sorted(set(names) - {one.name for found in roles.values() for one in found})
    if others:
        reader.notes.append(f"not read: {', '.join(f'{one}/' for one in others[:_LISTED])} beside train/")
    train, test, val = (roles.get(role, []) for role in ("train", "test", "val"))
    if validation != "unused" and not val:
        raise DataError(f"{folder}: has no val/, which validation={validation!r} asks for")
    if val and (validation == "test" or (validation == "unused" and not test)):
        reader.notes.append(f"tested on {val[0].name}/")
        return train, val
    if validation == "train":
        return train + val, test
    if val:
        reader.notes.append(f"not read: {val[0].name}/ (validation='train' or 'test' says what for)")
    return train, test


def _undivided(folder: Path, names: list[str], roles: dict[str, list[Path]]) -> list[Path]:
    """The folder itself, whose folders are classes; DataError with a hint where they look like something else."""
    if len(roles) > 1 and len(names) == sum(map(len, roles.values())):
        raise DataError(f"{folder}: {', '.join(f'{one}/' for one in names)} hold no folders, expected one a class")
    if len(names) == 1 and _folders(folder / names[0]):
        raise DataError(f"{folder}: holds {names[0]}/ alone, which holds folders: did you mean {folder / names[0]}?")
    return [folder]


def _classes(folder: Path) -> list[str]:
    classes = _folders(folder)
    if not classes:
        raise DataError(f"{folder}: holds no folders, expected one a class")
    for name in classes:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise DataError(f"{folder}: the folder {name!r} has no name in UTF-8, which a class needs") from error
    return classes


def _folders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not _is_junk(entry))


def _walk(folder: Path) -> Iterator[Path]:
    """All files below ``folder`` that are neither hidden nor left behind by a system."""
    for entry in folder.iterdir():
        if _is_junk(entry):
            continue
        if entry.is_dir() and not entry.is_symlink():  # which might lead round in a circle
            yield from _walk(entry)
        elif entry.is_file():
            yield entry


def _is_junk(entry: Path) -> bool:
    return entry.name.startswith(".") or entry.name.lower() in _JUNK | _JUNK_FILES


def _pictures(count: int) -> str:
    return f"{count} picture{'s' if count != 1 else ''}"


def _size(array: Pixels) -> str:
    return f"{array.shape[1]} x {array.shape[2]}"
