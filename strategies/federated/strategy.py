"""A federated strategy is one object: its settings, what a node does when it is asked, and what the server does.

A strategy of your own is a class in one file, registered by :func:`register_strategy` or an entry point of the group
``fedcl_distill.federated_strategies``. It then works in Python, on the command line and on every node that has it.

Example:
    >>> def count(task: Task) -> RecordDict:
    ...     return RecordDict({"counts": ConfigRecord({"classes": task.data.class_counts.tolist()})})
    >>> @register_strategy("count")
    ... @settings
    ... class Count(FederatedStrategy):
    ...     client_steps = (ClientStep("count", count),)
    ...     def server(self, context: ServerContext) -> Strategy: ...
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, ClassVar, TypeVar, cast

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedcl_distill.data import LabelledData
from fedcl_distill.errors import SettingsError
from fedcl_distill.registry import Registry, build_with, parse
from fedcl_distill.settings import hints_of, suggest
from fedcl_distill.synthetic import SyntheticSet
from strategies.federated.aggregation import AggregatedSets, ReplyCollector
from strategies.federated.answers import State
from strategies.federated.learner import Learner
from strategies.federated.requests import Task

B = TypeVar("B", bound=Callable[..., Any])

Work = Callable[[Task], RecordDict]
"""What a node makes of a request: the content of its answer."""


@dataclass(frozen=True)
class ClientStep:
    """One kind of message, and what a node does with it.

    Attributes:
        action: messages of type ``train.<action>`` ask for it; "" stands for Flower's own ``train``.
        work: from the task to the answer's content.
        protected: the answer tells no more of the data than a privacy guarantee allows, or is one of several that add
            up to such a release. A node with a privacy budget answers nothing else.
        discreet: the report beside the answer says neither how much data the node has nor how long it worked.
        counts_classes: the report says how many samples each class has.

    Raises:
        SettingsError: on construction, if the action is no Python name.
    """

    action: str
    work: Work
    protected: bool = False
    discreet: bool = False
    counts_classes: bool = False

    def __post_init__(self) -> None:
        if self.action and not self.action.isidentifier():
            raise SettingsError(f"an action is a Python name, for Flower asks that, got {self.action!r}")

    @property
    def kind(self) -> str:
        """The message type."""
        return f"train.{self.action}" if self.action else "train"


@dataclass(frozen=True)
class ServerContext:
    """What the server of a strategy works with.

    Attributes:
        test: gives classes, sample shape, normalisation and value range of the run.
        learner: builds and trains the global model.
        collector: waits for nodes and turns bad answers away.
        rounds: of questions and answers, in all or (federated continual learning) in each stage.
        slack: how far synthetic values may leave the data's range, as a multiple of its width.
        reply_seconds: for the replies of a round.
    """

    test: LabelledData
    learner: Learner
    collector: ReplyCollector
    rounds: int = 1
    slack: float = 10.0
    reply_seconds: float = 3600.0

    @property
    def seed(self) -> int:
        return self.learner.seed

    @property
    def device(self) -> str:
        return self.learner.device

    def require_one_round(self, what: str) -> None:
        """Return if the run has one round; SettingsError otherwise."""
        if self.rounds != 1:
            raise SettingsError(f"{what} has one round, {self.rounds} were asked for")


class FederatedStrategy(ABC):
    """Base of all strategies: a frozen dataclass of settings that knows both sides of the conversation.

    Attributes:
        name: under which it is registered.
        client_steps: what nodes are asked by this strategy. Every node that has the strategy registered answers them.
        needs_model: whether rounds begin with a global model, so that a run may begin with a given one.
        network: text of the network that the strategy trains where a run names none; "" leaves it to the run.
    """

    name: ClassVar[str] = ""
    client_steps: ClassVar[tuple[ClientStep, ...]] = ()
    needs_model: ClassVar[bool] = False
    network: ClassVar[str] = ""

    @abstractmethod
    def server(self, context: ServerContext) -> Strategy:
        """The server's side of one run, a Flower strategy.

        Raises:
            SettingsError: the settings do not suit the run or its data.
        """

    def scaled(self, test: LabelledData) -> LabelledData:
        """The server's data on the scale of the run; as they are, unless a strategy cannot use a measured scale."""
        return test


class StrategyRegistry(Registry[FederatedStrategy]):
    """Settings of a strategy's parts (``local.epochs``) go by their own names in plain form: ``epochs``."""

    def register(self, name: str, **facts: Any) -> Callable[[B], B]:
        """As any register; the class learns its name, which is that of its plain form."""
        keep = super().register(name, **facts)

        def named(build: B) -> B:
            if isinstance(build, type):
                build.name = name  # type: ignore[attr-defined]
            return keep(build)

        return named

    def build(self, value: FederatedStrategy | str | Mapping[str, Any], /, **more: Any) -> FederatedStrategy:
        if isinstance(value, str):
            value = parse(value)
        if not isinstance(value, Mapping):
            return super().build(value)
        given = {**value, **more}
        entry = self[str(given.pop("name", None))]
        owner = f"{self.kind} {entry.name!r}"
        return build_with(owner, entry.build, grouped(owner, entry.build, given))


