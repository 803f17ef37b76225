"""Seeds without global state: every random draw is named by a path below one seed.

A draw named by *where it happens* (``("view", 17)``) instead of by *what was drawn before it* can be repeated
alone. That is what makes a resumed run bit-identical without storing any generator state.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive_seed(seed: int, *path: str | int) -> int:
    """Return a 63-bit seed for the draw named ``path`` below ``seed``; different paths give unrelated seeds."""
    text = "/".join(str(part) for part in (seed, *path))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator_for(seed: int, *path: str | int, device: str | torch.device = "cpu") -> torch.Generator:
    """Return a fresh generator for the draw named ``path`` below ``seed``."""
    return torch.Generator(device=device).manual_seed(derive_seed(seed, *path))


@contextmanager
def isolated_rng(seed: int) -> Iterator[None]:
    """Seed torch's global CPU generator inside the block and put its state back afterwards.

    For code that offers no ``generator`` argument, such as the initialisation inside ``torch.nn`` layers.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
