"""What a node is asked, and what it has to answer with.

A node cannot know whether its answer arrived and was used. It keeps what belongs to the answer under the round's
number, and the next request says in which round an answer of this node was used last. What belongs to any other round
is forgotten: a round whose answer was not used has not happened, on either side.
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self, TypeVar

import torch
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict

from fedcl_distill.data import DataSpec, LabelledData
from fedcl_distill.engine import Distiller
from fedcl_distill.errors import CheckpointError, SettingsError
from fedcl_distill.networks import DEFAULT_NETWORK_LIMITS, Architecture, Network, NetworkLimits, architectures_in
from fedcl_distill.privacy import NoiseSource, PrivacyBudget, PrivacyTarget, publicly_scaled
from fedcl_distill.seeding import derive_seed
from fedcl_distill.statistics import (
    ClassStatistics,
    FixedPoint,
    NoisyFixedPoint,
    NoisyStatistics,
    Shares,
    StatisticsSpec,
    class_statistics,
    release,
    spend,
)
from fedcl_distill.statistics.fixed_point import Words
from fedcl_distill.statistics.noisy import errors_kept_back, release_origin
from fedcl_distill.statistics.sums import shapes_of
from fedcl_distill.synthetic.container import DEFAULT_LIMITS
from fedcl_distill.work_limits import DEFAULT_WORK_LIMITS, WorkLimits

T = TypeVar("T")
Flat = str | int | float | bool | bytes | list[int] | list[float] | list[str] | list[bool] | list[bytes]


def to_flat(settings: Any) -> dict[str, Any]:
    """The fields of the dataclass ``settings`` by key: text, numbers and lists of floats; mappings as JSON."""
    kinds = typing.get_type_hints(type(settings))
    return {
        _key(field.name): _pack(getattr(settings, field.name), kinds[field.name])
        for field in dataclasses.fields(settings)
    }


def from_flat(kind: type[T], flat: Mapping[str, Flat]) -> T:
    """The inverse of :func:`to_flat`: fields without a key keep their default, other keys are not looked at.

    Raises:
        SettingsError: a value has another type than its field, or a field without default has no key.
    """
    kinds = typing.get_type_hints(kind)
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]
    given = {field.name: flat[_key(field.name)] for field in fields if _key(field.name) in flat}
    missing = [_key(f.name) for f in fields if f.name not in given and _is_required(f)]
    if missing:
        raise SettingsError(f"settings without {', '.join(missing)}")
    return kind(**{name: _unpack(_key(name), value, kinds[name]) for name, value in given.items()})


def _key(name: str) -> str:
    return name.replace("_", "-")


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _pack(value: Any, kind: Any) -> Any:
    basic, optional = _basic(kind)
    if optional and value is None:
        return basic()
    if basic is dict:
        return json.dumps(dict(value), sort_keys=True)
    return list(value) if basic is list else value


def _unpack(key: str, value: Any, kind: Any) -> Any:
    basic, optional = _basic(kind)
    if basic is dict:
        return _unpack_mapping(key, value)
    if basic is list:
        if not isinstance(value, list | tuple) or not all(type(item) in (int, float) for item in value):
            raise SettingsError(f"{key} must be a list of numbers, got {value!r}")
        return tuple(_as_float(key, item) for item in value)
    if basic is float and type(value) is int:
        value = _as_float(key, value)
    if type(value) is not basic and not (optional and not value):
        raise SettingsError(f"{key} must be of type {basic.__name__}, got {value!r}")
    return None if optional and not value else value


def _as_float(key: str, value: int | float) -> float:
    try:
        return float(value)
    except OverflowError as error:
        raise SettingsError(f"{key} holds a number that is too large") from error


def _unpack_mapping(key: str, value: Any) -> dict[str, Any]:
    try:
        mapping = json.loads(value or "{}")
    except (TypeError, ValueError, RecursionError) as error:
        raise SettingsError(f"{key} must be a JSON object, got {str(value)[:200]!r}") from error
    if not isinstance(mapping, dict):
        raise SettingsError(f"{key} must be a JSON object, got {value!r}")
    return mapping


def _basic(kind: Any) -> tuple[type, bool]:
    """The one type behind an annotation (dict for any mapping, list for any tuple), and whether None is allowed."""
    if typing.get_origin(kind) is typing.Literal:
        return type(typing.get_args(kind)[0]), False
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        (inner,) = (part for part in typing.get_args(kind) if part is not type(None))
        return _basic(inner)[0], True
    origin = typing.get_origin(kind) or kind
    return {Mapping: dict, tuple: list}.get(origin, origin), False


R = TypeVar("R", bound="Request")

CONFIG = "config"
SPEC = "data"
"""Under which every message of a run carries what data look like there."""
_ROUND_KEY = "server-round"


def spec_record(spec: DataSpec) -> ConfigRecord:
    """``spec`` as messages carry it."""
    return ConfigRecord(spec.as_record())


def spec_in(content: RecordDict) -> DataSpec | None:
    """What data look like in the run that a request belongs to; None where it does not say.

    Raises:
        DataError: it is no specification.
    """
    record = content.get(SPEC)
    return DataSpec.from_record(dict(record)) if isinstance(record, ConfigRecord) else None


@dataclass(frozen=True, kw_only=True)
class Request:
    """What every request says.

    Attributes:
        seed: of the run; a node derives its own from this, the round and its partition.
    """

    seed: int

    def to_record(self, server_round: int) -> ConfigRecord:
        return ConfigRecord({**to_flat(self), _ROUND_KEY: server_round})

    @classmethod
    def of(cls, content: RecordDict, key: str = CONFIG) -> Self:
        """The request in a message from anyone.

        Raises:
            SettingsError: there is none, or a value is missing, of another type or out of range.
        """
        return from_flat(cls, config_of(content, key))

    def extended(self, kind: type[R], **more: Any) -> R:
        """The same asked for with ``more`` to it, as a request of another ``kind``."""
        return kind(**{one.name: getattr(self, one.name) for one in fields(self)}, **more)

    def seed_for(self, server_round: int, partition: int) -> int:
        """The seed of one node in one round, the same wherever and in whatever order nodes run."""
        return derive_seed(self.seed, "client", server_round, partition)


@dataclass(frozen=True, kw_only=True)
class StatisticsRequest(Request):
    """Sum features of your data class by class, and send the sums.

    Attributes:
        statistics: which features: fields of :class:`StatisticsSpec`, as JSON values.
        bits: a value is sent in: 8, 16 or 32.
    """

    statistics: Mapping[str, Any]
    bits: int = 8

    @property
    def specification(self) -> StatisticsSpec:
        return StatisticsSpec.of(self.statistics)

    def check_size(self, data: LabelledData) -> None:
        """Return if the sums have no more values than could be sent; SettingsError if they have."""
        shapes = shapes_of(self.specification, data.spec)
        values = data.num_classes * sum(views * dimensions for views, dimensions in shapes.values())
        if values > DEFAULT_LIMITS.max_values:
            raise SettingsError(f"statistics of {values:,} values, at most {DEFAULT_LIMITS.max_values:,} are sent")

    def measure(self, data: LabelledData, device: str = "cpu") -> ClassStatistics:
        """Do as asked; classes that the node does not hold have count 0."""
        return class_statistics(data, self.specification, device=device)


@dataclass(frozen=True, kw_only=True)
class SecureStatisticsRequest(StatisticsRequest):
    """Send the sums as masked words of ``bits`` bits, 16 or 32.

    Attributes:
        max_samples: the most of one class that a node may hold.
        bounds: the largest absolute mean of each kind of sums.
    """

    max_samples: int
    bounds: Mapping[str, float]

    def fixed_point(self, parties: int) -> FixedPoint:
        """How the sums of so many nodes become words; SettingsError if they do not fit."""
        return FixedPoint(self.bits, parties, self.max_samples, self.bounds)


@dataclass(frozen=True, kw_only=True)
class _NoisyRequest(StatisticsRequest):
    """What is asked where sums get noise.

    Attributes:
        epsilon, delta: of every record of yours.
        shares: how the release divides its precision: fields of :class:`Shares`.
    """

    epsilon: float
    delta: float
    shares: Mapping[str, Any]

    @property
    def target(self) -> PrivacyTarget:
        return PrivacyTarget(self.epsilon, self.delta)

    @property
    def precision(self) -> Shares:
        """``shares``; SettingsError where they are none."""
        return Shares.of(self.shares)

    def public(self, data: LabelledData) -> LabelledData:
        """``data`` on a scale that nobody measured, whatever messages say; SettingsError if there is none."""
        return publicly_scaled(data)


@dataclass(frozen=True, kw_only=True)
class PrivateStatisticsRequest(_NoisyRequest):
    """Sum features of your data class by class, and send the sums with noise of your own."""

    def release(
        self, data: LabelledData, budget: PrivacyBudget | None, *, device: str | torch.device = "cpu"
    ) -> NoisyStatistics:
        """Do as asked, if the node's budget covers it; PrivacyError if not."""
        spec, target, shares = self.specification, self.target, self.precision
        return release(self.public(data), spec, target, shares=shares, budget=budget, device=device)


