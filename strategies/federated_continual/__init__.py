"""Federated continual learning on Flower: clients live through streams, the server keeps what they taught it.

Clients may build their streams with Avalanche, and train with replay on it; whatever only distils or sums does without.
"""

from strategies.federated_continual.client import make_client_app
from strategies.federated_continual.client_stream import ClientStream, client_stream
from strategies.federated_continual.experiences import experiences_of
from strategies.federated_continual.memories import SetMemory, SumMemory
from strategies.federated_continual.registry import build
from strategies.federated_continual.remembered_union import RememberedUnion
from strategies.federated_continual.replay import ReplayFedAvg
from strategies.federated_continual.result import FederatedContinualResult, StageResult
from strategies.federated_continual.server import run_server
from strategies.federated_continual.settings import STRATEGIES, FederatedContinualSettings
from strategies.federated_continual.stages import AvailabilityPoll, StagedStrategy
from strategies.federated_continual.streams import STREAMS, ClientSchedule, read_stream

__all__ = [
    "STRATEGIES",
    "STREAMS",
    "AvailabilityPoll",
    "ClientSchedule",
    "ClientStream",
    "FederatedContinualResult",
    "FederatedContinualSettings",
    "RememberedUnion",
    "ReplayFedAvg",
    "SetMemory",
    "StageResult",
    "StagedStrategy",
    "SumMemory",
    "build",
    "client_stream",
    "experiences_of",
    "make_client_app",
    "read_stream",
    "run_server",
]
