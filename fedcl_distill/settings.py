"""Settings that are checked where they enter: types, ranges and names are declared once, on the field."""

from __future__ import annotations

import functools
import inspect
import math
import types
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from numbers import Integral, Real
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    ParamSpec,
    TypeVar,
    Union,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
    overload,
)

from fedcl_distill.errors import SettingsError

T = TypeVar("T")
P = ParamSpec("P")

_MAX_SHOWN = 60  # characters of a value in a message
_MAX_ELEMENTS = 1000  # of a container that are looked at


@dataclass(frozen=True)
class Range:
    """Bounds of a number, for ``Annotated``: at least ``ge``, more than ``gt``, at most ``le``, less than ``lt``.

    Infinity and NaN are outside of every range.
    """

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None

    def __contains__(self, value: float) -> bool:
        return (
            _is_finite(value)
            and (self.ge is None or value >= self.ge)
            and (self.gt is None or value > self.gt)
            and (self.le is None or value <= self.le)
            and (self.lt is None or value < self.lt)
        )

    def __str__(self) -> str:
        bounds = (("at least", self.ge), ("more than", self.gt), ("at most", self.le), ("less than", self.lt))
        return " and ".join(f"{words} {bound:g}" for words, bound in bounds if bound is not None) or "finite"


@dataclass(frozen=True)
class Known:
    """Names that a register knows, for ``Annotated[str, Known("method", list_methods)]``.

    What stands behind a colon are settings, which whoever builds the part checks.
    """

    kind: str
    names: Callable[[], Collection[str]]

    def __contains__(self, text: str) -> bool:
        return text.partition(":")[0].strip() in self.names()


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False


Count = Annotated[int, Range(ge=1)]
"""A whole number of things, at least one."""
Natural = Annotated[int, Range(ge=0)]
"""A whole number, 0 included."""
Finite = Annotated[float, Range()]
Positive = Annotated[float, Range(gt=0)]
NonNegative = Annotated[float, Range(ge=0)]
Fraction = Annotated[float, Range(ge=0, le=1)]
"""A share in [0, 1]."""
OpenFraction = Annotated[float, Range(gt=0, lt=1)]
"""A share in (0, 1)."""
Momentum = Annotated[float, Range(ge=0, lt=1)]
"""A decay in [0, 1)."""


@overload
def settings(cls: type[T]) -> type[T]: ...
@overload
def settings(*, eq: bool = True, frozen: bool = True, kw_only: bool = False) -> Callable[[type[T]], type[T]]: ...
@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def settings(
    cls: type[T] | None = None, *, eq: bool = True, frozen: bool = True, kw_only: bool = False
) -> type[T] | Callable[[type[T]], type[T]]:
    """A frozen dataclass that checks every field against its annotation before its own ``__post_init__``.

    Numbers may carry a :class:`Range` (``Annotated[int, Range(ge=1)]``, or :data:`Count` for short), choices are
    ``Literal``, parts are classes or runtime-checkable protocols. Nothing is converted. With ``eq=False`` objects are
    equal to themselves alone, for fields that hold tensors. With ``frozen=False`` fields may change later, unchecked:
    for objects whose state goes on, such as memories.

    Raises:
        SettingsError: on construction; it names the field, the value and what is allowed.

    Example:
        >>> @settings
        ... class Pool:
        ...     networks: Count = 10
        >>> Pool(networks=0)
        Traceback (most recent call last):
        fedcl_distill.errors.SettingsError: Pool: networks must be a whole number at least 1, got 0
    """
    if cls is None:
        return functools.partial(settings, eq=eq, frozen=frozen, kw_only=kw_only)

    own_check = cls.__dict__.get("__post_init__")

    def check(self: Any) -> None:
        hints: dict[str, Any] = hints_of(cls)  # type: ignore[arg-type]
        check_values(type(self).__name__, hints, {name: getattr(self, name) for name in hints})
        if own_check is not None:
            own_check(self)
        else:
            inherited = getattr(super(cls, self), "__post_init__", None)
            if inherited is not None:
                inherited()

    cls.__post_init__ = check  # type: ignore[attr-defined]
    return dataclass(frozen=frozen, eq=eq, kw_only=kw_only)(cls)


def checked(function: Callable[P, T]) -> Callable[P, T]:
    """``function``, which checks its arguments against its annotations as :func:`settings` does.

    Raises:
        SettingsError: on a call; it names the argument, the value and what is allowed.
    """
    signature = inspect.signature(function)
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        hints = hints_of(function)
        named = {name for name in hints if signature.parameters[name].kind not in variable}
        given = signature.bind(*args, **kwargs).arguments
        check_values(function.__name__, {name: hints[name] for name in given if name in named}, given)
        return function(*args, **kwargs)

    return call


