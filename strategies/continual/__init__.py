"""Continual learning with Avalanche: memories under a byte budget, replay, benchmark, metrics.

Memories, metrics, settings and results know nothing of Avalanche. What needs it is imported when it is first asked
for, since importing Avalanche takes ten seconds.
"""

from typing import TYPE_CHECKING, Any

from fedcl_distill._imports import import_lazily
from fedcl_distill.errors import DependencyError
from strategies.continual.memories.base import EncodedMemory, Memory
from strategies.continual.memories.condensed import CondensedMemory
from strategies.continual.memories.distilled import DistilledMemory
from strategies.continual.memories.hybrid import HybridMemory
from strategies.continual.memories.named import MEMORIES, memory_bytes
from strategies.continual.memories.private import PrivateMemory
from strategies.continual.memories.reservoir import ReservoirMemory
from strategies.continual.metrics import AccuracyMatrix
from strategies.continual.replay.losses import AsymmetricCrossEntropy, DarkExperience
from strategies.continual.result import ContinualResult
from strategies.continual.settings import SCENARIOS, STRATEGIES, ContinualSettings
from strategies.continual.streams.class_groups import class_groups, class_order

if TYPE_CHECKING:
    from strategies.continual.memories.storage_policy import MemoryBuffer
    from strategies.continual.replay.dark import DERpp
    from strategies.continual.replay.finetuning import FineTuning
    from strategies.continual.replay.gdumb import GDumb
    from strategies.continual.replay.interference import MIR
    from strategies.continual.replay.plugin import Replay
    from strategies.continual.replay.regularised import AGEM, Source
    from strategies.continual.run import build_benchmark, build_memory, run_stream
    from strategies.continual.streams.avalanche_data import InputsDataset, inputs_dataset, labelled_data
    from strategies.continual.streams.benchmark import class_incremental, domain_incremental, in_parts, task_incremental

_ON_AVALANCHE = {
    "DERpp": "replay.dark",
    "FineTuning": "replay.finetuning",
    "GDumb": "replay.gdumb",
    "MIR": "replay.interference",
    "AGEM": "replay.regularised",
    "Source": "replay.regularised",
    "build_benchmark": "run",
    "domain_incremental": "streams.benchmark",
    "task_incremental": "streams.benchmark",
    "InputsDataset": "streams.avalanche_data",
    "MemoryBuffer": "memories.storage_policy",
    "Replay": "replay.plugin",
    "build_memory": "run",
    "class_incremental": "streams.benchmark",
    "in_parts": "streams.benchmark",
    "inputs_dataset": "streams.avalanche_data",
    "labelled_data": "streams.avalanche_data",
    "run_stream": "run",
}

__all__ = [
    "AGEM",
    "MEMORIES",
    "MIR",
    "SCENARIOS",
    "STRATEGIES",
    "AccuracyMatrix",
    "AsymmetricCrossEntropy",
    "CondensedMemory",
    "ContinualResult",
    "ContinualSettings",
    "DERpp",
    "DarkExperience",
    "DistilledMemory",
    "EncodedMemory",
    "FineTuning",
    "GDumb",
    "HybridMemory",
    "InputsDataset",
    "Memory",
    "MemoryBuffer",
    "PrivateMemory",
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

_import = import_lazily(__name__, _ON_AVALANCHE)


def __getattr__(name: str) -> Any:
    try:
        return _import(name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "avalanche":
            raise
        raise DependencyError(f"{name} needs Avalanche: pip install 'fedcl-distill[continual]'") from error