@dataclass(frozen=True, kw_only=True)
class NoisyWordsRequest(_NoisyRequest):
    """Send the sums, with your share of the noise, as masked words of ``bits`` bits, 16 or 32.

    Attributes:
        max_samples: of one class at a node; what it has beyond is cut off.
    """

    max_samples: int

    def fixed_point(self, parties: int, fewest: int) -> NoisyFixedPoint:
        """How the sums of so many nodes become words, ``fewest`` of which have all the noise; SettingsError if not."""
        return NoisyFixedPoint(self.bits, parties, fewest, self.max_samples, self.target, self.precision)

    def words(
        self,
        data: LabelledData,
        budget: PrivacyBudget | None,
        parties: int,
        fewest: int,
        *,
        device: str | torch.device = "cpu",
    ) -> Words:
        """Do as asked, if the node's budget covers it; PrivacyError if not."""
        public, spec, source = self.public(data), self.specification, NoiseSource.fresh()
        fixed = self.fixed_point(parties, fewest)
        fixed.guarantee(spec, public.spec)  # what is impossible must not be paid for
        if budget is not None:
            origin = release_origin(public, spec, self.target, self.precision, device, fixed)
            spend(budget, public, self.target, source, origin)
        with errors_kept_back():
            return fixed.words(class_statistics(public, spec, device=device), source)


