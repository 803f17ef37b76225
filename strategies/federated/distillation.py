"""How clients distil: settings on the server, a request on the wire, and what a node does with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Annotated, Any, Self, cast

from flwr.app import RecordDict

from fedcl_distill.data import LabelledData
from fedcl_distill.engine import Budget, ByteBudget, Distiller, Size, allocate_bits, finished, quantisation_aware
from fedcl_distill.errors import SettingsError
from fedcl_distill.methods import METHODS, build_method, known_settings, list_methods
from fedcl_distill.registry import parse
from fedcl_distill.settings import Count, Range, settings, suggest
from fedcl_distill.synthetic import SyntheticSet
from fedcl_distill.synthetic.quantise import Bits
from fedcl_distill.work_limits import check_no_places
from strategies.federated.answers import pack_set
from strategies.federated.requests import CONFIG, Request, Task

Methods = Mapping[str, Distiller]
"""Distillers by the names under which a node has them, beside those that are registered."""

_NONE: Methods = MappingProxyType({})


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

    def fitted_to(self, data: LabelledData, methods: Methods = _NONE) -> Self:
        """What this asks of a node with ``data``: how its budget is spent is said, where that was left to the node."""
        if not self.fit_to_budget:
            return self
        assert self.byte_budget is not None
        free = self.method not in methods and self._leaves_open("parameterization")
        spending = allocate_bits(self.byte_budget, data, tiles=free)
        how = {"parameterization": f"tiles:factor={spending.tiles}"} if spending.tiles > 1 else {}
        return replace(
            self,
            fit_to_budget=False,
            bits=spending.bits,
            quantisation_aware=True,
            method_settings={**self.method_settings, **how},
        )

    def _leaves_open(self, setting: str) -> bool:
        return setting in known_settings(self.method) and setting not in self.method_settings

    @property
    def size(self) -> Size:
        if self.byte_budget is not None:
            return ByteBudget(self.byte_budget, cast(Bits, self.bits))  # which checks them
        return self.images_per_class

    def distiller(self, methods: Methods = _NONE) -> Distiller:
        """The method that is asked for: of ``methods`` first, then of those that are registered.

        Raises:
            SettingsError: it or a setting is unknown.
        """
        found = find_method(self.method, self.method_settings, methods)
        return quantisation_aware(found, self.bits) if self.quantisation_aware else found

    def distil(
        self,
        data: LabelledData,
        *,
        seed: int,
        device: str = "cpu",
        size: Size | None = None,
        distiller: Distiller | None = None,
    ) -> SyntheticSet:
        """Do as asked, or to another ``size`` or by another ``distiller``; classes that are not there are left out."""
        return (distiller or self.distiller()).distil(
            data,
            self.size if size is None else size,
            seed=seed,
            budget=Budget.if_given(self.steps, self.seconds),
            device=device,
            absent_classes="skip",
        )


@settings
class Distillation:
    """How every client distils its data.

    Attributes:
        distiller: a method's name, with settings or without (``"dm"``, ``"dm:clamp=true"``, ``{"name": "dm", "clamp":
            True}``), which every node builds for itself; or an object. Objects do not travel: a node that is to use one
            has it under the same name, by ``make_client_app(load_data, methods={"mine": distiller})``, and it is asked
            for here by ``{"mine": distiller}``, or by itself where that is the name it has.
        images_per_class: synthetic samples for each class that a client holds.
        byte_budget: largest payload of a client in bytes, in place of ``images_per_class``; None for no such budget.
        steps, seconds: when distillation stops, whichever comes first; the method's own where both are None. Only
            steps are reproducible.
        bits: a synthetic value is sent in.
        quantisation_aware: distil with values rounded to ``bits``, so that what is sent is what was trained.
        fit_to_budget: clients spend their byte budget as suits it, on bits and resolution, in place of ``bits`` and of
            whole images: see :func:`~fedcl_distill.engine.allocate_bits`.

    Raises:
        SettingsError: on construction, if a value is out of range, or the method or one of its settings is unknown.
    """

    distiller: str | Mapping[str, Any] | Distiller = "dm"
    images_per_class: Count = 10
    byte_budget: Count | None = None
    steps: Count | None = None
    seconds: Annotated[float, Range(gt=0)] | None = None
    bits: Bits = 8
    quantisation_aware: bool = False
    fit_to_budget: bool = False

    def __post_init__(self) -> None:
        if self.fit_to_budget and self.byte_budget is None:
            raise SettingsError("fit_to_budget needs a byte_budget")
        _ = self.method

    @property
    def method(self) -> Distiller:
        """What clients distil by, without what ``quantisation_aware`` adds."""
        name, given, methods = self._named()
        return find_method(name, given, methods)

    @property
    def own_methods(self) -> Methods:
        """The object that was given, by the name that nodes know it by; empty where a name was given."""
        return self._named()[2]

    def request(self, seed: int) -> DistilRequest:
        """What clients are asked; ``seed`` is the run's."""
        name, given, _ = self._named()
        return DistilRequest(
            seed=seed,
            method=name,
            method_settings=given,
            images_per_class=self.images_per_class,
            byte_budget=self.byte_budget,
            steps=self.steps,
            seconds=self.seconds,
            bits=self.bits,
            quantisation_aware=self.quantisation_aware,
            fit_to_budget=self.fit_to_budget,
        )

    def _named(self) -> tuple[str, Mapping[str, Any], Methods]:
        """Name and settings as they travel, and the object that stays here."""
        given = self.distiller
        if isinstance(given, str):
            given = parse(given)
        if not isinstance(given, Mapping):
            return given.name, {}, {_own_name(given): given}
        if "name" in given:
            return str(given["name"]), {key: value for key, value in given.items() if key != "name"}, _NONE
        if len(given) != 1 or isinstance(next(iter(given.values())), str | int | float | Mapping):
            raise SettingsError(f"distiller must name a method: {{'name': …}} or {{'mine': distiller}}, got {given!r}")
        return str(next(iter(given))), {}, given


