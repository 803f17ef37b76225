"""Where the weights of experts are kept while a run needs them, and from one run to the next."""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.files import write_atomically
from fedcl_distill.fingerprint import fingerprint

_LOG = logging.getLogger(__name__)
_WEIGHTS, _DIGEST = "weights", "sha256"
_FORMAT = 1  # to be raised when training comes to mean something else, so that older experts are not taken for new


class ExpertStore(Protocol):
    """Snapshots by run and number; a snapshot is float32 (parameters,): all weights of a network in a row."""

    def has(self, run: int, number: int) -> bool:
        """Whether there is such a snapshot; it may still turn out to be damaged."""
        ...

    def load(self, run: int, number: int) -> Tensor | None:
        """The snapshot; None where there is none, or where it is damaged."""
        ...

    def save(self, run: int, number: int, weights: Tensor) -> None:
        """Keep a snapshot.

        Raises:
            StorageError: it could not be written.
        """
        ...


@dataclass
class InMemory:
    """Keeps snapshots for as long as the process lives."""

    snapshots: dict[tuple[int, int], Tensor] = field(default_factory=dict)

    def has(self, run: int, number: int) -> bool:
        return (run, number) in self.snapshots

    def load(self, run: int, number: int) -> Tensor | None:
        return self.snapshots.get((run, number))

    def save(self, run: int, number: int, weights: Tensor) -> None:
        self.snapshots[run, number] = weights


@dataclass(frozen=True)
class OnDisk:
    """One safetensors file a snapshot, in a folder a run.

    Each is written atomically and carries the SHA-256 of its weights: a killed run goes on from its last snapshot, and
    a file that is cut or altered is not trusted. Parallel processes may share a folder, for they write the same.

    Attributes:
        folder: of one kind of expert, see :func:`kind_of_expert`.
        size: number of weights that a snapshot must have.
    """

    folder: Path
    size: int

    def has(self, run: int, number: int) -> bool:
        return self._path(run, number).exists()

    def load(self, run: int, number: int) -> Tensor | None:
        path = self._path(run, number)
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                weights: Tensor = file.get_tensor(_WEIGHTS)
                digest = (file.metadata() or {}).get(_DIGEST)
        except (OSError, SafetensorError, ValueError) as error:
            _LOG.warning("expert snapshot %s cannot be read and is trained anew: %s", path, error)
            return None
        if weights.dtype != torch.float32 or weights.shape != (self.size,) or digest != _digest(weights):
            _LOG.warning("expert snapshot %s is damaged and is trained anew", path)
            return None
        return weights

    def save(self, run: int, number: int, weights: Tensor) -> None:
        content = save({_WEIGHTS: weights.contiguous()}, metadata={_DIGEST: _digest(weights)})
        write_atomically(self._path(run, number), content)

    def _path(self, run: int, number: int) -> Path:
        return self.folder / f"run-{run:04d}" / f"snapshot-{number:04d}.safetensors"


def kind_of_expert(real: LabelledData, seed: int, training: str) -> str:
    """Names a folder: the same data, seed and description of the training, the same name; else another one."""
    traits = (real.class_names, real.normalisation.mean, real.normalisation.std, str(real.samples.dtype))
    return f"experts-{fingerprint(real, [_FORMAT, traits, list(real.samples.shape), seed, training])[:24]}"


def store_for(cache: str | os.PathLike[str] | None, kind: str, size: int) -> ExpertStore:
    """On disk below ``cache``, or in memory where that is None."""
    return InMemory() if cache is None else OnDisk(Path(cache) / kind, size)


def _digest(weights: Tensor) -> str:
    return hashlib.sha256(weights.contiguous().numpy().data).hexdigest()
