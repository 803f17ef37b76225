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
from fedcl_distill.methods.registry import METHODS, Method, build_method, known_settings, list_methods
from fedcl_distill.methods.rfad import rfad
from fedcl_distill.methods.rtp import rtp

__all__ = [
    "METHODS",
    "Method",
    "accdd",
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
    "random",
    "rfad",
    "rtp",
    "tesla",
]
