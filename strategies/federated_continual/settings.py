"""Every setting of a federated continual run."""

from __future__ import annotations

from dataclasses import dataclass

from fedcl_distill.data import LabelledData
from fedcl_distill.engine.size import bytes_of_counts
from fedcl_distill.errors import SettingsError
from strategies.continual.settings import SCENARIOS
from strategies.federated import FederatedSettings
from strategies.federated_continual.streams import ClientSchedule, read_stream

STRATEGIES = ("distilled", "statistics", "fedavg", "fedavg-replay")
_SCENARIOS = tuple(one for one in SCENARIOS if one != "task")


@dataclass(frozen=True)
class FederatedContinualSettings(FederatedSettings):
    """Settings of one run: all of :class:`FederatedSettings`, and those below. Bytes and bits serve memories, too.

    Attributes:
        strategy: "distilled" (clients send synthetic sets, of which the server keeps a memory), "statistics" (clients
            send sums, the server keeps their total), "fedavg" (models, fine-tuned on every experience) or
            "fedavg-replay" (the same, with a memory on every client).
        rounds: of questions and answers in each stage.

        stream: how clients live through the experiences: "same" (all in one order), "shuffled" (each in its own),
            "late:clients=1,after=1" (so many join after so many stages), "departing:clients=1,after=1" (so many leave).
        scenario: what changes from one experience to the next: the "class"es, or the "domain" (how the same classes
            look).
        domain: "rotation", "permutation" or "inversion".
        experiences: into which the classes are divided, or how many domains there are.
        order_seed: draws the order of classes; None keeps it as numbered.

        memory_images_per_class: size of the memory, as samples for each of all classes; the bytes that these take at
            ``bits`` are its budget from the first stage on. The memory is the server's; with "fedavg-replay", every
            client has one of this size.
        memory_bytes: its budget, in place of ``memory_images_per_class``.

    Raises:
        SettingsError: on construction, if a value is out of range or unknown.
    """

    strategy: str = "distilled"
    stream: str = "same"
    scenario: str = "class"
    domain: str = "rotation"
    experiences: int = 5
    order_seed: int | None = None
    memory_images_per_class: int = 10
    memory_bytes: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scenario not in _SCENARIOS:
            raise SettingsError(f"unknown scenario {self.scenario!r}; known: {', '.join(_SCENARIOS)}")
        for name in ("experiences", "memory_images_per_class"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.memory_bytes is not None and self.memory_bytes < 1:
            raise SettingsError(f"memory_bytes must be positive or None, got {self.memory_bytes}")
        _ = self.itineraries  # a stream that does not fit shall be told of at once

    @property
    def itineraries(self) -> tuple[ClientSchedule, ...]:
        """When each client lives through which experience, in the order of partitions."""
        return read_stream(self.stream)(self.clients, self.experiences, self.seed)

    @property
    def stages(self) -> int:
        """Until the last client has lived through its last experience."""
        return max(one.ends for one in self.itineraries)

    def memory_budget(self, like: LabelledData) -> int:
        """Bytes of the memory: as given, or what ``memory_images_per_class`` samples of every class take."""
        if self.memory_bytes is not None:
            return self.memory_bytes
        return bytes_of_counts([self.memory_images_per_class] * like.num_classes, like, self.bits)
