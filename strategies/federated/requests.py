"""What the server asks of a node."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self, TypeVar

import torch
from flwr.app import ConfigRecord, RecordDict

from fedcl_distill.data import LabelledData, Normalisation
from fedcl_distill.errors import SettingsError
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

CONFIG, BACKBONE = "config", "backbone"
_ROUND_KEY = "server-round"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What every request says.

    Attributes:
        seed: of the run; a node derives its own from this, the round and its partition.
        mean, std: the normalisation that all nodes and the server share, in unit values.
        backbone: fingerprint of the frozen network that made the features of all; "" where there is none.
    """

    seed: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    backbone: str = ""

    def to_record(self, server_round: int) -> ConfigRecord:
        flat = to_flat(self)
        if not self.backbone:  # as requests were before there were any
            del flat[BACKBONE]
        return ConfigRecord({**flat, _ROUND_KEY: server_round})

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

    def with_normalisation(self, data: LabelledData) -> LabelledData:
        """``data``, normalised as the server asks: a node that measured its own would speak another language."""
        return data.with_spec(normalisation=Normalisation(self.mean, self.std))

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


def config_of(content: RecordDict, key: str = CONFIG) -> ConfigRecord:
    """The configuration in a request.

    Raises:
        SettingsError: there is none.
    """
    config = content.get(key)
    if not isinstance(config, ConfigRecord):
        raise SettingsError(f"request has no configuration {key!r}")
    return config


def check_backbone(content: RecordDict, data: LabelledData) -> None:
    """Return if ``data`` are features of the network that a request names; of a request that names none, always.

    Raises:
        SettingsError: another network made them.
    """
    config = content.get(CONFIG)
    asked = config.get(BACKBONE, "") if isinstance(config, ConfigRecord) else ""
    if asked and asked != data.spec.backbone:
        found = data.spec.backbone or "none that is named"
        raise SettingsError(f"backbone: the server asks for features of {asked!r}, this node's are of {found}")


def round_record(server_round: int) -> ConfigRecord:
    """A request that says nothing but the round in which it is made."""
    return ConfigRecord({_ROUND_KEY: server_round})


def round_of(content: RecordDict) -> int:
    """The round in which a request was made, from 1."""
    value = config_of(content).get(_ROUND_KEY)
    if not isinstance(value, int):
        raise SettingsError(f"request has no {_ROUND_KEY}")
    return value
