"""Which samples a view looks at: decided by what a sample holds, so that it does not matter who holds it."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.seeding import derive_seed

Hashes = npt.NDArray[np.uint64]


def sample_hashes(data: LabelledData, seed: int) -> Hashes:
    """uint64 (n,): of each sample's values and label; equal samples are equal."""
    key = derive_seed(seed, "share").to_bytes(8, "little")
    rows = data.samples.flatten(1).contiguous().numpy()
    labels = data.labels.numpy()
    found = np.empty(len(rows), np.uint64)
    for position, (row, label) in enumerate(zip(rows, labels, strict=True)):
        digest = hashlib.blake2b(row.tobytes() + int(label).to_bytes(8, "little"), digest_size=8, key=key)
        found[position] = int.from_bytes(digest.digest(), "little")
    return found


def looked_at(hashes: Hashes, share: float, seed: int, view: int) -> Tensor:
    """int64 (m,), ascending: positions of the samples that this view looks at; each is one with chance ``share``."""
    if share == 1:
        return torch.arange(len(hashes))
    mixed = _mixed(hashes ^ np.uint64(derive_seed(seed, "share of view", view)))
    # 53 bits, as many as a float has: so the comparison is exact.
    chosen = (mixed >> np.uint64(11)).astype(np.float64) < share * 2.0**53
    return torch.from_numpy(np.flatnonzero(chosen))


def _mixed(values: Hashes) -> Hashes:
    """Every bit made to hang on all bits: the last steps of splitmix64 (Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