STRATEGIES = StrategyRegistry("federated strategy", "fedcl_distill.federated_strategies", FederatedStrategy)
"""All federated strategies by name."""

register_strategy = STRATEGIES.register


def list_strategies() -> list[str]:
    """Names of all registered strategies, sorted."""
    return STRATEGIES.names()


def registered_steps(strategies: Registry[Any] = STRATEGIES) -> Iterator[ClientStep]:
    """What nodes are asked by any registered strategy, each message type once.

    Raises:
        SettingsError: two strategies mean different things by one message type.
    """
    found: dict[str, ClientStep] = {}
    for entry in strategies:
        for step in getattr(entry.build, "client_steps", ()):
            if found.setdefault(step.action, step) != step:
                raise SettingsError(f"strategy {entry.name!r} answers {step.kind!r} in another way than another one")
    yield from found.values()


def grouped(owner: str, kind: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by name as arguments of the dataclass ``kind``, whose fields may be dataclasses with settings of theirs.

    A field of the class itself goes first. "" stands for None where that is the default: TOML has no word for it.

    Raises:
        SettingsError: a name is unknown; the message begins with ``owner``.
    """
    if not is_dataclass(kind):
        return dict(given)
    kind = cast(Any, kind)
    own = {one.name: one for one in fields(kind)}
    parts = {name: part for name in own if is_dataclass(part := hints_of(kind)[name])}
    place = {one.name: (name, one) for name, part in parts.items() for one in fields(part) if one.name not in own}
    arguments: dict[str, Any] = {}
    inner: dict[str, dict[str, Any]] = {}
    for name, value in given.items():
        if name in parts and isinstance(value, Mapping):
            inner.setdefault(name, {}).update({key: one for key, one in value.items() if key != "name"})
        elif name in own or not name:
            arguments[name] = _none_if_empty(own.get(name), value)
        elif name in place:
            group, field = place[name]
            inner.setdefault(group, {})[name] = _none_if_empty(field, value)
        else:
            known = sorted(({*own} - {*parts}) | {*place})
            raise SettingsError(f"{owner}: {suggest('setting', name, known)}")
    for group, values in inner.items():
        before = arguments.get(group, _default(own[group]))
        arguments[group] = build_with(owner, cast(Any, parts[group]), {**_values(before), **values})
    return arguments


def _none_if_empty(field: Any, value: Any) -> Any:
    return None if value == "" and field is not None and field.default is None else value


def _default(field: Any) -> Any:
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _values(part: Any) -> dict[str, Any]:
    return {one.name: getattr(part, one.name) for one in fields(part) if one.init} if is_dataclass(part) else {}


class TrainOnly(Strategy):
    """A Flower strategy that asks nodes for nothing but training: the server evaluates."""

    def forget_nodes(self) -> None:
        """Nothing: nodes keep nothing that the server mirrors."""

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Nothing: the server evaluates."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> None:
        """Nothing: the server evaluates."""


class LearnsFromSets(TrainOnly, ABC):
    """Makes one synthetic set of what nodes answer, and trains a fresh global model on it.

    Attributes:
        gathered: what the answers of the last round made together.
    """

    def __init__(self, learner: Learner, collector: ReplyCollector) -> None:
        self.learner = learner
        self.collector = collector
        self.gathered: AggregatedSets | None = None

    @property
    def synthetic(self) -> SyntheticSet | None:
        """What the global model was trained on, once the round is over."""
        return None if self.gathered is None else self.gathered.synthetic

    @abstractmethod
    def collect(self, server_round: int, replies: Iterable[Message]) -> AggregatedSets:
        """The set that the answers make together; QuorumError if too few can be used."""

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple[ArrayRecord, MetricRecord]:
        """Train a fresh model on what the answers make together.

        Raises:
            QuorumError: too few answers could be used.
            DivergenceError: distillation or training diverged.
        """
        gathered = self.collect(server_round, replies)
        weights = self.learner.learn(gathered.synthetic, server_round, sample_weights=gathered.weights)
        return weights, gathered.metrics

    def state(self) -> State:
        """What was gathered."""
        return {"gathered": None if self.gathered is None else self.gathered.state()}

    def restore(self, state: State) -> None:
        """Go on from what :meth:`state` gave."""
        self.gathered = None if state["gathered"] is None else AggregatedSets.of_state(state["gathered"])
