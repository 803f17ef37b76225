"""Continual learning with Avalanche: memories under a byte budget, replay, benchmark, metrics.

Memories, metrics, settings and results know nothing of Avalanche. What needs it is imported when it is first asked
for, since importing Avalanche takes ten seconds.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fedcl_distill.errors import DependencyError
from strategies.continual.class_groups import class_groups, class_order
from strategies.continual.condensed_memory import CondensedMemory
from strategies.continual.distilled_memory import DistilledMemory
from strategies.continual.hybrid_memory import HybridMemory
from strategies.continual.losses import AsymmetricCrossEntropy, DarkExperience
from strategies.continual.memories import MEMORIES, memory_bytes
from strategies.continual.memory import EncodedMemory, Memory
from strategies.continual.metrics import AccuracyMatrix
from strategies.continual.private_memory import PrivateMemory
from strategies.continual.reservoir_memory import ReservoirMemory
from strategies.continual.result import ContinualResult
from strategies.continual.settings import SCENARIOS, STRATEGIES, ContinualSettings

if TYPE_CHECKING:
    from strategies.continual.avalanche_data import InputsDataset, inputs_dataset, labelled_data
    from strategies.continual.benchmark import class_incremental, domain_incremental, in_parts, task_incremental
    from strategies.continual.dark_replay import DarkReplay
    from strategies.continual.gdumb import GDumb
    from strategies.continual.interference import MostInterfered
    from strategies.continual.regularised import ProjectedGradients, Source
    from strategies.continual.replay import Replay
    from strategies.continual.run import build_benchmark, build_memory, run_stream
    from strategies.continual.storage_policy import MemoryBuffer

_ON_AVALANCHE = {
    "DarkReplay": "dark_replay",
    "GDumb": "gdumb",
    "MostInterfered": "interference",
    "ProjectedGradients": "regularised",
    "Source": "regularised",
    "build_benchmark": "run",
    "domain_incremental": "benchmark",
    "task_incremental": "benchmark",
    "InputsDataset": "avalanche_data",
    "MemoryBuffer": "storage_policy",
    "Replay": "replay",
    "build_memory": "run",
    "class_incremental": "benchmark",
    "in_parts": "benchmark",
    "inputs_dataset": "avalanche_data",
    "labelled_data": "avalanche_data",
    "run_stream": "run",
}

__all__ = [
    "MEMORIES",
    "SCENARIOS",
    "STRATEGIES",
    "AccuracyMatrix",
    "AsymmetricCrossEntropy",
    "CondensedMemory",
    "ContinualResult",
    "ContinualSettings",
    "DarkExperience",
    "DarkReplay",
    "DistilledMemory",
    "EncodedMemory",
    "GDumb",
    "HybridMemory",
    "InputsDataset",
    "Memory",
    "MemoryBuffer",
    "MostInterfered",
    "PrivateMemory",
    "ProjectedGradients",
    "Replay",
    "ReservoirMemory",
    "Source",
    "build_benchmark",
    "build_memory",
    "class_groups",
    "class_incremental",
    "class_order",
    "domain_incremental",
    "in_parts",
    "inputs_dataset",
    "labelled_data",
    "memory_bytes",
    "run_stream",
    "task_incremental",
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
