"""Dataset distillation for federated and continual learning: distil, hold, encode, judge.

from fedcl_distill import Budget, evaluate, load_data, build_method

data = load_data("digits")
synthetic = build_method("dm").distil(data.train, 10, seed=0, budget=Budget(seconds=30))
print(evaluate(synthetic, data.test, seed=0))

These names are imported when they are first asked for, since PyTorch takes seconds.
"""

from typing import TYPE_CHECKING

from fedcl_distill._imports import import_lazily

if TYPE_CHECKING:
    from fedcl_distill.augmentation import register_augmentation
    from fedcl_distill.data import (
        DataSpec,
        FrameEncoder,
        LabelledData,
        Normalisation,
        Splits,
        as_labelled,
        from_arrays,
        from_dataframe,
        from_dataset,
        partition,
        register_partitioner,
    )
    from fedcl_distill.data import load as load_data
    from fedcl_distill.engine import Budget, ByteBudget, Callback, Distiller, Engine, ProgressBar
    from fedcl_distill.evaluation import FAST, FIELD, Evaluation, Protocol, evaluate
    from fedcl_distill.labels import register_labels
    from fedcl_distill.methods import build_method, list_methods, register_method
    from fedcl_distill.networks import Architecture, as_network, list_architectures, register_network
    from fedcl_distill.objectives import MatchContext, Objective, register_objective
    from fedcl_distill.optimisers import register_optimiser
    from fedcl_distill.parameterizations import register_parameterization
    from fedcl_distill.selection import register_selection
    from fedcl_distill.synthetic import SyntheticSet, decode, encode, load, save, union

__version__ = "0.1.0"

_PLACES = {
    "LabelledData": "data",
    "Normalisation": "data",
    "Splits": "data",
    "load_data": "data:load",
    "DataSpec": "data",
    "FrameEncoder": "data",
    "as_labelled": "data",
    "from_arrays": "data",
    "from_dataframe": "data",
    "from_dataset": "data",
    "partition": "data",
    "Budget": "engine",
    "ByteBudget": "engine",
    "Callback": "engine",
    "Distiller": "engine",
    "Engine": "engine",
    "ProgressBar": "engine",
    "FAST": "evaluation",
    "FIELD": "evaluation",
    "Evaluation": "evaluation",
    "Protocol": "evaluation",
    "evaluate": "evaluation",
    "build_method": "methods",
    "list_methods": "methods",
    "Architecture": "networks",
    "as_network": "networks",
    "list_architectures": "networks",
    "register_network": "networks",
    "register_augmentation": "augmentation",
    "register_labels": "labels",
    "register_method": "methods",
    "MatchContext": "objectives",
    "Objective": "objectives",
    "register_objective": "objectives",
    "register_optimiser": "optimisers",
    "register_parameterization": "parameterizations",
    "register_partitioner": "data",
    "register_selection": "selection",
    "SyntheticSet": "synthetic",
    "decode": "synthetic",
    "encode": "synthetic",
    "load": "synthetic",
    "save": "synthetic",
    "union": "synthetic",
}

__all__ = [
    "FAST",
    "FIELD",
    "Architecture",
    "Budget",
    "ByteBudget",
    "Callback",
    "DataSpec",
    "Distiller",
    "Engine",
    "Evaluation",
    "FrameEncoder",
    "LabelledData",
    "MatchContext",
    "Normalisation",
    "Objective",
    "ProgressBar",
    "Protocol",
    "Splits",
    "SyntheticSet",
    "as_labelled",
    "as_network",
    "build_method",
    "decode",
    "encode",
    "evaluate",
    "from_arrays",
    "from_dataframe",
    "from_dataset",
    "list_architectures",
    "list_methods",
    "load",
    "load_data",
    "partition",
    "register_augmentation",
    "register_labels",
    "register_method",
    "register_network",
    "register_objective",
    "register_optimiser",
    "register_parameterization",
    "register_partitioner",
    "register_selection",
    "save",
    "union",
]

__getattr__ = import_lazily(__name__, _PLACES)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
