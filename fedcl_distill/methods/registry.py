"""Every method by name, with what a user must know to choose one; and how a preset is made of another."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ParamSpec, TypeVar

from fedcl_distill.engine import Distiller, Engine
from fedcl_distill.errors import SettingsError
from fedcl_distill.labels import label_names
from fedcl_distill.registry import Entry, Plain, Registry
from fedcl_distill.settings import checked, hints_of

P = ParamSpec("P")
T = TypeVar("T")
D = TypeVar("D", bound=Distiller)

METHODS: Registry[Distiller] = Registry("method", "fedcl_distill.methods", Distiller)

CORE_SET = "core set"
"""The family of methods that choose real samples."""
SECOND_DERIVATIVES = "double backward"
REAL_TRAINING = "training on the real data"
REAL_SAMPLES = "real samples in the result"


def register_method(
    name: str, *, family: str = "other", paper: str = "-", choose_when: str = "-", needs: tuple[str, ...] = ()
) -> Callable[[Callable[P, D]], Callable[P, D]]:
    """A decorator that registers a preset: a function of settings that returns a :class:`Distiller`.

    The preset then works by name wherever a method is named, and checks its arguments against its annotations.

    Args:
        name: in Python, on command lines, in files and messages.
        family, paper, choose_when, needs: see :class:`Method`.

    Raises:
        SettingsError: ``name`` is empty or holds one of : , = [ ] or a blank.

    Example:
        >>> from fedcl_distill.objectives import DistributionMatching
        >>> @register_method("my-dm", choose_when="you like large batches")
        ... def my_dm(*, real_batch_per_class: int = 1024) -> Engine:
        ...     return Engine(name="my-dm", objective=DistributionMatching(real_batch_per_class))
        >>> build_method("my-dm:real_batch_per_class=64").objective
        DistributionMatching(real_batch_per_class=64, logits_weight=0.0)
    """

    def keep(preset: Callable[P, D]) -> Callable[P, D]:
        kept = preset if isinstance(preset, type) else checked(preset)
        METHODS.register(name, family=family, paper=paper, choose_when=choose_when, needs=needs)(kept)
        return kept

    return keep


@dataclass(frozen=True)
class Method:
    """What is known of a registered method.

    Attributes:
        name: what command lines and results call it.
        preset: returns the method with its paper's defaults; keyword arguments override them.
        family: of the field: core set, distribution matching, …
        paper: where it comes from.
        choose_when: one sentence of advice.
        needs: what it costs beside a network's forward and backward passes: "double backward" (second derivatives),
            "training on the real data" (before or while distilling), memory that grows with something, real samples in
            the result.
    """

    name: str
    preset: Callable[..., Distiller]
    family: str = "other"
    paper: str = "-"
    choose_when: str = "-"
    needs: tuple[str, ...] = ()

    @classmethod
    def of(cls, entry: Entry[Distiller]) -> Method:
        """What is known of a registered entry."""
        return cls(entry.name, entry.build, **entry.facts)

    @classmethod
    def named(cls, name: str) -> Method:
        """The method called ``name``; SettingsError if there is none."""
        return cls.of(METHODS[name])

    @property
    def settings(self) -> dict[str, inspect.Parameter]:
        """The settings that it takes."""
        return METHODS.settings_of(self.name)

    @property
    def labels(self) -> list[str]:
        """Names of the labels that it takes as a setting; none where it has no such setting."""
        if "labels" not in self.settings:
            return []
        if any(one.default is one.empty for one in self.settings.values()):
            return label_names(learned=True)  # what it would refuse shows once it is built
        objective = getattr(self.preset(), "objective", None)
        return label_names(learned=getattr(objective, "reads_labels", False))


def list_methods() -> list[str]:
    """Names of all methods, sorted."""
    return METHODS.names()


def all_methods() -> list[Method]:
    """What is known of every method: family by family, core sets last."""
    methods = [Method.of(entry) for entry in METHODS]
    families = list(dict.fromkeys(method.family for method in methods))
    return sorted(methods, key=lambda one: (one.family == CORE_SET, families.index(one.family)))


def known_settings(name: str) -> list[str]:
    """Names of the settings that the method called ``name`` takes.

    Raises:
        SettingsError: there is no such method.
    """
    return list(METHODS.settings_of(name))


def build_method(method: Distiller | Plain, /, **settings: Any) -> Distiller:
    """The method that ``method`` is or names, with ``settings`` in place of its defaults.

    Args:
        method: a name (``"dm"``), a text with settings (``"dm:steps_per_network=5"``), a mapping
            (``{"name": "dm", "steps_per_network": 5}``), or an object, which is returned.
        settings: of the preset, see ``fedcl-distill methods NAME``.

    Raises:
        SettingsError: the method or a setting is unknown, a value is out of range, or settings do not fit together.

    Example:
        >>> build_method("dm", real_batch_per_class=0)
        Traceback (most recent call last):
        fedcl_distill.errors.SettingsError: dm: real_batch_per_class must be a whole number at least 1, got 0
    """
    return METHODS.build(method, **settings)


def takes_optimiser(*shortcuts: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Say that a preset's setting ``optimiser`` stands in place of its settings ``shortcuts``.

    Raises:
        SettingsError: on a call of the preset that gives both.
    """

    def decorate(preset: Callable[P, T]) -> Callable[P, T]:
        @functools.wraps(preset)
        def build(*args: P.args, **given: P.kwargs) -> T:
            both = [name for name in shortcuts if name in given]
            if both and given.get("optimiser") is not None:
                raise SettingsError(f"{preset.__name__}: give optimiser or {' and '.join(both)}, not both")
            return preset(*args, **given)

        return build

    return decorate


def variant_of(
    preset: Callable[P, Engine], **defaults: Any
) -> Callable[[Callable[[Engine], Engine]], Callable[P, Engine]]:
    """Make a preset with the settings of ``preset``, other ``defaults``, and an engine that the function changes.

    What it says is exactly how two papers differ. Register it like any other preset.

    Raises:
        TypeError: ``preset`` has no setting of such a name.

    Example:
        >>> from fedcl_distill.methods import dm
        >>> @variant_of(dm, logits_weight=1.0)
        ... def feddm(engine: Engine) -> Engine:
        ...     return with_objective(engine, "feddm")
        >>> feddm().objective.logits_weight
        1.0
    """
    signature = inspect.signature(preset)
    signature.bind_partial(**defaults)
    parameters = [one.replace(default=defaults.get(name, one.default)) for name, one in signature.parameters.items()]

    def decorate(change: Callable[[Engine], Engine]) -> Callable[P, Engine]:
        @functools.wraps(change)
        def build(*args: P.args, **settings: P.kwargs) -> Engine:
            return change(preset(*args, **{**defaults, **settings}))

        build.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        build.__annotations__ = dict(hints_of(preset))
        _, args, explained = (inspect.getdoc(preset) or "").partition("Args:")
        build.__doc__ = f"{inspect.getdoc(change)}\n\n{args}{explained}"
        return build

    return decorate


def with_objective(engine: Engine, name: str, **changes: Any) -> Engine:
    """``engine`` under another name, and with other settings of its objective."""
    return replace(engine, name=name, objective=replace(engine.objective, **changes))  # type: ignore[type-var]
