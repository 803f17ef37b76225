"""How statistics are laid out in a payload, for the two sides that must agree: encoding and decoding.

The container is safetensors, with one JSON text in its metadata. For each kind of sums there is an array (rows,
dimensions) with the means of those pairs of a view and a class that have samples, view by view; and an array of counts
(views, classes), where they do not follow from the others.
"""

from __future__ import annotations

from collections.abc import Iterable

from fedcl_distill.statistics.spec import StatisticsSpec
from fedcl_distill.statistics.sums import FEATURES, SAMPLES

BITS = (8, 16, 32)


def counts_name(name: str) -> str:
    """What the array with the counts of the sums ``name`` is called."""
    return f"counts of {name}"


def stored_counts(spec: StatisticsSpec, names: Iterable[str]) -> list[str]:
    """Sums whose counts travel; all others count every sample."""
    return [name for name in names if name == SAMPLES or (name == FEATURES and spec.share < 1)]
