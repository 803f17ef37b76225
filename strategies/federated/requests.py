"""What the server asks of a node."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self, TypeVar

import torch
from flwr.app import ConfigRecord, RecordDict

from fedcl_distill.augmentation import NoAugmentation, augmentation_for
from fedcl_distill.data import LabelledData, Normalisation
from fedcl_distill.engine import Budget, ByteBudget, Distiller, Engine, Size, allocate_bits, quantisation_aware
from fedcl_distill.errors import SettingsError
from fedcl_distill.methods import build_method, known_settings
from fedcl_distill.network_sources import AroundNetwork
from fedcl_distill.networks import Network
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
from fedcl_distill.synthetic import SyntheticSet
from fedcl_distill.synthetic.container import DEFAULT_LIMITS
from fedcl_distill.training import TrainConfig

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
    if isinstance(kind, types.UnionType):
        (inner,) = (part for part in typing.get_args(kind) if part is not type(None))
        return _basic(inner)[0], True
    origin = typing.get_origin(kind) or kind
    return {Mapping: dict, tuple: list}.get(origin, origin), False


R = TypeVar("R", bound="Request")

CONFIG = "config"
DISTIL_CONFIG = "distil-config"
"""Where a request to distil stands beside a request to train."""

DISTIL, SCAFFOLD, COMPRESSED, ENSEMBLE = "train.distil", "train.scaffold", "train.compressed", "train.ensemble"
STATISTICS, SURROGATE, PRIVATE_STATISTICS = "train.statistics", "train.surrogate", "train.private"
"""Message types of requests; a plain request to train has Flower's own "train"."""

