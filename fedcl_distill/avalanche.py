"""Continual learning by distillation on Avalanche: the public names of ``strategies.continual``.

They are imported when they are first asked for, and only if ``strategies`` is ours: a file of that name beside a
user's script would stand in for it.

Raises:
    DependencyError: at the first name, if something else is called ``strategies``; at the first one that needs
        Avalanche, if that is not installed.

Example:
    >>> from fedcl_distill.avalanche import DistilledMemory
    >>> DistilledMemory.__module__.partition(".")[0]
    'strategies'
"""

from typing import TYPE_CHECKING

from fedcl_distill._imports import names_of

if TYPE_CHECKING:
    from strategies.continual import *  # noqa: F403

__getattr__, __dir__ = names_of("strategies.continual")
