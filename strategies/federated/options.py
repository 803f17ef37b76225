"""A strategy's own settings, from JSON values."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from fedcl_distill.errors import SettingsError
from strategies.federated.flat import from_flat

T = TypeVar("T")


@dataclass(frozen=True)
class NoOptions:
    """Of a strategy without settings of its own."""


def read_options(kind: type[T], strategy: str, given: Mapping[str, Any]) -> T:
    """The dataclass ``kind`` with the values ``given`` by field name.

    Raises:
        SettingsError: a name is unknown, or a value has another type than its field or is out of range.
    """
    known = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    unknown = sorted(set(given) - set(known))
    if unknown:
        raise SettingsError(
            f"strategy {strategy!r} has no setting {', '.join(unknown)}; it has: {', '.join(known) or 'none'}"
        )
    return from_flat(kind, {name.replace("_", "-"): value for name, value in given.items()})
