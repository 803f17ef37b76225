"""Federated learning by distillation on Flower: the public names of ``strategies.federated``.

They are imported when they are first asked for, and only if ``strategies`` is ours: a file of that name beside a
user's app would stand in for it.

Raises:
    DependencyError: at the first name, if Flower is not installed or something else is called ``strategies``.

Example:
    >>> from fedcl_distill.flower import list_strategies
    >>> "one-shot" in list_strategies()
    True
"""

from typing import TYPE_CHECKING

from fedcl_distill._imports import names_of

if TYPE_CHECKING:
    from strategies.federated import *  # noqa: F403

__getattr__, __dir__ = names_of("strategies.federated")