def find_method(name: str, given: Mapping[str, Any], methods: Methods = _NONE) -> Distiller:
    """The distiller called ``name``: of ``methods`` first, then of those that are registered.

    Raises:
        SettingsError: there is none, a setting is unknown, or settings are given for an object that has its own.
    """
    if name in methods:
        if given:
            raise SettingsError(f"method {name!r} is an object here, which takes no settings: {', '.join(given)}")
        return methods[name]
    if name not in METHODS:
        raise SettingsError(suggest("method", name, [*methods, *list_methods()]))
    return build_method(name, **given)


def _own_name(distiller: Distiller) -> str:
    """The name of an object; SettingsError where nodes would build something else by that name."""
    name = distiller.name
    if name in METHODS and build_method(name) != distiller:
        raise SettingsError(
            f"nodes build {name!r} with its defaults, this object has other settings: give it as text or mapping, or "
            f"under a name of its own ({{'mine': distiller}}) that nodes have too (make_client_app(…, methods=…))"
        )
    return name


def admitted(task: Task, request: DistilRequest) -> Distiller:
    """The distiller that ``request`` asks for.

    Raises:
        SettingsError: there is none, the node is not willing to run it, or its settings name places on the node or
            networks that are too large.
    """
    task.check_willing(request.method)
    distiller = request.distiller(task.methods)
    if request.method not in task.methods:  # what the node brings itself may write where the node says
        check_no_places(distiller)
    task.admit(distiller)
    return distiller


def distilled(task: Task, key: str = CONFIG) -> RecordDict:
    """A synthetic set of the node's data, as the request under ``key`` asks."""
    request = task.read(DistilRequest, key).fitted_to(task.data, task.methods)
    distiller = admitted(task, request)
    synthetic = request.distil(task.data, seed=task.seed(request), device=task.device, distiller=distiller)
    return pack_set(finished(synthetic).with_spec(value_range=task.value_range), request.bits)
