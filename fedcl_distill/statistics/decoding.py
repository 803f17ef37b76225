"""Statistics from bytes, which may come from anyone."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from fedcl_distill.errors import PayloadError
from fedcl_distill.statistics.header import StatisticsHeader
from fedcl_distill.statistics.layout import counts_name, stored_counts
from fedcl_distill.statistics.sums import SAMPLES, ClassStatistics, Sums, shapes_of
from fedcl_distill.synthetic.container import View, read_container
from fedcl_distill.synthetic.decoding import as_payload_error
from fedcl_distill.synthetic.layout import STORED_DTYPES
from fedcl_distill.synthetic.limits import DEFAULT_LIMITS, Limits
from fedcl_distill.synthetic.quantise import dequantise
from fedcl_distill.synthetic.storage import read_bounded


@as_payload_error
def decode_statistics(payload: bytes | bytearray | memoryview, limits: Limits = DEFAULT_LIMITS) -> ClassStatistics:
    """The statistics that ``encode_statistics`` wrote. Safe on bytes from anyone.

    Raises:
        PayloadError: whatever is wrong with the payload; no other exception leaves this function.
    """
    arrays, text = read_container(payload, limits)
    header = StatisticsHeader.from_text(text, limits)
    shapes = shapes_of(header.spec, header.domain)
    classes = header.domain.num_classes
    if sum(views * classes * size for views, size in shapes.values()) > limits.max_values:
        raise PayloadError(f"statistics have more than {limits.max_values} values")
    counted = stored_counts(header.spec, shapes)
    if set(arrays) != {*shapes, *map(counts_name, counted)} or set(header.ranges) != set(_quantised(header, shapes)):
        raise PayloadError("payload has other arrays or ranges than its specification asks for")
    counts = {name: _read_counts(arrays[counts_name(name)], (shapes[name][0], classes)) for name in counted}
    sums = {}
    for name, (views, size) in shapes.items():
        of_name = counts.get(name, counts[SAMPLES].expand(views, classes)).clone()
        sums[name] = Sums(of_name, _read_sums(name, arrays[name], of_name, size, header))
    return ClassStatistics(header.spec, header.domain, sums)


def load_statistics(path: str | os.PathLike[str], limits: Limits = DEFAULT_LIMITS) -> ClassStatistics:
    """Read a file that ``save_statistics`` wrote; safe on files from anyone.

    Raises:
        StorageError: there is no such file, or it cannot be read.
        PayloadError: its content is not statistics within ``limits``.
    """
    content = read_bounded(Path(path), limits.max_payload_bytes)
    try:
        return decode_statistics(content, limits)
    except PayloadError as error:
        raise PayloadError(f"{path}: {error}") from error


def _quantised(header: StatisticsHeader, shapes: Mapping[str, tuple[int, int]]) -> list[str]:
    return list(shapes) if header.bits < 32 else []


def _read_counts(view: View, shape: tuple[int, int]) -> Tensor:
    if view.dtype.kind != "u" or view.shape != shape:
        raise PayloadError(f"counts are {view.dtype} {view.shape}, expected unsigned integers {shape}")
    return torch.from_numpy(view.astype(np.int64))


def _read_sums(name: str, view: View, counts: Tensor, size: int, header: StatisticsHeader) -> Tensor:
    """float64 (views, classes, size): means times counts; 0 where there are no samples."""
    present = counts > 0
    expected = (int(present.sum()), size)
    if view.dtype != STORED_DTYPES[header.bits] or view.shape != expected:
        raise PayloadError(f"{name} are {view.dtype} {view.shape}, expected {STORED_DTYPES[header.bits]} {expected}")
    means = view if header.bits == 32 else dequantise(view, header.ranges[name], header.bits)
    sums = torch.zeros(*counts.shape, size, dtype=torch.float64)
    sums[present] = torch.from_numpy(means.astype(np.float64)) * counts[present][:, None]
    return sums
