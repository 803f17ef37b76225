"""How fast the machine multiplies, and how much work does so."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

_MATRIX = 1024
_MATRIX_REPEATS = 15


def matrix_rate() -> float:
    """GFLOP per CPU-second of this process's float32 matrix product, of two square matrices of 1,024 a side."""

    left, right = torch.randn(2, _MATRIX, _MATRIX, generator=torch.Generator().manual_seed(0))
    taken = []
    for _ in range(_MATRIX_REPEATS):
        before = time.process_time()
        left @ right
        taken.append(time.process_time() - before)
    return 2 * _MATRIX**3 / statistics.median(taken) / 1e9


class OperationCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts, inside its block, the operations of convolutions and matrix products by PyTorch's own formulas.

    PyTorch's ``FlopCounterMode`` counts them module by module, by hooks that fail where a network whose weights are
    constant is differentiated in its inputs.

    Attributes:
        total: operations so far; a multiplication and an addition are two.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(getattr(func, "_overloadpacket", None))
        if formula is not None:
            self.total += int(formula(*args, **(kwargs or {}), out_val=result))
        return result
