"""What strategies carry over rounds, as values that a checkpoint can hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from flwr.app import Array, ArrayRecord
from torch import Tensor

from fedcl_distill.synthetic import SyntheticSet, decode, encode

State = dict[str, Any]
"""Tensors, numbers, texts, and lists and dictionaries of them."""


def tensors_of(record: ArrayRecord) -> dict[str, Tensor]:
    """The arrays of ``record``, in its order."""
    return {name: tensor_of(array.numpy()) for name, array in record.items()}


def arrays_of(tensors: Mapping[str, Tensor]) -> ArrayRecord:
    """The inverse of :func:`tensors_of`."""
    return ArrayRecord({name: Array(tensor.numpy()) for name, tensor in tensors.items()})


def tensor_of(values: npt.NDArray[Any]) -> Tensor:
    """A copy of ``values``, of their dtype."""
    return torch.from_numpy(np.array(values))


def set_as_state(synthetic: SyntheticSet | None) -> Tensor | None:
    """uint8 (bytes,): ``synthetic`` with its provenance, to the last bit."""
    return None if synthetic is None else tensor_of(np.frombuffer(encode(synthetic, 32), np.uint8))


def set_from_state(encoded: Tensor | None) -> SyntheticSet | None:
    """The inverse of :func:`set_as_state`."""
    return None if encoded is None else decode(encoded.numpy().tobytes())