@functools.cache
def hints_of(owner: Any) -> dict[str, Any]:
    """The resolved annotations of a class's fields or a function's parameters, ``Annotated`` included."""
    hints = get_type_hints(owner, include_extras=True)
    if isinstance(owner, type):
        return {name: hint for name, hint in hints.items() if get_origin(hint) is not _CLASS_VAR}
    hints.pop("return", None)
    return hints


def check_values(owner: str, hints: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Return if every one of ``values`` is what its annotation in ``hints`` allows.

    Raises:
        SettingsError: one is not; the message begins with ``owner`` and names field, value and what is allowed.
    """
    for name, hint in hints.items():
        if not allows(hint, values[name]):
            raise SettingsError(f"{owner}: {refusal(name, hint, values[name])}")


def refusal(name: str, hint: Any, value: Any) -> str:
    """Why ``value`` is not what the annotation ``hint`` of ``name`` allows; the nearest name where one is meant."""
    for mark in marks(hint):
        if isinstance(mark, Known) and isinstance(value, str):
            return suggest(mark.kind, value.partition(":")[0], mark.names())
    return f"{name} must be {allowed(hint)}, got {_shown(value)}"


def marks(hint: Any) -> list[Any]:
    """The :class:`Range` and :class:`Known` that the annotation ``hint`` carries, for itself or an alternative."""
    own = [one for one in get_args(hint)[1:] if isinstance(one, Range | Known)] if get_origin(hint) is Annotated else []
    below = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else ()
    return [*own, *(mark for one in below for mark in marks(one))]


def check_integer(what: str, value: Any, low: int, high: int) -> None:
    """Return if ``value`` is an integer (True is none) from ``low`` to ``high``.

    Raises:
        SettingsError: it is not.
    """
    if type(value) is not int or not low <= value <= high:
        raise SettingsError(f"{what} must be an integer from {low} to {high}, got {value!r}")


def allows(hint: Any, value: Any) -> bool:
    """Whether ``value`` is what the annotation ``hint`` describes; what cannot be told counts as allowed."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        bounds = [one for one in args[1:] if isinstance(one, Range | Known)]
        return allows(args[0], value) and all(value in one for one in bounds)
    if origin in (Union, types.UnionType):
        return any(allows(one, value) for one in args)
    if origin is Literal:
        return any(value == one and type(value) is type(one) for one in args)
    if hint is Any:
        return True
    if hint is None or hint is type(None):
        return value is None
    if hint is bool:
        return isinstance(value, bool)
    if hint is int:
        return isinstance(value, Integral) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, Real) and not isinstance(value, bool)
    if origin is not None:
        return _is_instance(value, origin) and _allows_elements(origin, args, value)
    return _is_instance(value, hint)


def allowed(hint: Any) -> str:
    """What the annotation ``hint`` allows, in words."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return " ".join([allowed(args[0]), *(str(one) for one in args[1:] if isinstance(one, Range))])
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(allowed(one) for one in args))
    if origin is Literal:
        return f"one of {', '.join(repr(one) for one in args)}"
    if hint is None or hint is type(None):
        return "None"
    if hint in _WORDS:
        return _WORDS[hint]
    if origin is not None and isinstance(origin, type) and issubclass(origin, tuple | list | Sequence):
        return f"a sequence of {allowed(args[0])}" if args else "a sequence"
    name = getattr(origin or hint, "__name__", str(hint))
    return f"a {name}" if isinstance(origin or hint, type) else name


def suggest(what: str, given: object, known: Collection[str]) -> str:
    """A message that ``given`` is no known ``what``: the nearest name, then all of them."""
    close = get_close_matches(str(given)[:_MAX_SHOWN], known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"unknown {what} {_shown(given)}; {hint}known: {', '.join(sorted(known)) or 'none'}"


def _is_instance(value: Any, kind: Any) -> bool:
    if kind is Callable or kind is _CALLABLE:
        return callable(value)
    if not isinstance(kind, type) or kind in (object, Any):
        return True
    if getattr(kind, "_is_protocol", False) and not getattr(kind, "_is_runtime_protocol", False):
        return True
    return isinstance(value, kind)


def _allows_elements(origin: Any, args: tuple[Any, ...], value: Any) -> bool:
    if not args or not isinstance(value, Collection) or len(value) > _MAX_ELEMENTS:
        return True
    if isinstance(value, Mapping):
        return len(args) != 2 or all(allows(args[0], key) and allows(args[1], one) for key, one in value.items())
    if origin is tuple and args[-1] is not Ellipsis:
        return len(value) == len(args) and all(allows(hint, one) for hint, one in zip(args, value, strict=True))
    if isinstance(value, tuple | list | set | frozenset):
        return all(allows(args[0], one) for one in value)
    return True


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 1]}…"


_CLASS_VAR = get_origin(ClassVar[int])
_CALLABLE = get_origin(Callable[..., Any])
_WORDS: dict[Any, str] = {int: "a whole number", float: "a number", bool: "True or False", str: "a text"}
