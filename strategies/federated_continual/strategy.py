"""The register of federated continual strategies, and what those with a memory have in common."""

from __future__ import annotations

from fedcl_distill.data import LabelledData
from fedcl_distill.engine.size import bytes_of_counts
from fedcl_distill.settings import Count, settings
from strategies.federated.fedavg import FedAvg
from strategies.federated.strategy import FederatedStrategy, StrategyRegistry

STRATEGIES = StrategyRegistry(
    "federated continual strategy", "fedcl_distill.federated_continual_strategies", FederatedStrategy
)
"""All federated continual strategies by name. Their servers may have a ``keeper``: what is kept beside the model."""

register_strategy = STRATEGIES.register
register_strategy("fedavg")(FedAvg)


@settings
class MemorySize:
    """How large a memory is.

    Attributes:
        memory_images_per_class: as samples for each of all classes; the bytes that these take are its budget from the
            first stage on.
        memory_bytes: its budget, in place of ``memory_images_per_class``.
    """

    memory_images_per_class: Count = 10
    memory_bytes: Count | None = None

    def memory_budget(self, like: LabelledData, bits: int) -> int:
        """Bytes of the memory, where a value takes ``bits``."""
        if self.memory_bytes is not None:
            return self.memory_bytes
        return bytes_of_counts([self.memory_images_per_class] * like.num_classes, like, bits)
