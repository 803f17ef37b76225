"""How many floating-point operations some code does."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


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
