"""Truth: the annotations: what lies just outside of a range is refused by name, what lies at its ends is taken.

Classes are found by walking the package, so that whatever is declared with ``@settings`` tomorrow is tested too.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import math
import pkgutil
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass, replace
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
import torch

import fedcl_distill
import simulations
import strategies
from builders import blobs
from fedcl_distill.engine import Budget
from fedcl_distill.errors import SettingsError
from fedcl_distill.methods import METHODS, build_method
from fedcl_distill.methods.distribution import dm
from fedcl_distill.network_sources import FreshRandom
from fedcl_distill.networks import Architecture
from fedcl_distill.objectives import DistributionMatching
from fedcl_distill.parameterizations import Pixels
from fedcl_distill.privacy import NoiseSource
from fedcl_distill.registry import parameters_of
from fedcl_distill.selection import Inputs, Random
from fedcl_distill.settings import Range, allowed, allows, hints_of
from fedcl_distill.statistics import StatisticsSpec, class_statistics
from fedcl_distill.statistics.codec import StatisticsExpectation

PARTS: dict[str, Callable[[], Any]] = {
    "Objective": DistributionMatching,
    "NetworkSource": FreshRandom,
    "Parameterization": Pixels,
    "Criterion": Random,
    "Embedding": Inputs,
    "Distiller": dm,
    "LabelledData": blobs,
    "DataSpec": lambda: blobs().spec,
    "StatisticsExpectation": lambda: StatisticsExpectation(StatisticsSpec(views=2), blobs().spec),
    "Tensor": lambda: torch.zeros(1),
    "Module": lambda: NETWORK,
    "NoiseSource": lambda: NoiseSource.seeded(0),
    "ClassStatistics": lambda: class_statistics(blobs(), StatisticsSpec(views=2)),
}
"""What stands where a class asks for a part; everything else is made of the annotations."""

NETWORK = Architecture("mlp", {"width": 4}).build((1, 8, 8), 3, seed=0)
GIVEN: dict[str, dict[str, Any]] = {
    "Budget": {"steps": 1},
    "SumMemory": {"byte_budget": 10**6},
    "InSequence": {"parts": ("none",)},
    "GivenTrajectory": {"snapshots": (NETWORK, NETWORK)},
}
"""Fields of classes that cannot be made of their annotations alone."""


def qualified(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def classes() -> list[type]:
    modules = [
        importlib.import_module(module.name)
        for package in (fedcl_distill, strategies, simulations)
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        if not module.name.endswith("__main__")
    ]
    found = {one for module in modules for one in vars(module).values() if isinstance(one, type) and is_dataclass(one)}
    return sorted(found, key=qualified)


def checks_itself(kind: type) -> bool:
    check = getattr(kind, "__post_init__", None)
    return check is not None and check.__code__.co_filename.endswith("fedcl_distill/settings.py")


SETTINGS = [one for one in classes() if checks_itself(one) and not inspect.isabstract(one)]


def test_no_configuration_is_left_out() -> None:
    """What is not declared with ``@settings`` holds results or tensors: it has no field that a user sets."""
    assert len(SETTINGS) > 110


class Unknown(Exception):
    """No example can be made."""


def example(hint: Any) -> Any:
    """A value that the annotation ``hint`` allows."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        if args[0] not in (int, float):
            return example(args[0])
        bounds = next((one for one in args[1:] if isinstance(one, Range)), Range())
        return min(ends(args[0], bounds), default=1, key=abs)
    if origin in (Union, types.UnionType):
        return None if type(None) in args else example(args[0])
    if origin is Literal:
        return args[0]
    if hint in (bool, int, float, str):
        return {bool: False, int: 1, float: 1.0, str: "a"}[hint]
    if origin is tuple:
        return tuple(example(one) for one in args if one is not Ellipsis)
    if origin in (Mapping, dict, list, Sequence) or hint in (dict, list):
        return {} if origin in (Mapping, dict) else (example(args[0]),)
    if hint is Any or origin is get_origin(Callable[..., Any]):
        return lambda *given, **named: None
    kind = origin or hint
    if kind.__name__ in PARTS:
        return PARTS[kind.__name__]()
    if isinstance(kind, type) and checks_itself(kind):
        return base(kind)
    if is_dataclass(kind) and all(has_default(one) for one in fields(kind)):
        return kind()
    raise Unknown(f"no example of {hint}")


@functools.cache
def base(kind: type) -> Any:
    """An object of a settings class."""
    given = dict(GIVEN.get(kind.__name__, {}))
    for one in fields(kind):
        if one.init and one.name not in given and not has_default(one):
            given[one.name] = example(hints_of(kind)[one.name])
    return kind(**given)


def has_default(one: Any) -> bool:
    return one.default is not MISSING or one.default_factory is not MISSING


