"""Statistics to bytes: the same format on the wire and in a file."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from fedcl_distill.errors import SettingsError
from fedcl_distill.files import write_atomically
from fedcl_distill.statistics.header import StatisticsHeader
from fedcl_distill.statistics.layout import BITS, counts_name, stored_counts
from fedcl_distill.statistics.sums import ClassStatistics
from fedcl_distill.synthetic.container import View, write_container
from fedcl_distill.synthetic.layout import STORED_DTYPES
from fedcl_distill.synthetic.quantise import Floats, Range, quantise


def encode_statistics(statistics: ClassStatistics, bits: int = 8) -> bytes:
    """The statistics as bytes; only classes with samples take any.

    Means travel (sums divided by counts), so that the step of quantisation does not grow with the number of samples.
    At 32 bits they are rounded to float32; at 16 and 8 to the nearest of ``2**bits`` even steps over the range of
    their kind. Counts are exact.

    Raises:
        SettingsError: ``bits`` is none of 8, 16, 32.
    """
    if bits not in BITS:
        raise SettingsError(f"statistics are sent in {', '.join(map(str, BITS))} bits a value, got {bits!r}")
    arrays: dict[str, View] = {}
    ranges: dict[str, Range] = {}
    for name, sums in statistics.sums.items():
        rows: Floats = sums.means[sums.counts > 0].float().numpy()
        if bits < 32:
            ranges[name] = Range.of(rows)
        arrays[name] = (rows if bits == 32 else quantise(rows, ranges[name], bits)).astype(STORED_DTYPES[bits])
    for name in stored_counts(statistics.spec, statistics.sums):
        arrays[counts_name(name)] = _smallest(statistics.sums[name].counts.numpy())
    return write_container(arrays, StatisticsHeader(bits, statistics.spec, statistics.domain, ranges).to_text())


def save_statistics(statistics: ClassStatistics, path: str | os.PathLike[str], bits: int = 32) -> int:
    """Write them to ``path`` and return the file's size in bytes; a crash leaves the older file or the new one.

    Raises:
        StorageError: the file could not be written.
        SettingsError: as for :func:`encode_statistics`.
    """
    payload = encode_statistics(statistics, bits)
    write_atomically(path, payload)
    return len(payload)


def _smallest(counts: Any) -> View:
    """The same counts as the smallest unsigned integers that hold them all."""
    if counts.max() > np.iinfo(np.uint32).max:
        raise SettingsError("statistics of more than 4,294,967,295 samples of a class cannot be sent")
    smallest: View = counts.astype(np.min_scalar_type(int(counts.max())).newbyteorder("<"))
    return smallest