_ROUND_KEY = "server-round"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What every request says.

    Attributes:
        seed: of the run; a node derives its own from this, the round and its partition.
        mean, std: the normalisation that all nodes and the server share, in unit values.
    """

    seed: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def to_record(self, server_round: int) -> ConfigRecord:
        return ConfigRecord({**to_flat(self), _ROUND_KEY: server_round})

    def extended(self, kind: type[R], **more: Any) -> R:
        """The same asked for with ``more`` to it, as a request of another ``kind``."""
        return kind(**{one.name: getattr(self, one.name) for one in fields(self)}, **more)

    def with_normalisation(self, data: LabelledData) -> LabelledData:
        """``data``, normalised as the server asks: a node that measured its own would speak another language."""
        return data.with_spec(normalisation=Normalisation(self.mean, self.std))

    def seed_for(self, server_round: int, partition: int) -> int:
        """The seed of one node in one round, the same wherever and in whatever order nodes run."""
        return derive_seed(self.seed, "client", server_round, partition)


@dataclass(frozen=True, kw_only=True)
class DistilRequest(Request):
    """Distil your data and send the result.

    Attributes:
        method: name of a method.
        method_settings: in place of its defaults, as JSON values.
        images_per_class: samples for each class the node holds; never more than it has real ones.
        byte_budget: largest payload in bytes, in place of ``images_per_class``; None for no such budget.
        steps, seconds: when to stop, whichever comes first; the method's own budget where both are None.
        bits: a stored value is sent in: 2, 4, 8, 16 or 32.
        quantisation_aware: distil with values rounded to ``bits``.
        fit_to_budget: spend the byte budget as suits it (:func:`~fedcl_distill.engine.allocate_bits`), in place of
            ``bits`` and, where ``method_settings`` name no parameterization, of pixels.

    Raises:
        SettingsError: on construction, if there is no byte budget to fit to.
    """

    method: str = "dm"
    method_settings: Mapping[str, Any] = field(default_factory=dict)
    images_per_class: int = 10
    byte_budget: int | None = None
    steps: int | None = None
    seconds: float | None = None
    bits: int = 8
    quantisation_aware: bool = False
    fit_to_budget: bool = False

    def __post_init__(self) -> None:
        if self.fit_to_budget and self.byte_budget is None:
            raise SettingsError("fit_to_budget needs a byte_budget")

    def fitted_to(self, data: LabelledData) -> Self:
        """What this asks of a node with ``data``: how its budget is spent is said, where that was left to the node."""
        if not self.fit_to_budget:
            return self
        assert self.byte_budget is not None
        free = "parameterization" in known_settings(self.method) and "parameterization" not in self.method_settings
        spending = allocate_bits(self.byte_budget, data, tiles=free)
        how = {"parameterization": f"tiles:factor={spending.tiles}"} if spending.tiles > 1 else {}
        return replace(
            self,
            fit_to_budget=False,
            bits=spending.bits,
            quantisation_aware=True,
            method_settings={**self.method_settings, **how},
        )

    @property
    def size(self) -> Size:
        if self.byte_budget is not None:
            return ByteBudget(self.byte_budget, self.bits)
        return self.images_per_class

    def distil(self, data: LabelledData, *, seed: int, device: str = "cpu", size: Size | None = None) -> SyntheticSet:
        """Do as asked, or to another ``size``; classes that the node does not hold are left out."""
        return self._distilled(self.distiller, data, seed, device, size)

    @property
    def distiller(self) -> Distiller:
        """The method that is asked for; SettingsError if it or a setting is unknown."""
        distiller = build_method(self.method, **self.method_settings)
        return quantisation_aware(distiller, self.bits) if self.quantisation_aware else distiller

    def _distilled(
        self, distiller: Distiller, data: LabelledData, seed: int, device: str, size: Size | None = None
    ) -> SyntheticSet:
        return distiller.distil(
            self.with_normalisation(data),
            self.size if size is None else size,
            seed=seed,
            budget=Budget.if_given(self.steps, self.seconds),
            device=device,
            absent_classes="skip",
        )


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
        return class_statistics(self.with_normalisation(data), self.specification, device=device)


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
        """``data`` on the scale of the run, which nobody measured."""
        return publicly_scaled(data, Normalisation(self.mean, self.std))


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
        fixed.guarantee(spec, public.spec)  # what cannot be shall not be paid for
        if budget is not None:
            origin = release_origin(public, spec, self.target, self.precision, device, fixed)
            spend(budget, public, self.target, source, origin)
        with errors_kept_back():
            return fixed.words(class_statistics(public, spec, device=device), source)


@dataclass(frozen=True, kw_only=True)
class SurrogateRequest(DistilRequest):
    """Distil your data as networks around the one you receive see them (Xiong et al. 2023, FedDM).

    Attributes:
        architecture: of the network, as text for ``Architecture.parse``.
        radius: how far around it; see :class:`~fedcl_distill.network_sources.AroundNetwork`.
        weight_bits: in which its weights are sent: 8, 16 or 32.
    """

    architecture: str
    radius: float = 5.0
    weight_bits: int = 32

    def around(self, network: Network) -> Engine:
        """The method, on networks around ``network``.

        Raises:
            SettingsError: the method looks through no networks, or needs ones trained on the real data.
        """
        engine = self.distiller
        if not isinstance(engine, Engine):
            raise SettingsError(f"method {self.method!r} looks through no networks, which feddm needs")
        return replace(engine, networks=AroundNetwork(network, self.radius))

    def distil_around(self, network: Network, data: LabelledData, *, seed: int, device: str = "cpu") -> SyntheticSet:
        """Do as asked; classes that the node does not hold are left out."""
        return self._distilled(self.around(network), data, seed, device)


@dataclass(frozen=True, kw_only=True)
class TrainRequest(Request):
    """Train the model you receive on your data by plain SGD, and send it back.

    Attributes:
        architecture: of the model, as text for ``Architecture.parse``.
        epochs, learning_rate, momentum, weight_decay, batch_size: of SGD; the rate is constant.
        augment: whether to augment as suits the data (DSA for images).
        proximal_mu: of FedProx, under the name that Flower's strategy sends it by; 0 for no proximal term.
    """

    architecture: str
    epochs: int = 1
    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 32
    augment: bool = False
    proximal_mu: float = 0.0

    def train_config_for(self, data: LabelledData) -> TrainConfig:
        return TrainConfig(
            epochs=self.epochs,
            learning_rate=self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            batch_size=self.batch_size,
            schedule="constant",
            augmentation=augmentation_for(data) if self.augment else NoAugmentation(),
        )


@dataclass(frozen=True, kw_only=True)
class CompressedRequest(TrainRequest):
    """Train the model you receive, and send what changed.

    Attributes:
        download, upload: codecs of the model and of the update, as text for ``read_codec``.
    """

    download: str = "plain"
    upload: str = "plain"


def config_of(content: RecordDict, key: str = CONFIG) -> ConfigRecord:
    """The configuration in a request.

    Raises:
        SettingsError: there is none.
    """
    config = content.get(key)
    if not isinstance(config, ConfigRecord):
        raise SettingsError(f"request has no configuration {key!r}")
    return config


def read_distil(content: RecordDict, key: str = CONFIG) -> DistilRequest:
    """The request to distil in a message; SettingsError where a value is missing or of another type."""
    return from_flat(DistilRequest, config_of(content, key))


def read_statistics(content: RecordDict) -> StatisticsRequest:
    """The request in a ``train.statistics`` message; SettingsError where a value is missing or of another type."""
    return from_flat(StatisticsRequest, config_of(content))


def read_secure_statistics(content: RecordDict) -> SecureStatisticsRequest:
    """The request in a ``train.masked`` message; SettingsError where a value is missing or of another type."""
    return from_flat(SecureStatisticsRequest, config_of(content))


def read_noisy_words(content: RecordDict) -> NoisyWordsRequest:
    """The request in a ``train.noised`` message; SettingsError where a value is missing or of another type."""
    return from_flat(NoisyWordsRequest, config_of(content))


def read_private_statistics(content: RecordDict) -> PrivateStatisticsRequest:
    """The request in a ``train.private`` message; SettingsError where a value is missing or of another type."""
    return from_flat(PrivateStatisticsRequest, config_of(content))


def read_surrogate(content: RecordDict) -> SurrogateRequest:
    """The request in a ``train.surrogate`` message; SettingsError where a value is missing or of another type."""
    return from_flat(SurrogateRequest, config_of(content))


def read_train(content: RecordDict) -> TrainRequest:
    """The request in a ``train`` message; SettingsError where a value is missing or of another type."""
    return from_flat(TrainRequest, config_of(content))


def read_compressed(content: RecordDict) -> CompressedRequest:
    """The request in a ``train.compressed`` message; SettingsError where a value is missing or of another type."""
    return from_flat(CompressedRequest, config_of(content))


def round_record(server_round: int) -> ConfigRecord:
    """A request that says nothing but the round in which it is made."""
    return ConfigRecord({_ROUND_KEY: server_round})


def round_of(content: RecordDict) -> int:
    """The round in which a request was made, from 1."""
    value = config_of(content).get(_ROUND_KEY)
    if not isinstance(value, int):
        raise SettingsError(f"request has no {_ROUND_KEY}")
    return value
