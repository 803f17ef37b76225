"""Federated continual learning on Flower: clients live through streams, the server keeps what they taught it.

Clients may build their streams with Avalanche, and train with replay on it; whatever only distils or sums does without.
"""

from strategies.federated_continual.memories import (
    STRATEGIES,
    MemorySize,
    NoMemory,
    ServerMemory,
    SetMemory,
    SumMemory,
    register_strategy,
)
from strategies.federated_continual.remembered import RememberedStatistics, RememberedUnion
from strategies.federated_continual.replay import ReplayFedAvg
from strategies.federated_continual.server import FederatedContinualResult, StageResult, run_server
from strategies.federated_continual.stages import AvailabilityPoll, StagedStrategy, make_client_app
from strategies.federated_continual.streams import (
    SCENARIOS,
    STREAMS,
    ClientSchedule,
    ClientStream,
    experiences_of,
    read_stream,
)

__all__ = [
    "SCENARIOS",
    "STRATEGIES",
    "STREAMS",
    "AvailabilityPoll",
    "ClientSchedule",
    "ClientStream",
    "FederatedContinualResult",
    "MemorySize",
    "NoMemory",
    "RememberedStatistics",
    "RememberedUnion",
    "ReplayFedAvg",
    "ServerMemory",
    "SetMemory",
    "StageResult",
    "StagedStrategy",
    "SumMemory",
    "experiences_of",
    "make_client_app",
    "read_stream",
    "register_strategy",
    "run_server",
]
