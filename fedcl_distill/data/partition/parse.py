"""Partitioners as text, for command lines and settings files."""

from __future__ import annotations

from fedcl_distill.data.partition.base import Partitioner
from fedcl_distill.data.partition.classes import ClassesPerClient
from fedcl_distill.data.partition.dirichlet import Dirichlet
from fedcl_distill.data.partition.iid import IID
from fedcl_distill.data.partition.natural import Natural
from fedcl_distill.errors import SettingsError

_FORMS = "'iid', 'dirichlet:ALPHA' (such as dirichlet:0.1), 'classes:K' (such as classes:2) or 'natural'"


def parse_partitioner(text: str) -> Partitioner:
    """Return the partitioner that ``text`` names: "iid", "dirichlet:0.1", "classes:2" or "natural".

    Raises:
        SettingsError: anything else, or a number out of range.
    """
    kind, colon, value = text.strip().lower().partition(":")
    try:
        match kind, bool(colon):
            case "iid", False:
                return IID()
            case "natural", False:
                return Natural()
            case "dirichlet", True:
                return Dirichlet(float(value))
            case "classes", True:
                return ClassesPerClient(int(value))
    except ValueError as error:
        raise SettingsError(f"partitioner {text!r}: {error}; expected {_FORMS}") from error
    raise SettingsError(f"unknown partitioner {text!r}, expected {_FORMS}")
