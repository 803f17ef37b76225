"""Synthetic sets for other eyes and tools: torch data sets, pictures, the DD-Ranking benchmark."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from fedcl_distill.data.spec import Normalisation
from fedcl_distill.errors import DataError, SettingsError
from fedcl_distill.files import write_atomically
from fedcl_distill.synthetic.set import SyntheticSet

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_EIGHT_BIT_RGB = (8, 2, 0, 0, 0)  # depth, colour type, compression, filter, interlace


def encode_png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """PNG bytes of ``pixels``, uint8 (height, width, 3), both sizes at least 1."""
    height, width, _ = pixels.shape
    rows = np.zeros((height, 1 + 3 * width), dtype=np.uint8)  # each row starts with its filter: 0, none
    rows[:, 1:] = pixels.reshape(height, 3 * width)
    return b"".join(
        (
            _SIGNATURE,
            _chunk(b"IHDR", struct.pack(">2I5B", width, height, *_EIGHT_BIT_RGB)),
            _chunk(b"IDAT", zlib.compress(rows.tobytes(), level=9)),
            _chunk(b"IEND", b""),
        )
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


_SEPARATOR_PIXELS = 1
_BACKGROUND = 255


def as_torch_dataset(synthetic: SyntheticSet, *, normalised: bool = True) -> TensorDataset:
    """Decoded samples with their labels, detached, for any ``DataLoader``.

    Args:
        synthetic: what to decode.
        normalised: whether samples are network inputs (float32, normalised) or unit values (float32).

    Returns:
        Items (sample, label): label int64 () or, if labels are soft, float32 (classes,).
    """
    samples = synthetic.inputs() if normalised else synthetic.samples()
    return TensorDataset(samples.detach(), synthetic.labels.detach())


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

    Raises:
        DataError: as for :func:`image_grid`.
        SettingsError: ``scale`` or ``columns`` is below 1.
        StorageError: the file could not be written.
    """
    if scale < 1:
        raise SettingsError(f"scale must be at least 1, got {scale}")
    pixels = image_grid(synthetic, columns).repeat(scale, axis=0).repeat(scale, axis=1)
    return write_atomically(path, encode_png(pixels))


def save_dd_ranking(
    synthetic: SyntheticSet, folder: str | os.PathLike[str], *, normalisation: Normalisation | None = None
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

    Returns:
        The paths of images and labels.

    Raises:
        DataError: the set does not hold images, or ``normalisation`` has another number of channels.
        StorageError: a file could not be written.
    """
    if len(synthetic.sample_shape) != 3:
        raise DataError(f"DD-Ranking takes images, got samples of shape {synthetic.sample_shape}")
    inputs = synthetic.inputs()
    if normalisation is not None:
        if len(normalisation.mean) != synthetic.sample_shape[0]:
            raise DataError(f"normalisation has {len(normalisation.mean)} channels, images {synthetic.sample_shape[0]}")
        inputs = normalisation.apply(synthetic.samples())
    order = synthetic.hard_labels.argsort(stable=True)
    images = write_atomically(Path(folder) / "images.pt", _torch_bytes(inputs[order]))
    labels = write_atomically(Path(folder) / "labels.pt", _torch_bytes(synthetic.labels[order]))
    return images, labels


def _displayable(synthetic: SyntheticSet) -> npt.NDArray[np.uint8]:
    """uint8 (n, height, width, 3): decoded images, value range stretched to 0…255, grey repeated to RGB."""
    if len(synthetic.sample_shape) != 3 or synthetic.sample_shape[0] not in (1, 3):
        raise DataError(f"a picture needs images of 1 or 3 channels, got samples of shape {synthetic.sample_shape}")
    if len(synthetic) == 0:
        raise DataError("a picture needs at least one image, the set is empty")
    low, high = synthetic.value_range
    shares = (synthetic.samples().detach().cpu() - low) / ((high - low) or 1.0)
    pixels = (shares.clamp(0, 1) * 255).round().to(torch.uint8)
    result: npt.NDArray[np.uint8] = pixels.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()
    return result


def _torch_bytes(tensor: Tensor) -> bytes:
    buffer = io.BytesIO()
    torch.save(tensor.detach().cpu().contiguous(), buffer)
    return buffer.getvalue()
