"""Published methods as presets of the engine, and the core sets they are compared with."""

from fedcl_distill.methods.cafe import cafe
from fedcl_distill.methods.core_sets import closest_to_mean, forgetting, herding, k_center, random
from fedcl_distill.methods.dc import dc, dcc, dsa
from fedcl_distill.methods.dd import dd, label_distillation
from fedcl_distill.methods.dm import dm
from fedcl_distill.methods.frepo import frepo
from fedcl_distill.methods.idc import accdd, idc
from fedcl_distill.methods.it_gan import it_gan
from fedcl_distill.methods.kip import kip
from fedcl_distill.methods.mtt import mtt, mtt_pruned, tesla
from fedcl_distill.methods.ncfm import ncfm
from fedcl_distill.methods.private_statistics import private_statistics
from fedcl_distill.methods.psg import psg
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
from fedcl_distill.methods.rfad import rfad
from fedcl_distill.methods.rtp import rtp

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