def number_of(hint: Any) -> tuple[type, Range | None, bool] | None:
    """Kind, range and whether None is allowed, of an annotation for one number; None for any other."""
    origin, args = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        rest = [one for one in args if one is not type(None)]
        inner = number_of(rest[0]) if len(rest) == 1 else None
        return inner and (inner[0], inner[1], True)
    if origin is Annotated:
        bounds = next((one for one in args[1:] if isinstance(one, Range)), None)
        return (args[0], bounds, False) if args[0] in (int, float) else None
    return (hint, None, False) if hint in (int, float) else None


def ends(kind: type, bounds: Range) -> list[Any]:
    """The smallest and the largest allowed number, where there are such."""
    if kind is int:
        low = bounds.ge if bounds.ge is not None else None if bounds.gt is None else bounds.gt + 1
        high = bounds.le if bounds.le is not None else None if bounds.lt is None else bounds.lt - 1
        return [int(one) for one in (low, high) if one is not None]
    low = bounds.ge if bounds.ge is not None else None if bounds.gt is None else math.nextafter(bounds.gt, math.inf)
    high = bounds.le if bounds.le is not None else None if bounds.lt is None else math.nextafter(bounds.lt, -math.inf)
    return [float(one) for one in (low, high) if one is not None]


def outside(kind: type, bounds: Range | None, nullable: bool) -> Iterator[Any]:
    """What is no such number: just outside of the range, no number at all, or another kind of one."""
    yield from (True, "1", [1])
    if not nullable:
        yield None
    if kind is int:
        yield from (1.5, math.nan)
    if bounds is not None:
        yield from (math.nan, math.inf, -math.inf)
        if bounds.ge is not None:
            yield int(bounds.ge) - 1 if kind is int else math.nextafter(bounds.ge, -math.inf)
        if bounds.gt is not None:
            yield kind(bounds.gt)
        if bounds.le is not None:
            yield int(bounds.le) + 1 if kind is int else math.nextafter(bounds.le, math.inf)
        if bounds.lt is not None:
            yield kind(bounds.lt)


def refusal(build: Callable[[], Any]) -> str | None:
    """The message of the SettingsError that ``build`` raises, if it does."""
    try:
        build()
    except SettingsError as error:
        return str(error)
    return None


def numbers(hints: Mapping[str, Any]) -> Iterator[tuple[str, type, Range | None, bool]]:
    for name, hint in hints.items():
        found = number_of(hint)
        if found is not None:
            yield name, *found


@pytest.mark.parametrize("kind", SETTINGS, ids=qualified)
def test_every_field_refuses_by_name_what_is_not_allowed(kind: type) -> None:
    one = base(kind)
    own = {field.name for field in fields(kind) if field.init}
    hints = {name: hint for name, hint in hints_of(kind).items() if name in own}
    for name, number, bounds, nullable in numbers(hints):
        assert bounds is not None or number is int, f"{kind.__name__}.{name} is a number without a range"
        for wrong in outside(number, bounds, nullable):
            with pytest.raises(SettingsError, match=rf"\b{name}\b"):
                replace(one, **{name: wrong})
        for end in ends(number, bounds) if bounds is not None else []:
            why = refusal(lambda name=name, end=end: replace(one, **{name: end}))
            assert why is None or name.rpartition("_")[2] in why, why  # it may not fit to another field
    for name, hint in hints.items():
        wrong = object()
        if not allows(hint, wrong):
            with pytest.raises(SettingsError, match=rf"\b{name}\b"):
                replace(one, **{name: wrong})


@pytest.mark.parametrize("name", METHODS.names())
def test_every_setting_of_every_method_refuses_by_name_what_is_not_allowed(name: str) -> None:
    build = METHODS[name].build
    hints = hints_of(build)
    known = {setting: hints[setting] for setting in parameters_of(build)}
    assert all(hints.values())
    for setting, number, bounds, nullable in numbers(known):
        assert bounds is not None or number is int, f"{name}: {setting} is a number without a range"
        for wrong in outside(number, bounds, nullable):
            with pytest.raises(SettingsError, match=rf"\b{setting}\b"):
                build_method(name, **{setting: wrong})
        for end in ends(number, bounds) if bounds is not None else []:
            why = refusal(lambda setting=setting, end=end: build_method(name, **{setting: end}))
            assert f"{setting} must be {allowed(hints[setting])}" not in (why or "")  # may not fit to another setting
    for setting, hint in known.items():
        for wrong in (3.5, object(), "no such thing"):
            if not allows(hint, wrong) or (wrong == "no such thing" and setting != "name" and "Registry" in str(hint)):
                with pytest.raises(SettingsError, match=rf"\b{setting}\b"):
                    build_method(name, **{setting: wrong})


def test_a_budget_needs_something_to_count() -> None:
    with pytest.raises(SettingsError, match="steps or seconds"):
        Budget()
