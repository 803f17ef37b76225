"""Published methods as presets of the engine, and the core sets they are compared with."""

from fedcl_distill.methods.core_sets import herding, k_center, random
from fedcl_distill.methods.dm import dm
from fedcl_distill.methods.registry import METHODS, Method, build_method, list_methods

__all__ = ["METHODS", "Method", "build_method", "dm", "herding", "k_center", "list_methods", "random"]
