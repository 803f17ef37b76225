"""Continual learning with Avalanche: memories under a byte budget, replay, benchmark, metrics.

Memories, metrics, settings and results know nothing of Avalanche. What needs it is imported when it is first asked
for, since importing Avalanche takes ten seconds.
"""

from typing import TYPE_CHECKING, Any

from fedcl_distill._imports import import_lazily
from fedcl_distill.errors import DependencyError
from strategies.continual.buffer import ReplayBatch, ReplayBuffer
from strategies.continual.distilled_memory import CondensedMemory, DistilledMemory, PrivateMemory
from strategies.continual.losses import ERACE, BalancedCrossEntropy, DERppLoss, MaskedClassifier, MaskedLoss
from strategies.continual.memory import EncodedMemory, HybridMemory, Memory, ReservoirMemory
from strategies.continual.memory_registry import memory_bytes, named_memory
from strategies.continual.registry import Setup, StrategyParts
from strategies.continual.settings import (
    CONTINUAL_STRATEGIES,
    MEMORIES,
    SCENARIOS,
    AccuracyMatrix,
    ContinualResult,
    ContinualSettings,
)
from strategies.continual.streams import class_groups, class_order

if TYPE_CHECKING:
    from strategies.continual.benchmarks import (
        InputsDataset,
        class_incremental,
        domain_incremental,
        in_parts,
        inputs_dataset,
        labelled_data,
        task_incremental,
    )
    from strategies.continual.feature_sums import FeatureSumMemory, SumLearner
    from strategies.continual.regularisation import AGEM, EWC, ICaRLLoss, LwF, NearestMean, NetworkEmbedding, Source
    from strategies.continual.replay import MIR, DERpp, FineTuning, GDumb, Replay
    from strategies.continual.run import build_benchmark, build_memory, run_stream
    from strategies.continual.storage_policy import MemoryBuffer

_ON_AVALANCHE = {
    "AGEM": "regularisation",
    "DERpp": "replay",
    "EWC": "regularisation",
    "FeatureSumMemory": "feature_sums",
    "FineTuning": "replay",
    "GDumb": "replay",
    "ICaRLLoss": "regularisation",
    "InputsDataset": "benchmarks",
    "NearestMean": "regularisation",
    "NetworkEmbedding": "regularisation",
    "LwF": "regularisation",
    "MIR": "replay",
    "MemoryBuffer": "storage_policy",
    "Replay": "replay",
    "Source": "regularisation",
    "SumLearner": "feature_sums",
    "build_benchmark": "run",
    "build_memory": "run",
    "class_incremental": "benchmarks",
    "domain_incremental": "benchmarks",
    "in_parts": "benchmarks",
    "inputs_dataset": "benchmarks",
    "labelled_data": "benchmarks",
    "run_stream": "run",
    "task_incremental": "benchmarks",
}

__all__ = [
    "AGEM",
    "CONTINUAL_STRATEGIES",
    "ERACE",
    "EWC",
    "MEMORIES",
    "MIR",
    "SCENARIOS",
    "AccuracyMatrix",
    "BalancedCrossEntropy",
    "CondensedMemory",
    "ContinualResult",
    "ContinualSettings",
    "DERpp",
    "DERppLoss",
    "DistilledMemory",
    "EncodedMemory",
    "FeatureSumMemory",
    "FineTuning",
    "GDumb",
    "HybridMemory",
    "ICaRLLoss",
    "InputsDataset",
    "LwF",
    "MaskedClassifier",
    "MaskedLoss",
    "Memory",
    "MemoryBuffer",
    "NearestMean",
    "NetworkEmbedding",
    "PrivateMemory",
    "Replay",
    "ReplayBatch",
    "ReplayBuffer",
    "ReservoirMemory",
    "Setup",
    "Source",
    "StrategyParts",
    "SumLearner",
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
    "named_memory",
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
