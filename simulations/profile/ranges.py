"""Ranges around what the library does besides computing, laid from outside: it knows nothing of being watched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any
from unittest.mock import patch

from torch.profiler import record_function

from fedcl_distill.augmentation import Draw, SiameseAugmentation
from fedcl_distill.context import RealSampler
from fedcl_distill.data import LabelledData
from fedcl_distill.networks import Architecture
from simulations.profile.groups import AUGMENTATION, DATA, RANGE, WEIGHTS

_METHODS: tuple[tuple[type, str, str], ...] = (
    (RealSampler, "draw", DATA),
    (RealSampler, "batch", DATA),
    (LabelledData, "inputs", DATA),
    (Architecture, "build", WEIGHTS),
)


@contextmanager
def ranges() -> Iterator[None]:
    """Inside the block, drawing and normalising data, augmentation and the making of networks show in a recording."""
    with ExitStack() as stack:
        for owner, name, group in _METHODS:
            stack.enter_context(patch.object(owner, name, _in_range(getattr(owner, name), group)))
        stack.enter_context(patch.object(SiameseAugmentation, "draw", _drawing(SiameseAugmentation.draw)))
        yield


def _in_range(function: Callable[..., Any], group: str) -> Callable[..., Any]:
    @wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        with record_function(RANGE + group):
            return function(*arguments, **named)

    return call


def _drawing(draw: Callable[..., Draw]) -> Callable[..., Draw]:
    """Drawing parameters is augmentation, and so is applying what was drawn."""
    drawn = _in_range(draw, AUGMENTATION)

    @wraps(draw)
    def call(*arguments: Any, **named: Any) -> Draw:
        return _in_range(drawn(*arguments, **named).__call__, AUGMENTATION)

    return call
