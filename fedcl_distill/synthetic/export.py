"""Synthetic sets for other eyes and tools: pictures, folders, arrays, data frames, the DD-Ranking benchmark."""

from __future__ import annotations

import io
import json
import os
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedcl_distill._imports import require
from fedcl_distill.data.spec import Normalisation
from fedcl_distill.errors import DataError, SettingsError
from fedcl_distill.files import write_atomically
from fedcl_distill.synthetic.recipe import as_text, recipe
from fedcl_distill.synthetic.set import SyntheticSet

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPES = {1: 0, 3: 2}  # channels: grey, RGB


def encode_png(pixels: npt.NDArray[np.uint8], text: str = "") -> bytes:
    """PNG bytes of ``pixels``, uint8 (height, width, 1 or 3), both sizes at least 1; ``text`` is its description."""
    height, width, channels = pixels.shape
    rows = np.zeros((height, 1 + channels * width), dtype=np.uint8)  # each row starts with its filter: 0, none
    rows[:, 1:] = pixels.reshape(height, channels * width)
    form = (8, _COLOUR_TYPES[channels], 0, 0, 0)  # depth, colour type, compression, filter, interlace
    return b"".join(
        (
            _SIGNATURE,
            _chunk(b"IHDR", struct.pack(">2I5B", width, height, *form)),
            *([_chunk(b"iTXt", b"Description\0\0\0\0\0" + text.encode())] if text else []),
            _chunk(b"IDAT", zlib.compress(rows.tobytes(), level=9)),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


_SEPARATOR_PIXELS = 1
_BACKGROUND = 255


def image_grid(synthetic: SyntheticSet, columns: int | None = None) -> npt.NDArray[np.uint8]:
    """One picture of all images: a row of up to ``columns`` images for each class present, in class order.

    Args:
        synthetic: a set of images with 1 or 3 channels, any height and width. Values are clamped to its value
            range.
        columns: images shown of each class; by default as many as the largest class has.

    Returns:
        uint8 (height, width, 3), with white lines of one pixel between and around images.

    Raises:
        DataError: the set is empty, or its samples are not images of 1 or 3 channels.
        SettingsError: ``columns`` is below 1.
    """
    if columns is not None and columns < 1:
        raise SettingsError(f"columns must be at least 1, got {columns}")
    images = _displayable(synthetic)
    labels = synthetic.hard_labels.cpu().numpy()
    rows = [np.flatnonzero(labels == label)[:columns] for label in np.unique(labels)]
    height, width = (size + _SEPARATOR_PIXELS for size in images.shape[1:3])
    shape = (len(rows) * height + _SEPARATOR_PIXELS, max(map(len, rows)) * width + _SEPARATOR_PIXELS, 3)
    canvas = np.full(shape, _BACKGROUND, dtype=np.uint8)
    for row, members in enumerate(rows):
        for column, index in enumerate(members):
            top, left = row * height + _SEPARATOR_PIXELS, column * width + _SEPARATOR_PIXELS
            canvas[top : top + height - _SEPARATOR_PIXELS, left : left + width - _SEPARATOR_PIXELS] = images[index]
    return canvas


def save_png(
    synthetic: SyntheticSet, path: str | os.PathLike[str], *, columns: int | None = None, scale: int = 1
) -> Path:
    """Write :func:`image_grid` as a PNG file, each pixel ``scale`` x ``scale`` pixels large; return its path.

    It is for the eye; its description says what values networks read, and how many were clipped for the picture.

    Raises:
        DataError: as for :func:`image_grid`.
        SettingsError: ``scale`` or ``columns`` is below 1.
        StorageError: the file could not be written.
    """
    if scale < 1:
        raise SettingsError(f"scale must be at least 1, got {scale}")
    pixels = image_grid(synthetic, columns).repeat(scale, axis=0).repeat(scale, axis=1)
    return write_atomically(path, encode_png(pixels, _description(synthetic)))


def export_folder(synthetic: SyntheticSet, folder: str | os.PathLike[str]) -> Path:
    """Write each image as ``folder/CLASS/00000.png``, as torchvision's ``ImageFolder`` and ``load_image_folder`` read.

    ``folder/recipe.json`` says how to train on them (:func:`~fedcl_distill.synthetic.recipe.recipe`), and which share
    of the values 8 bits cannot hold. Values are clamped to the set's value range; soft labels count as their most
    probable class. Folders are called as the classes, with the label in front (``03-cat``) where names in alphabetical
    order would give other labels, or could not be names of folders.

    Returns:
        The folder.

    Raises:
        DataError: the set is empty, or its samples are not images of 1 or 3 channels.
        StorageError: a file could not be written.
    """
    images = _displayable(synthetic, colour=False)
    names, labels = _folder_names(synthetic.class_names), synthetic.hard_labels.tolist()
    written = [0] * len(names)
    for image, label in zip(images, labels, strict=True):
        write_atomically(Path(folder) / names[label] / f"{written[label]:05d}.png", encode_png(image))
        written[label] += 1
    told = {**recipe(synthetic), "clipped_values": _clipped_share(synthetic), "class_names": list(names)}
    write_atomically(Path(folder) / "recipe.json", json.dumps(told, indent=1).encode())
    return Path(folder)


def _description(synthetic: SyntheticSet) -> str:
    clipped = 100 * _clipped_share(synthetic)
    return f"{as_text(synthetic)} In this picture {clipped:.1f} % of the values were clipped to what it can show."


def _clipped_share(synthetic: SyntheticSet) -> float:
    """Which share of the decoded values lies outside of the set's value range, by more than a grey level."""
    low, high = synthetic.value_range
    samples, slack = synthetic.samples().detach(), (high - low) / 255
    return float(((samples < low - slack) | (samples > high + slack)).double().mean())


def save_npz(synthetic: SyntheticSet, path: str | os.PathLike[str]) -> Path:
    """Write the set as one ``.npz`` file that ``numpy.load(path)`` reads, without pickle; return its path.

    It holds ``samples`` (float32 (n, …), unit values: pixels in [0, 1], raw features), ``labels`` (int64 (n,) or soft
    float32 (n, classes)), ``class_names``, ``mean`` and ``std`` (inputs of networks are (samples - mean) / std),
    ``feature_names`` where they are known, and ``recipe``, JSON text on how to train.

    Raises:
        StorageError: the file could not be written.
    """
    samples, labels = to_arrays(synthetic)
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        samples=samples,
        labels=labels,
        class_names=np.array(synthetic.class_names),
        mean=np.array(synthetic.normalisation.mean, dtype=np.float32),
        std=np.array(synthetic.normalisation.std, dtype=np.float32),
        feature_names=np.array(synthetic.spec.feature_names, dtype=str),
        recipe=np.array(json.dumps(recipe(synthetic)) if len(synthetic) else "{}"),
    )
    return write_atomically(path, buffer.getvalue())


def _folder_names(class_names: tuple[str, ...]) -> list[str]:
    safe = [re.sub(r"[^\w .+-]", "_", name).strip(" .")[:100] for name in class_names]
    if safe == list(class_names) and all(safe) and safe == sorted(set(safe)):
        return safe
    width = len(str(len(safe) - 1))
    return [f"{label:0{width}d}-{name}" for label, name in enumerate(safe)]


def to_arrays(synthetic: SyntheticSet) -> tuple[npt.NDArray[np.float32], npt.NDArray[Any]]:
    """(X, y) for scikit-learn and others: float32 (n, …) unit values, and int64 (n,) or soft float32 (n, classes)."""
    return synthetic.samples().detach().cpu().numpy(), synthetic.labels.detach().cpu().numpy()


def to_dataframe(synthetic: SyntheticSet, label: str = "label") -> Any:
    """A pandas ``DataFrame`` of feature vectors in the units of the real data, with the names of classes in ``label``.

    Columns are called as the features where their names are known, else ``feature_0``, ….  Soft labels become their
    most probable class.

    Raises:
        DataError: the samples are images, or a feature is called ``label``.
        DependencyError: pandas is not installed.
    """
    if synthetic.is_image:
        raise DataError(f"a data frame takes feature vectors, got samples of shape {synthetic.sample_shape}")
    names = synthetic.spec.feature_names or tuple(f"feature_{at}" for at in range(synthetic.sample_shape[0]))
    if label in names:
        raise DataError(f"a feature is called {label!r} already: choose another name, to_dataframe(…, label=…)")
    frame = require("pandas", "to_dataframe", "'fedcl-distill[frames]'").DataFrame(
        to_arrays(synthetic)[0], columns=list(names)
    )
    frame[label] = [synthetic.class_names[one] for one in synthetic.hard_labels.tolist()]
    return frame


def save_dd_ranking(
    synthetic: SyntheticSet,
    folder: str | os.PathLike[str],
    *,
    normalisation: Normalisation | None = None,
    repeat: bool = False,
) -> tuple[Path, Path]:
    """Write ``images.pt`` and ``labels.pt`` for the benchmark DD-Ranking (NUS-HPC-AI-Lab/DD-Ranking).

    Both are plain tensors that ``torch.load(path, weights_only=True)`` reads. Their places in the benchmark:

    * ``images.pt``: float32 (n, channels, height, width), normalised; ``compute_metrics(image_tensor=…)``.
    * ``labels.pt``: int64 (n,) for ``hard_labels=…``, or float32 (n, classes) for ``soft_labels=…``.

    Samples are sorted by class, because without ``hard_labels`` the benchmark takes the first ipc images for
    class 0, the next for class 1, and so on. It normalises its test images by its own constants (CIFAR: mean
    0.4914, 0.4822, 0.4465, deviation 0.2023, 0.1994, 0.2010); if the set was distilled with others, name
    those here.

    Args:
        synthetic: a set of images.
        folder: where to; made if absent.
        normalisation: of the written images; the set's own by default.
        repeat: where classes have different numbers of samples, repeat those of small ones, in order, until all have as
            many; such sets are refused otherwise, for the benchmark would take some for another class.

    Returns:
        The paths of images and labels.

    Raises:
        DataError: the set does not hold images, classes have different numbers of samples, a class has none, or
            ``normalisation`` has another number of channels.
        StorageError: a file could not be written.
    """
    if len(synthetic.sample_shape) != 3:
        raise DataError(f"DD-Ranking takes images, got samples of shape {synthetic.sample_shape}")
    inputs = synthetic.inputs()
    if normalisation is not None:
        if len(normalisation.mean) != synthetic.sample_shape[0]:
            raise DataError(f"normalisation has {len(normalisation.mean)} channels, images {synthetic.sample_shape[0]}")
        inputs = normalisation.apply(synthetic.samples())
    order = _equal_counts(synthetic, repeat)
    images = write_atomically(Path(folder) / "images.pt", _torch_bytes(inputs[order]))
    labels = write_atomically(Path(folder) / "labels.pt", _torch_bytes(synthetic.labels[order]))
    return images, labels


def _equal_counts(synthetic: SyntheticSet, repeat: bool) -> Tensor:
    """Positions in the order of classes, as many of each."""
    counts = synthetic.class_counts.tolist()
    most = max(counts)
    if min(counts) == 0 or (min(counts) < most and not repeat):
        raise DataError(
            f"DD-Ranking takes as many samples of every class, this set has {min(counts)} to {most}"
            + ("" if min(counts) == 0 else ": repeat=True repeats those of small classes")
        )
    members = [(synthetic.hard_labels == label).nonzero().flatten() for label in range(len(counts))]
    return torch.cat([one.repeat(-(-most // len(one)))[:most] for one in members])


def _displayable(synthetic: SyntheticSet, *, colour: bool = True) -> npt.NDArray[np.uint8]:
    """uint8 (n, height, width, channels): decoded images, value range stretched to 0…255; ``colour`` makes grey RGB."""
    if len(synthetic.sample_shape) != 3 or synthetic.sample_shape[0] not in (1, 3):
        raise DataError(f"a picture needs images of 1 or 3 channels, got samples of shape {synthetic.sample_shape}")
    if len(synthetic) == 0:
        raise DataError("a picture needs at least one image, the set is empty")
    low, high = synthetic.value_range
    shares = (synthetic.samples().detach().cpu() - low) / ((high - low) or 1.0)
    pixels = (shares.clamp(0, 1) * 255).round().to(torch.uint8)
    shown = pixels.expand(-1, 3, -1, -1) if colour else pixels
    result: npt.NDArray[np.uint8] = shown.permute(0, 2, 3, 1).contiguous().numpy()
    return result


def _torch_bytes(tensor: Tensor) -> bytes:
    buffer = io.BytesIO()
    torch.save(tensor.detach().cpu().contiguous(), buffer)
    return buffer.getvalue()
