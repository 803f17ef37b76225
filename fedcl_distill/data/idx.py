"""The idx format of MNIST and its relatives, plain or compressed with gzip."""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import torch
from torch import Tensor

from fedcl_distill.data.assemble import Pair
from fedcl_distill.data.room import check_fits
from fedcl_distill.errors import DataError

_UNSIGNED_BYTE = 0x08
_MOST_DIMENSIONS = 8


def read_idx(path: str | os.PathLike[str]) -> Tensor:
    """Read the uint8 array of one idx file; a name ending in ``.gz`` is decompressed.

    Raises:
        DataError: no such file, another format, another value type than unsigned byte, too few or too many
            bytes.
    """
    file = Path(path)
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
    if len(shape) > _MOST_DIMENSIONS:
        raise DataError(f"{file}: has {len(shape)} dimensions, at most {_MOST_DIMENSIONS} are read")
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
