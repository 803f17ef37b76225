"""The engine: one loop, four interchangeable parts, one call."""

from fedcl_distill.engine.compressed import CompressedCoreSet
from fedcl_distill.engine.engine import (
    INITS,
    CoreSet,
    Distiller,
    Engine,
    FromReal,
    Initial,
    MethodSpec,
    Noise,
    as_init,
    finished,
    quantisation_aware,
    register_init,
)
from fedcl_distill.engine.loop import Callback, Checkpoints, OnProgress, Progress, ProgressBar, Run, observed_by
from fedcl_distill.engine.size import (
    AbsentClasses,
    BitAllocation,
    Budget,
    ByteBudget,
    Size,
    allocate_bits,
    count_per_class,
)
from fedcl_distill.optimisers import SGD, Adam, Optimiser

__all__ = [
    "INITS",
    "SGD",
    "AbsentClasses",
    "Adam",
    "BitAllocation",
    "Budget",
    "ByteBudget",
    "Callback",
    "Checkpoints",
    "CompressedCoreSet",
    "CoreSet",
    "Distiller",
    "Engine",
    "FromReal",
    "Initial",
    "MethodSpec",
    "Noise",
    "OnProgress",
    "Optimiser",
    "Progress",
    "ProgressBar",
    "Run",
    "Size",
    "allocate_bits",
    "as_init",
    "count_per_class",
    "finished",
    "observed_by",
    "quantisation_aware",
    "register_init",
]
