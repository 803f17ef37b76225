"""Every setting of a simulated federation: its data and clients, its strategy, and how the server judges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, field
from typing import Annotated, Any, ClassVar, Literal, Self

from flwr.app import UserConfig

from fedcl_distill.data import LabelledData, parse_partitioner
from fedcl_distill.errors import SettingsError
from fedcl_distill.evaluation import PROTOCOLS, find_protocol
from fedcl_distill.methods import list_methods
from fedcl_distill.networks import Architecture
from fedcl_distill.settings import (
    Count,
    Fraction,
    Known,
    Momentum,
    Natural,
    NonNegative,
    Positive,
    Range,
    settings,
    suggest,
)
from fedcl_distill.synthetic.quantise import Bits
from strategies.continual.streams import DOMAINS
from strategies.federated import (
    STRATEGIES,
    Distillation,
    DynaFed,
    FederatedFeatures,
    FederatedStatistics,
    FederatedStrategy,
    Learner,
    LocalTraining,
    RunOptions,
)
from strategies.federated.requests import Flat, from_flat, to_flat
from strategies.federated.strategy import StrategyRegistry
from strategies.federated_continual import STRATEGIES as STAGED_STRATEGIES
from strategies.federated_continual import (
    ClientSchedule,
    ClientStream,
    MemorySize,
    ReplayFedAvg,
    experiences_of,
    read_stream,
)

MethodName = Annotated[str, Known("method", list_methods)]
ProtocolName = Annotated[str, Known("protocol", lambda: tuple(PROTOCOLS))]


def without_places(record: dict[str, Any]) -> dict[str, Any]:
    """What names an experiment: settings without the folder that was searched on this computer."""
    return {name: value for name, value in record.items() if name != "data_root"}


BASELINES = ("centralised", "pooled-distillation")
"""What strategies are measured against: no Flower strategies, but ``strategy`` names them here."""


@settings
class FederatedData:
    """Whose data are where: what nodes and server must agree on before anything is asked.

    Attributes:
        seed: fixes the result (same machine and thread count, distillation budget in steps).
        data: name of the data set.
        data_root: folder to search first; a place on this computer, and no part of :meth:`as_record`.
        train_limit: at most so many training samples, all clients together; None for all.
        validation_share: of the training data, in [0, 1), that no client gets and that the model is judged on in place
            of the test data: for choosing settings; 0 judges on the test data.
        clients: how many.
        partition: how the training data are divided over clients, such as "iid" or "dirichlet:0.1".
        min_client_samples: the fewest a client gets.

    Raises:
        SettingsError: on construction, if a value is out of range or unknown.
    """

    seed: Natural = 0
    data: str = "digits"
    data_root: str | None = None
    train_limit: Count | None = None
    validation_share: Momentum = 0.0
    clients: Count = 4
    partition: str = "dirichlet:0.1"
    min_client_samples: Natural = 1

    def __post_init__(self) -> None:
        parse_partitioner(self.partition)

    def to_run_config(self) -> UserConfig:
        """As Flower's run configuration: kebab-case keys; 0 or "" for None; ``method-settings`` as JSON text."""
        return to_flat(self)

    @classmethod
    def from_run_config(cls, run_config: Mapping[str, Flat]) -> Self:
        """The inverse of :meth:`to_run_config`; absent keys take their default, unknown ones are not looked at.

        Raises:
            SettingsError: a value has the wrong type or is out of range.
        """
        return from_flat(cls, run_config)


