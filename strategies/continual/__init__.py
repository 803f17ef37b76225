"""Continual learning with Avalanche: memories under a byte budget, replay, benchmark, metrics.

Memories, metrics, settings and results know nothing of Avalanche. What needs it is imported when it is first asked
for, since importing Avalanche takes ten seconds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fedcl_distill.errors import DependencyError
from strategies.continual.distilled_memory import DistilledMemory
from strategies.continual.memory import EncodedMemory, Memory
from strategies.continual.metrics import AccuracyMatrix
from strategies.continual.reservoir_memory import ReservoirMemory
from strategies.continual.result import ContinualResult
from strategies.continual.settings import STRATEGIES, ContinualSettings

if TYPE_CHECKING:
    from strategies.continual.avalanche_data import InputsDataset, inputs_dataset, labelled_data
    from strategies.continual.benchmark import class_incremental, class_order
    from strategies.continual.replay import Replay
    from strategies.continual.run import build_memory, memory_bytes, run_stream
    from strategies.continual.storage_policy import MemoryBuffer

_ON_AVALANCHE = {
    "InputsDataset": "avalanche_data",
    "MemoryBuffer": "storage_policy",
    "Replay": "replay",
    "build_memory": "run",
    "class_incremental": "benchmark",
    "class_order": "benchmark",
    "inputs_dataset": "avalanche_data",
    "labelled_data": "avalanche_data",
    "memory_bytes": "run",
    "run_stream": "run",
}

__all__ = [
    "STRATEGIES",
    "AccuracyMatrix",
    "ContinualResult",
    "ContinualSettings",
    "DistilledMemory",
    "EncodedMemory",
    "InputsDataset",
    "Memory",
    "MemoryBuffer",
    "Replay",
    "ReservoirMemory",
    "build_memory",
    "class_incremental",
    "class_order",
    "inputs_dataset",
    "labelled_data",
    "memory_bytes",
    "run_stream",
]


def __getattr__(name: str) -> Any:
    if name not in _ON_AVALANCHE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_ON_AVALANCHE[name]}"), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "avalanche":
            raise
        raise DependencyError(f"{name} needs Avalanche: pip install 'fedcl-distill[continual]'") from error
