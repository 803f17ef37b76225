"""Published methods as presets of the engine, and the core sets they are compared with."""

from fedcl_distill.methods.core_sets import closest_to_mean, forgetting, herding, k_center, random
from fedcl_distill.methods.distribution import cafe, dm, it_gan, ncfm
from fedcl_distill.methods.gradients import accdd, dc, dcc, dsa, idc
from fedcl_distill.methods.performance import dd, frepo, kip, label_distillation, rfad, rtp
from fedcl_distill.methods.private import private_statistics, psg
from fedcl_distill.methods.registry import (
    CORE_SET,
    METHODS,
    Method,
    all_methods,
    build_method,
    known_settings,
    list_methods,
    register_method,
    takes_optimiser,
    variant_of,
    with_objective,
)
from fedcl_distill.methods.trajectories import mtt, mtt_pruned, tesla

__all__ = [
    "CORE_SET",
    "METHODS",
    "Method",
    "accdd",
    "all_methods",
    "build_method",
    "cafe",
    "closest_to_mean",
    "dc",
    "dcc",
    "dd",
    "dm",
    "dsa",
    "forgetting",
    "frepo",
    "herding",
    "idc",
    "it_gan",
    "k_center",
    "kip",
    "known_settings",
    "label_distillation",
    "list_methods",
    "mtt",
    "mtt_pruned",
    "ncfm",
    "private_statistics",
    "psg",
    "random",
    "register_method",
    "rfad",
    "rtp",
    "takes_optimiser",
    "tesla",
    "variant_of",
    "with_objective",
]
