"""Seeds without global state: every random draw is named by a path below one seed.

A draw named by *where it happens* (``("view", 17)``) instead of by *what was drawn before it* can be repeated
alone. That is what makes a resumed run bit-identical without storing any generator state.
"""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive_seed(seed: int, *path: str | int) -> int:
    """Return a 63-bit seed for the draw named ``path`` below ``seed``; different paths give unrelated seeds."""
    text = "/".join(str(part) for part in (seed, *path))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator_for(seed: int, *path: str | int, device: str | torch.device = "cpu") -> torch.Generator:
    """Return a fresh generator for the draw named ``path`` below ``seed``."""
    return torch.Generator(device=device).manual_seed(derive_seed(seed, *path))


_GLOBAL_GENERATORS = threading.RLock()


@contextmanager
def isolated_rng(seed: int) -> Iterator[None]:
    """Seed the global generators of torch, NumPy and Python inside the block and put their states back afterwards.

    For code that offers no ``generator`` argument, such as the initialisation inside ``torch.nn`` layers. Of torch it
    is the CPU's generator, and those of CUDA devices where these are in use. The generators belong to the process:
    one thread at a time is inside such a block, others wait.
    """
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    with _GLOBAL_GENERATORS, torch.random.fork_rng(devices=devices):
        of_numpy, of_python = np.random.get_state(), random.getstate()  # noqa: NPY002
        torch.default_generator.manual_seed(seed)
        for device in devices:
            torch.cuda.default_generators[device].manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(of_numpy)  # noqa: NPY002
            random.setstate(of_python)


def global_states() -> tuple[object, ...]:
    """The states of the global generators on the CPU, to be compared: a change between two of them tells of a draw."""
    of_numpy = repr(np.random.get_state(legacy=False))  # noqa: NPY002
    return torch.get_rng_state().numpy().tobytes(), of_numpy, random.getstate()
