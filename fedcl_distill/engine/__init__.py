"""The engine: one loop, four interchangeable parts, one call."""

from fedcl_distill.engine.budget import Budget
from fedcl_distill.engine.callbacks import Callback, Checkpoints, OnProgress, ProgressBar
from fedcl_distill.engine.core_set import CoreSet
from fedcl_distill.engine.distiller import Distiller, finished
from fedcl_distill.engine.engine import Engine, quantisation_aware
from fedcl_distill.engine.initial import FromReal, Initial, Noise
from fedcl_distill.engine.optimiser import SGD, Adam, Group, Optimiser
from fedcl_distill.engine.parts import Parts
from fedcl_distill.engine.run import Progress, Run
from fedcl_distill.engine.size import AbsentClasses, ByteBudget, Size, count_per_class
from fedcl_distill.engine.spending import Spending, best_spending

__all__ = [
    "SGD",
    "AbsentClasses",
    "Adam",
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
    "Noise",
    "OnProgress",
    "Optimiser",
    "Parts",
    "Progress",
    "ProgressBar",
    "Run",
    "Size",
    "Spending",
    "best_spending",
    "count_per_class",
    "finished",
    "quantisation_aware",
]