@settings
class FederatedSettings(FederatedData):
    """Settings of one run, the same for every way of running it: all of :class:`FederatedData`, and those below.

    Attributes:
        strategy: one of ``list_strategies()``, or of :data:`BASELINES`.
        strategy_settings: in place of its defaults, as JSON values.
        rounds: of questions and answers.

        method: by which clients distil, and
        method_settings: in place of its defaults, as JSON values.
        images_per_class: synthetic samples for each class that a client holds.
        byte_budget: largest payload of a client in bytes, in place of ``images_per_class``; None for no such budget.
        distil_steps, distil_seconds: when distillation stops, whichever comes first; the method's own where both are
            None. Only steps are reproducible.
        bits: a synthetic value is sent in.
        quantisation_aware: whether clients distil with values rounded to ``bits``, so that what they send is what they
            trained.
        fit_to_budget: whether clients spend their byte budget as suits it, on bits and resolution, in place of ``bits``
            and of whole images: see :func:`~fedcl_distill.engine.allocate_bits`.

        local_epochs, local_learning_rate, local_momentum, local_weight_decay, local_batch_size: of local training
            (FedAvg and its kin).
        local_augment: augment local training as suits the data.

        architecture: of the global model, such as "convnet:width=64"; None takes the protocol's.
        protocol: name of the evaluation protocol by which the server trains on synthetic sets.
        device: where server and clients compute.

        quorum: fraction of the clients, in [0, 1], whose answers are needed each round; one always is. Simulations
            count what was rejected and go on; see ``rejections`` of a result.
        slack: how far synthetic values may leave the data's range, as a multiple of its width. Unclamped methods do
            leave it: for pixels in [0, 1], DM at one image per class reached 3.7 after 4,000 steps.
        wait_seconds: for all clients to register; then the run goes on with those that did.
        reply_seconds: for the replies of a round.

    Raises:
        SettingsError: on construction, if a value is out of range or unknown.
    """

    strategy: str = "one-shot"
    strategy_settings: Mapping[str, Any] = field(default_factory=dict)
    rounds: Count = 1

    method: str = "dm"
    method_settings: Mapping[str, Any] = field(default_factory=dict)
    images_per_class: Count = 10
    byte_budget: Count | None = None
    distil_steps: Count | None = None
    distil_seconds: Annotated[float, Range(gt=0)] | None = None
    bits: Bits = 8
    quantisation_aware: bool = False
    fit_to_budget: bool = False

    local_epochs: Count = 1
    local_learning_rate: Positive = 0.01
    local_momentum: Momentum = 0.9
    local_weight_decay: NonNegative = 5e-4
    local_batch_size: Count = 32
    local_augment: bool = False

    architecture: str | None = None
    protocol: str = "fast"
    device: str = "cpu"

    quorum: Fraction = 0.0
    slack: NonNegative = 10.0
    wait_seconds: NonNegative = 60.0
    reply_seconds: Positive = 3600.0

    strategies: ClassVar[StrategyRegistry] = STRATEGIES
    baselines: ClassVar[tuple[str, ...]] = BASELINES

    def __post_init__(self) -> None:
        super().__post_init__()
        find_protocol(self.protocol)
        if self.architecture is not None:
            Architecture.parse(self.architecture)
        _ = self.distillation, self.local
        self.check_strategy()

    def check_strategy(self) -> None:
        """Return if there is such a strategy with such settings; SettingsError otherwise."""
        if self.strategy not in self.baselines:
            self.build_strategy()
        elif self.strategy_settings:
            raise SettingsError(f"strategy {self.strategy!r} has no settings")

    def build_strategy(self) -> FederatedStrategy:
        """The strategy that these settings name.

        Raises:
            SettingsError: it or a setting is unknown, or a value does not fit.
        """
        if self.strategy not in self.strategies:
            raise SettingsError(suggest("strategy", self.strategy, [*self.strategies.names(), *self.baselines]))
        given = self.shared_with(self.strategies[self.strategy].build)
        return self.strategies.build({**given, **self.strategy_settings, "name": self.strategy})

    def shared_with(self, kind: Any) -> dict[str, Any]:
        """What these settings say to a strategy of this class: how clients distil, and how they train."""
        found: dict[str, Any] = {}
        distilling = {name: getattr(self.distillation, name) for name in Distillation.__dataclass_fields__}
        if issubclass(kind, FederatedFeatures):
            found = {} if self.byte_budget is None else {"byte_budget": self.byte_budget}
        elif issubclass(kind, FederatedStatistics):
            if self.byte_budget is not None:
                raise SettingsError("statistics take no byte budget; views and dimensions say what they take")
            found = {name: distilling[name] for name in ("images_per_class", "steps", "seconds", "bits")}
        elif issubclass(kind, DynaFed):
            found = {"images_per_class": self.images_per_class}
        elif issubclass(kind, Distillation):
            found = distilling
        return {**found, "local": self.local} if "local" in kind.__dataclass_fields__ else found

    @property
    def distillation(self) -> Distillation:
        """How clients distil."""
        return Distillation(
            {**self.method_settings, "name": self.method},
            images_per_class=self.images_per_class,
            byte_budget=self.byte_budget,
            steps=self.distil_steps,
            seconds=self.distil_seconds,
            bits=self.bits,
            quantisation_aware=self.quantisation_aware,
            fit_to_budget=self.fit_to_budget,
        )

    @property
    def local(self) -> LocalTraining:
        """How clients train a model."""
        return LocalTraining(
            epochs=self.local_epochs,
            learning_rate=self.local_learning_rate,
            momentum=self.local_momentum,
            weight_decay=self.local_weight_decay,
            batch_size=self.local_batch_size,
            augment=self.local_augment,
        )

    @property
    def options(self) -> dict[str, Any]:
        """Keywords of ``run_server``."""
        return {
            "rounds": self.rounds,
            "seed": self.seed,
            "clients": self.clients,
            "network": self.architecture,
            "train": self.protocol,
            "device": self.device,
            "quorum": self.quorum,
            "slack": self.slack,
            "wait_seconds": self.wait_seconds,
            "reply_seconds": self.reply_seconds,
        }

    def learner(self, test: LabelledData) -> Learner:
        """The server's network and how it is trained; ``test`` gives shape and classes."""
        return RunOptions(**self.options).learner(test)

    def as_record(self) -> dict[str, Any]:
        """JSON values that name the experiment: everything but places on this computer.

        A validation share and a fit to the budget are part of it where there are any.
        """
        record = without_places(asdict(self))  # type: ignore[call-overload]
        for name in ("validation_share", "fit_to_budget"):
            if not record[name]:
                del record[name]
        return record


