"""Which group each operator of a recording belongs to, and what each group took."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

CONVOLUTION, NORM, MATRIX = "convolution", "norm, activation, pooling", "matrix product"
AUGMENTATION, OPTIMISER, DATA, WEIGHTS = "augmentation", "optimiser", "data", "initial weights"
BACKWARD, OTHER, OUTSIDE = "backward bookkeeping", "other operators", "outside operators"

GROUPS = (CONVOLUTION, NORM, AUGMENTATION, MATRIX, OPTIMISER, DATA, WEIGHTS, BACKWARD, OTHER, OUTSIDE)
"""In the order of tables. "Outside operators" is what no operator of PyTorch was at work in: Python, above all."""

RANGE = "group: "
"""What the name of a range starts with that puts everything inside it into the group named after it."""

_NAMES = {
    CONVOLUTION: r"aten::(_|mkldnn_|thnn_|slow_)?conv",
    NORM: r"_?NormReluPool|aten::(native_)?(group|batch|instance|layer)_norm|aten::(relu|threshold|leaky_relu)"
    r"|aten::(adaptive_)?(avg|max)_pool",
    AUGMENTATION: r"aten::(affine_grid|grid_sampler)",
    MATRIX: r"aten::(linear|matmul|addmm|mm|bmm|baddbmm|einsum|cholesky|linalg_(solve|cholesky|eigh))",
    OPTIMISER: r"Optimizer\.(step|zero_grad)#",
    DATA: r"enumerate\(DataLoader\)#",
    BACKWARD: r"torch::autograd::AccumulateGrad",
}
_PATTERNS = {group: re.compile(pattern) for group, pattern in _NAMES.items()}


def seconds_by_group(events: Iterable[Any], whole: float) -> dict[str, float]:
    """Seconds of every group of :data:`GROUPS`; they add up to ``whole``, the seconds of the recording.

    An operator counts where the outermost operator or range around it belongs that names a group. An operator of the
    backward pass that names none itself belongs to the group of the operator it differentiates: autograd gives both
    one sequence number.

    Args:
        events: the ``FunctionEvent`` objects that ``torch.profiler.profile.events()`` returns, of one thread.
        whole: wall-clock seconds that the recording lasted.
    """
    spent = dict.fromkeys(GROUPS, 0.0)
    roots = sorted((one for one in events if one.cpu_parent is None), key=lambda one: one.time_range.start)
    differentiated: dict[int, str] = {}
    for root in roots:
        for event, group in _grouped(root, differentiated):
            spent[group] += event.self_cpu_time_total / 1e6
    spent[OUTSIDE] = max(whole - sum(spent.values()), 0.0)
    return spent


def group_of(name: str) -> str | None:
    """The group that the operator or range called ``name`` names; None where it names none."""
    if name.startswith(RANGE):
        return name.removeprefix(RANGE)
    return next((group for group, pattern in _PATTERNS.items() if pattern.match(name)), None)


def _grouped(event: Any, differentiated: dict[int, str], around: str | None = None) -> Iterator[tuple[Any, str]]:
    """``event`` and what lies inside, each with its group; forward operators leave theirs in ``differentiated``."""
    engine = event.name.startswith("autograd::engine::evaluate_function")
    number, backward = event.sequence_nr, "Backward" in event.name
    group = around or (None if engine else group_of(event.name))
    if group is None and backward and not engine:
        group = differentiated.get(number)
    if number >= 0 and not backward:  # the last operator with a number is the one that autograd knows by it
        differentiated[number] = group or OTHER
    yield event, group or (BACKWARD if engine else OTHER)
    for child in sorted(event.cpu_children, key=lambda one: one.time_range.start):
        yield from _grouped(child, differentiated, group)