def config_of(content: RecordDict, key: str = CONFIG) -> ConfigRecord:
    """The configuration in a request.

    Raises:
        SettingsError: there is none.
    """
    config = content.get(key)
    if not isinstance(config, ConfigRecord):
        raise SettingsError(f"request has no configuration {key!r}")
    return config


def round_record(server_round: int) -> ConfigRecord:
    """A request that says nothing but the round in which it is made."""
    return ConfigRecord({_ROUND_KEY: server_round})


def round_of(content: RecordDict) -> int:
    """The round in which a request was made, from 1."""
    value = config_of(content).get(_ROUND_KEY)
    if not isinstance(value, int):
        raise SettingsError(f"request has no {_ROUND_KEY}")
    return value


@dataclass(frozen=True)
class NodeIdentity:
    """A node's signing key (Ed25519), and those of all nodes that it takes part with.

    Attributes:
        private: 32 bytes, the node's own; not shown.
        trusted: public keys, 32 bytes each, that were passed on without the server. None trusts the server to pass them
            on: against one that hands out keys of its own, nothing holds then.

    Raises:
        SettingsError: on construction, if a key has another length.

    Example:
        >>> mine = NodeIdentity.fresh()
        >>> mine.verifies(mine.public, mine.sign(b"text"), b"text")
        True
    """

    private: bytes = field(repr=False)
    trusted: frozenset[bytes] | None = None

    def __post_init__(self) -> None:
        if any(len(key) != 32 for key in (self.private, *(self.trusted or ()))):
            raise SettingsError("keys of node identities are Ed25519: 32 bytes each")

    @classmethod
    def fresh(cls, trusted: Collection[bytes] | None = None) -> NodeIdentity:
        """With a new key."""
        return cls(Ed25519PrivateKey.generate().private_bytes_raw(), None if trusted is None else frozenset(trusted))

    @property
    def public(self) -> bytes:
        return Ed25519PrivateKey.from_private_bytes(self.private).public_key().public_bytes_raw()

    def sign(self, text: bytes) -> bytes:
        """64 bytes."""
        return Ed25519PrivateKey.from_private_bytes(self.private).sign(text)

    @staticmethod
    def verifies(public: bytes, signature: bytes, text: bytes) -> bool:
        """Whether the owner of ``public`` signed ``text``; False for anything that is no key or no signature."""
        try:
            Ed25519PublicKey.from_public_bytes(public).verify(signature, text)
        except (InvalidSignature, ValueError):
            return False
        return True


_USED_KEY = "used-round"
_KEPT = "kept-in-round-"