STAGED_BASELINES = ("joint", "joint-distilled")
"""What federated continual strategies are measured against."""


@settings
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
    scenario: Literal["class", "domain"] = "class"
    domain: str = "rotation"
    experiences: Count = 5
    order_seed: int | None = None
    memory_images_per_class: Count = 10
    memory_bytes: Count | None = None

    strategies: ClassVar[StrategyRegistry] = STAGED_STRATEGIES
    baselines: ClassVar[tuple[str, ...]] = STAGED_BASELINES

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.domain not in DOMAINS:
            raise SettingsError(suggest("domain", self.domain, DOMAINS))
        _ = self.itineraries  # a stream that does not fit is reported at once

    def shared_with(self, kind: Any) -> dict[str, Any]:
        """As of :class:`FederatedSettings`, and what memories there are."""
        found = super().shared_with(kind)
        if issubclass(kind, ReplayFedAvg):
            found["distillation"] = self.distillation
        if issubclass(kind, MemorySize):
            found |= {name: getattr(self, name) for name in MemorySize.__dataclass_fields__}
        return found

    def experiences_of(self, data: LabelledData) -> tuple[LabelledData, ...]:
        """What ``data`` hold of each experience; SettingsError where they cannot be divided so."""
        how = {"scenario": self.scenario, "domain": self.domain, "order_seed": self.order_seed}
        return experiences_of(data, self.experiences, **how)  # type: ignore[arg-type]

    def stream_of(self, data: LabelledData, partition: int) -> ClientStream:
        """The stream of the client that holds ``data``, the given partition."""
        return ClientStream.of(self.experiences_of(data), self.itineraries[partition])

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
        return MemorySize(self.memory_images_per_class, self.memory_bytes).memory_budget(like, self.bits)
