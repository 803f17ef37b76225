"""Continual learning with Avalanche: memories under a byte budget, replay, benchmark, metrics."""

from strategies.continual.avalanche_data import InputsDataset, inputs_dataset, labelled_data
from strategies.continual.benchmark import class_incremental, class_order
from strategies.continual.memory import DistilledMemory, EncodedMemory, Memory, ReservoirMemory
from strategies.continual.metrics import AccuracyMatrix
from strategies.continual.replay import Replay
from strategies.continual.result import ContinualResult
from strategies.continual.run import build_memory, memory_bytes, run_stream
from strategies.continual.settings import STRATEGIES, ContinualSettings
from strategies.continual.storage_policy import MemoryBuffer

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
