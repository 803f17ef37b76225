"""What users write: settings files, and short texts that name something."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from fedcl_distill.data.partition import parse_partitioner
from fedcl_distill.errors import SettingsError
from fedcl_distill.methods.parts import as_parameterization
from fedcl_distill.networks import Architecture
from simulations.commands.cells import read_cells
from simulations.fuzz.mutation import mutate_text
from simulations.fuzz.scratch import scratch_file
from simulations.fuzz.target import Target
from simulations.scenarios.distil import DistilSettings
from simulations.settings import FederatedSettings
from strategies.continual.settings import ContinualSettings
from strategies.federated.compression import read_codec

_SETTINGS = {"d": DistilSettings, "f": FederatedSettings, "c": ContinualSettings}
_FILES = (
    'd method = ["dm", "mtt"]\nseed = [0, 1]\nimages-per-class = 1\ndistil_seconds = 2\nmethod_settings.clamp = true\n',
    'd [[run]]\nmethod = "random"\n[[run]]\nbyte_budget = 1000\nbits = [4, 8]\n',
    'f strategy = "fedavg"\nrounds = 5\npartition = "dirichlet:0.1"\nquorum = 0.5\n[strategy_settings]\na = 1\n',
    'c strategy = "reservoir"\nexperiences = 5\nonline = false\n[strategy_settings]\nreservoir = {a = "x"}\n',
)
_NAMES: dict[str, tuple[Callable[[str], Any], tuple[str, ...]]] = {
    "a": (Architecture.parse, ("convnet:width=64", "mlp:width=8,precision=bfloat16", "resnet18", "vgg11")),
    "p": (parse_partitioner, ("iid", "dirichlet:0.1", "classes:2", "natural")),
    "c": (read_codec, ("plain", "topk:fraction=0.01,error_feedback=true", "quantised:bits=4,bucket=8")),
    "s": (as_parameterization, ("pixels", "tiles:factor=2", "addressing:bases=2,scale=1", "low-rank:rank=null")),
}
_MAX_BUILT = 64


def _read_file(data: bytes) -> list[Any]:
    kind = _SETTINGS.get(data[:1].decode("latin-1"), DistilSettings)
    return read_cells(kind, scratch_file("settings.toml", data[2:]), {})


def _check_cells(cells: list[Any]) -> None:
    for cell in cells[:20]:
        json.dumps(cell.as_record(), sort_keys=True)


def _read_name(data: bytes) -> Any:
    read, _ = _NAMES.get(data[:1].decode("latin-1"), _NAMES["a"])
    found = read(data[1:].decode(errors="replace"))
    if isinstance(found, Architecture) and _is_small(found):
        found.build((1, 8, 8), 3, seed=0)
    return found


def _is_small(architecture: Architecture) -> bool:
    return all(value <= _MAX_BUILT for value in architecture.options.values() if type(value) is int)


SETTINGS = Target(
    "settings", lambda: [one.encode() for one in _FILES], _read_file, (SettingsError,), _check_cells, mutate_text
)
NAMES = Target(
    "names",
    lambda: [(key + text).encode() for key, (_, texts) in _NAMES.items() for text in texts],
    _read_name,
    (SettingsError,),
    mutate=mutate_text,
)
