"""What settings of several scenarios name, with the registers that know the names."""

from __future__ import annotations

from typing import Annotated, Any

from fedcl_distill.evaluation import PROTOCOLS
from fedcl_distill.methods import list_methods
from fedcl_distill.settings import Known

MethodName = Annotated[str, Known("method", list_methods)]
ProtocolName = Annotated[str, Known("protocol", lambda: tuple(PROTOCOLS))]


def without_places(record: dict[str, Any]) -> dict[str, Any]:
    """What names an experiment: settings without the folder that was searched on this computer."""
    return {name: value for name, value in record.items() if name != "data_root"}
