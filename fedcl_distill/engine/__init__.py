"""The engine: one loop, four interchangeable parts, one call."""

from fedcl_distill.engine.budget import Budget
from fedcl_distill.engine.core_set import CoreSet
from fedcl_distill.engine.engine import Distiller, Engine, finished, quantisation_aware
from fedcl_distill.engine.loop import Callback, Checkpoints, OnProgress, Progress, ProgressBar, Run
from fedcl_distill.engine.method import SGD, Adam, FromReal, Group, Initial, MethodSpec, Noise, Optimiser
from fedcl_distill.engine.size import AbsentClasses, BitAllocation, ByteBudget, Size, allocate_bits, count_per_class

__all__ = [
    "SGD",
    "AbsentClasses",
    "Adam",
    "BitAllocation",
    "Budget",
    "ByteBudget",
    "Callback",
    "Checkpoints",
    "CoreSet",
    "Distiller",
    "Engine",
    "FromReal",
    "Group",
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
    "count_per_class",
    "finished",
    "quantisation_aware",
]