def reminding(message: Message, used_round: int) -> Message:
    """``message`` as a message for its node alone: it names the round whose answer was used last, 0 for none."""
    config = ConfigRecord({**config_of(message.content), _USED_KEY: used_round})
    content = RecordDict({**message.content, CONFIG: config})
    return Message(content, message.metadata.dst_node_id, message.metadata.message_type)


def recall(state: RecordDict, request: RecordDict) -> ArrayRecord | None:
    """What was kept in the round that ``request`` names, and nothing else stays; None if no answer was used yet.

    Raises:
        CheckpointError: it was in a round that this node knows nothing of, as after a restart.
        SettingsError: the request names no round.
    """
    used = config_of(request).get(_USED_KEY)
    if type(used) is not int:
        raise SettingsError(f"request has no {_USED_KEY}")
    name = f"{_KEPT}{used}"
    for other in [key for key in state if key.startswith(_KEPT) and key != name]:
        del state[other]
    if used == 0:
        return None
    kept = state.get(name)
    if not isinstance(kept, ArrayRecord):
        raise CheckpointError(f"this node has lost what it kept in round {used}; it cannot go on with this run")
    return kept


def keep(state: RecordDict, server_round: int, arrays: ArrayRecord) -> None:
    """Keep ``arrays`` until the server says whether the answer of ``server_round`` was used."""
    state[f"{_KEPT}{server_round}"] = arrays


@dataclass(frozen=True)
class Task:
    """What a node is asked, and what it has to work with.

    Attributes:
        content: of the request.
        data: the node's own, in the terms of the run.
        partition: which part of all data these are.
        device: where to compute.
        state: what the node keeps over rounds.
        budget: what the data may release under differential privacy.
        network_limits: how large a network may be asked for.
        methods: distillers that this node has beside those that are registered.
        work_limits: what a request may ask for, and what the answer may take.
        willing: names of the methods that the node runs when it is asked; None for any.
        identity: what the node signs with, and whom it knows; None for a fresh key each round, and nobody.
    """

    content: RecordDict
    data: LabelledData
    partition: int
    device: str
    state: RecordDict
    budget: PrivacyBudget | None = None
    network_limits: NetworkLimits = DEFAULT_NETWORK_LIMITS
    methods: Mapping[str, Distiller] = field(default_factory=dict)
    identity: NodeIdentity | None = None
    work_limits: WorkLimits = DEFAULT_WORK_LIMITS
    willing: frozenset[str] | None = None

    def read(self, kind: type[R], key: str = CONFIG) -> R:
        """The request under ``key``.

        Raises:
            SettingsError: there is none, it cannot be read, or a number in it is larger than this node takes.
        """
        request = kind.of(self.content, key)
        self.work_limits.check_numbers(request)
        return request

    @property
    def value_range(self) -> tuple[float, float]:
        """What the run agreed on, which answers carry: how far a node's own values reach is nobody's business."""
        spec = spec_in(self.content)
        return self.data.value_range if spec is None else spec.value_range

    @property
    def server_round(self) -> int:
        return round_of(self.content)

    def seed(self, request: Request) -> int:
        """Of this node in this round."""
        return request.seed_for(self.server_round, self.partition)

    def network(self, request: Request, text: str) -> Network:
        """A fresh network of the architecture that ``text``, of ``request``, names."""
        architecture = Architecture.parse(text)
        self.admit(architecture)
        seed = self.seed(request)
        return architecture.build(self.data.sample_shape, self.data.num_classes, seed=seed, device=self.device)

    def check_willing(self, method: str) -> None:
        """Return if the node runs the method called ``method`` when it is asked; SettingsError if not."""
        if self.willing is not None and method not in self.willing:
            raise SettingsError(f"this node does not run {method!r}; it runs: {', '.join(sorted(self.willing))}")

    def admit(self, part: object) -> None:
        """Return if all networks that ``part``, an architecture or a method, names are small enough to be built here.

        Raises:
            SettingsError: one is not.
        """
        for architecture in architectures_in(part):
            self.network_limits.check(architecture, self.data.sample_shape, self.data.num_classes)

    def admit_sums(self, request: StatisticsRequest) -> None:
        """Return if the networks behind the sums, and the sums themselves, are small enough; SettingsError if not."""
        self.admit(request.specification.architecture_for(self.data.sample_shape))
        request.check_size(self.data)
