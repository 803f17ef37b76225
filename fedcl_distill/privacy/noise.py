"""Where noise comes from: a secret key, drawn from the operating system.

As everywhere here, a draw is named by its place, so that a run which resumes draws the same again; but below a secret
key instead of a public seed, for whoever knows the noise can take it off. Bits are those of SHAKE-256, which is
cryptographic; generators of torch and numpy are not.

Gaussian values are computed in double precision. As for any such sampler, their least bits carry traces of the value
that they were added to (Mironov 2012); rounding what is released, as codecs here do, hides most of that but is no
proof.
"""

from __future__ import annotations

import hashlib
import math
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fedcl_distill.errors import CheckpointError, StorageError
from fedcl_distill.seeding import derive_seed

_KEY_BYTES = 32


@dataclass(frozen=True)
class NoiseSource:
    """Random numbers below one key.

    Attributes:
        key: 32 bytes; not shown.
        secret: it came from the operating system, not from a seed.
    """

    key: bytes = field(repr=False)
    secret: bool

    @classmethod
    def fresh(cls) -> NoiseSource:
        """A new secret one."""
        return cls(secrets.token_bytes(_KEY_BYTES), True)

    @classmethod
    def seeded(cls, seed: int) -> NoiseSource:
        """The same for every run of this seed: for tests, and worth nothing as protection."""
        return cls(hashlib.sha256(str(derive_seed(seed, "privacy noise")).encode()).digest(), False)

    @classmethod
    def kept(cls, path: str | os.PathLike[str], data: str) -> NoiseSource:
        """The secret one in the file at ``path``, or a fresh one that is written there, readable by its owner alone.

        A run that resumes so repeats its noise, on the same data: that tells no more than the first time. ``data``,
        their fingerprint, makes sure of it: the same noise on other data would show exactly where they differ.

        Raises:
            CheckpointError: the file is damaged, or belongs to other data.
            StorageError: it could not be written.
        """
        file = Path(path)
        if not file.exists():
            source = cls.fresh()
            _write_secret(file, source.key + source._seal(data))
            return source
        try:
            content = file.read_bytes()
        except OSError as error:
            raise StorageError(f"could not read {file}: {error.strerror or error}") from error
        source = cls(content[:_KEY_BYTES], True)
        if len(content) != 2 * _KEY_BYTES or content[_KEY_BYTES:] != source._seal(data):
            raise CheckpointError(f"noise in {file} is damaged or belongs to other data; remove it to restart")
        return source

    def name(self, data: str) -> str:
        """Names the release of ``data`` under this noise without telling either: equal names, equal releases."""
        return hashlib.sha256(b"name" + self.key + data.encode()).hexdigest()[:32]

    def words(self, count: int, *path: str | int) -> npt.NDArray[np.uint64]:
        """uint64 (count,): random bits of the draw named ``path``."""
        named = self.key + "/".join(map(str, path)).encode()
        return np.frombuffer(hashlib.shake_256(named).digest(8 * count), "<u8")

    def uniform(self, count: int, *path: str | int) -> Tensor:
        """float64 (count,) strictly between 0 and 1, of the draw named ``path``: odd multiples of 2**-53."""
        bits = self.words(count, *path) >> np.uint64(12)
        return torch.from_numpy((bits.astype(np.float64) + 0.5) * 2.0**-52)

    def normal(self, shape: Sequence[int], *path: str | int) -> Tensor:
        """float64 of this shape: standard normal values of the draw named ``path``."""
        values: Tensor = torch.special.ndtri(self.uniform(math.prod(shape), *path))
        return values.view(tuple(shape))

    def _seal(self, data: str) -> bytes:
        return hashlib.sha256(b"seal" + self.key + data.encode()).digest()


def _write_secret(file: Path, content: bytes) -> None:
    """A new file that nobody else could ever read."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise StorageError(f"could not write {file}: {error.strerror or error}") from error
