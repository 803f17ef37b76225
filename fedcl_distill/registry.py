"""One register for each kind of part: filled by decorators here and in other packages, read by names and settings.

A part has one plain form: a name, or ``{"name": …, setting: value, …}``, which nests. :meth:`Registry.build` makes the
object of it, :func:`describe` the plain form of an object. Text is the same in one line: ``name``, ``name:value`` or
``name:setting=value,setting=[name:setting=value]``.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import json
import logging
import os
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from importlib.metadata import entry_points
from numbers import Integral, Real
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar, Union, get_args, get_origin

from fedcl_distill.errors import SettingsError
from fedcl_distill.settings import hints_of, suggest

T = TypeVar("T")
B = TypeVar("B", bound=Callable[..., Any])

Plain = str | Mapping[str, Any]
"""The plain form of a part: a text, or a mapping with a ``name``."""

PLUGINS_VARIABLE = "FEDCL_DISTILL_PLUGINS"
"""Environment variable with modules (``package.module``) or files (``path/to/mine.py``) to import, separated by commas,
beside the entry points of installed packages. Worker processes inherit it."""

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry(Generic[T]):
    """What is registered: how it is built, and what tables and help texts say of it."""

    name: str
    build: Callable[..., T]
    facts: Mapping[str, Any]


class Registry(Generic[T]):
    """Builders of one kind of part by name.

    Args:
        kind: what messages call it, such as "network".
        group: of entry points, such as "fedcl_distill.networks": a package that is installed beside this one names its
            parts there, ``mine = "package.module:MyNet"``, and they are registered when they are first asked for.
        accepts: what a part must be an instance of, to be passed as an object; ``object`` for anything.

    Example:
        >>> SHAPES: Registry[object] = Registry("shape", "example.shapes")
        >>> @SHAPES.register("square")
        ... @dataclass(frozen=True)
        ... class Square:
        ...     side: int = 1
        >>> SHAPES.build("square:side=2"), SHAPES.build({"name": "square"})
        (Square(side=2), Square(side=1))
    """

    def __init__(self, kind: str, group: str, accepts: type = object) -> None:
        self.kind = kind
        self.group = group
        self.accepts = accepts
        self._entries: dict[str, Entry[T]] = {}
        self._loaded = False

    def register(self, name: str, **facts: Any) -> Callable[[B], B]:
        """A decorator that registers a class or function under ``name``; the last one registered counts.

        Args:
            name: in Python, on command lines, in files and messages. A class that has no ``name`` of its own gets it.
            facts: what tables and help texts say of it.
        """
        if not name or any(sign in name for sign in ":,=[] "):
            raise SettingsError(f"a {self.kind} cannot be called {name!r}: no blanks and none of : , = [ ]")

        def keep(build: B) -> B:
            self._entries[name] = Entry(name, build, facts)
            if isinstance(build, type) and "name" not in vars(build) and "name" not in fields_of(build):
                build.name = name  # type: ignore[attr-defined]
            return build

        return keep

    def unregister(self, name: str) -> None:
        """Forget the entry called ``name``; SettingsError if there is none."""
        del self._entries[self[name].name]

    def names(self) -> list[str]:
        """All names, sorted."""
        self._load()
        return sorted(self._entries)

    def __iter__(self) -> Iterator[Entry[T]]:
        """All entries, in the order of registration."""
        self._load()
        return iter(list(self._entries.values()))

    def __contains__(self, name: object) -> bool:
        if name not in self._entries:
            self._load()
        return name in self._entries

    def __getitem__(self, name: str) -> Entry[T]:
        """The entry called ``name``.

        Raises:
            SettingsError: there is none; the message names the nearest one.
        """
        if name not in self:
            raise SettingsError(suggest(self.kind, name, self._entries))
        return self._entries[name]

    def settings_of(self, name: str) -> dict[str, inspect.Parameter]:
        """The settings that the part called ``name`` takes; SettingsError if there is none of this name."""
        return parameters_of(self[name].build)

    def build(self, value: T | str | Mapping[str, Any], /, **more: Any) -> T:
        """The part that ``value`` is or describes.

        Args:
            value: an object, which is returned as it is; a text; or a mapping with a ``name``.
            more: settings beside those of ``value``.

        Raises:
            SettingsError: the name or a setting is unknown, a value does not fit, the object is no such part, or it has
                its settings already and ``more`` are given.
        """
        plain: T | Mapping[str, Any] = self._read(value) if isinstance(value, str) else value
        if not isinstance(plain, Mapping):
            if isinstance(plain, type) or not isinstance(plain, self.accepts):
                raise SettingsError(
                    f"{value!r} is no {self.kind}; give an object, or one of: {', '.join(self.names())}"
                )
            if more:
                raise SettingsError(f"{value!r} has its settings already; {', '.join(more)} cannot be set")
            return plain
        given = {**plain, **more}
        name = given.pop("name", None)
        entry = self[str(name)]
        return build_with(f"{self.kind} {entry.name!r}", entry.build, given)

    def _read(self, text: str) -> dict[str, Any]:
        """Read text, in which a value without a name is the first setting."""
        plain = parse(text)
        if "" in plain:
            known = self.settings_of(plain["name"])
            if not known:
                raise SettingsError(f"{self.kind} {plain['name']!r} has no settings, got {plain['']!r}")
            plain[next(iter(known))] = plain.pop("")
        return plain

    def name_of(self, builder: object) -> str | None:
        """The name under which ``builder``, a class or function, is registered; None if it is not."""
        return next((entry.name for entry in self._entries.values() if entry.build is builder), None)

    def _load(self) -> None:
        """Register what installed packages and :data:`PLUGINS_VARIABLE` offer, once."""
        if self._loaded:
            return
        self._loaded = True
        load_plugins()
        for point in entry_points(group=self.group):
            if point.name in self._entries:
                continue
            try:
                build = point.load()  # which may register itself
                if point.name not in self._entries:
                    self.register(point.name)(build)
            except Exception:  # somebody else's package; one that is broken must not stop the others
                _LOG.exception(
                    "%s %r of package %s cannot be loaded and is left out", self.kind, point.name, point.dist
                )


@functools.cache
def load_plugins() -> None:
    """Import the modules that :data:`PLUGINS_VARIABLE` names, once a process; workers inherit the variable.

    Raises:
        SettingsError: one cannot be imported: whoever set the variable wants it.
    """
    for module in filter(None, map(str.strip, os.environ.get(PLUGINS_VARIABLE, "").split(","))):
        try:
            _import_file(Path(module)) if module.endswith(".py") else importlib.import_module(module)
        except (ImportError, OSError) as error:
            raise SettingsError(f"{PLUGINS_VARIABLE} names {module!r}, which cannot be imported: {error}") from error


def _import_file(path: Path) -> None:
    """Import the file at ``path`` under its own name, unless a module of that name is there already."""
    if path.stem in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise


def build_with(owner: str, build: Callable[..., T], given: Mapping[str, Any]) -> T:
    """``build(**given)``.

    A text or mapping for a setting whose annotation names a register, ``Annotated[Distance, DISTANCES]``, is built
    there first.

    Raises:
        SettingsError: a setting is unknown, missing, or does not fit; the message begins with ``owner``.
    """
    known = parameters_of(build)
    given = dict(given)
    takes_any = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in inspect.signature(build).parameters.values())
    for name in given:
        if name not in known and not takes_any:
            raise SettingsError(f"{owner}: {suggest('setting', name, known)}")
    try:
        registries = {name: _registry_in(hint) for name, hint in hints_of(build).items()} if given else {}
        for name, value in given.items():
            registry = registries.get(name)
            if registry is not None and isinstance(value, str | Mapping):
                given[name] = registry.build(value)
        return build(**given)
    except SettingsError:
        raise
    except (TypeError, ValueError) as error:
        raise SettingsError(f"{owner} does not take these settings: {error}") from error


def _registry_in(hint: Any) -> Registry[Any] | None:
    """The register that an annotation names, alone or in a union."""
    if get_origin(hint) is Annotated:
        return next((one for one in get_args(hint)[1:] if isinstance(one, Registry)), None)
    if get_origin(hint) in (Union, types.UnionType):
        return next(filter(None, map(_registry_in, get_args(hint))), None)
    return None


def parameters_of(build: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The named parameters of a class or function."""
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {name: one for name, one in inspect.signature(build).parameters.items() if one.kind in named}


def describe(part: object) -> Any:
    """The plain form of ``part``: JSON values from which :meth:`Registry.build` makes an equal one.

    Numbers, texts, truth values and None stay as they are, sequences become lists. A dataclass becomes its name, or a
    mapping with its name and the settings that differ from their defaults. Its name is its attribute ``name`` if it
    has one, else that of its class. What only Python can make (a function, a user's class) becomes the name by which
    Python knows it, for readers alone.
    """
    if part is None or isinstance(part, bool | int | float | str):
        return part
    if isinstance(part, Integral | Real):  # of NumPy
        return int(part) if isinstance(part, Integral) else float(part)
    if isinstance(part, Mapping):
        return {str(key): describe(value) for key, value in part.items()}
    if isinstance(part, tuple | list | set | frozenset):
        return [describe(one) for one in part]
    if isinstance(part, os.PathLike):
        return os.fspath(part)
    own = getattr(part, "describe", None)
    if callable(own) and not isinstance(part, type):
        return own()
    if is_dataclass(part) and not isinstance(part, type):
        changed = {one.name: describe(getattr(part, one.name)) for one in fields(part) if _differs(part, one)}
        return {"name": name_of(part), **changed} if changed else name_of(part)
    if not isinstance(part, type) and isinstance(getattr(part, "name", None), str):
        return name_of(part)
    return qualified_name(part)


def name_of(part: object) -> str:
    """What messages and provenance call ``part``: its ``name``, which registering gives a class, or its class's."""
    name = getattr(part, "name", None)
    return name if isinstance(name, str) else type(part).__name__


def fields_of(build: object) -> list[str]:
    """Names of the fields of a dataclass; none for anything else."""
    return [one.name for one in fields(build)] if is_dataclass(build) else []  # type: ignore[arg-type]


def qualified_name(part: object) -> str:
    """By what name Python knows a class, a function or an object's class, with the settings of a ``partial``."""
    if isinstance(part, functools.partial):
        given = [*map(str, part.args), *(f"{key}={describe(value)}" for key, value in part.keywords.items())]
        return f"{qualified_name(part.func)}:{','.join(given)}"
    named = part if isinstance(part, type) or hasattr(part, "__qualname__") else type(part)
    return f"{named.__module__}.{named.__qualname__}"  # type: ignore[attr-defined]


def _differs(part: object, one: Any) -> bool:
    if not one.repr or one.name == "name":
        return False
    default = one.default if one.default_factory is MISSING else one.default_factory()
    return default is MISSING or getattr(part, one.name) != default


def parse(text: str) -> dict[str, Any]:
    """Read ``name``, ``name:value`` or ``name:setting=value,…``; a value in brackets is such a text itself.

    Values are read as JSON where they are that (numbers, true, null, "text"), else as texts; ``[a,b]`` is a list of
    them, and ``[a,]`` one of a single one. A single value without a
    name is the first setting of what is named: ``dirichlet:0.1``.

    Raises:
        SettingsError: the text is not of that form.

    Example:
        >>> parse("teacher:temperature=4,architecture=[convnet:width=32,depth=2]")
        {'name': 'teacher', 'temperature': 4, 'architecture': {'name': 'convnet', 'width': 32, 'depth': 2}}
    """
    name, _, rest = text.strip().partition(":")
    found: dict[str, Any] = {"name": name.strip()}
    items = list(_split(rest, text))
    for item in items:
        key, equals, value = item.partition("=")
        if not equals:
            if len(items) > 1:
                raise SettingsError(f"cannot read {item!r} in {text!r}; expected setting=value")
            key, value = "", item
        found[key.strip()] = read_value(value.strip())
    return found


def to_text(plain: str | Mapping[str, Any]) -> str:
    """The inverse of :func:`parse`."""
    if isinstance(plain, str):
        return plain
    settings = ",".join(f"{key}={_text_of(value)}" for key, value in plain.items() if key != "name")
    return f"{plain['name']}:{settings}" if settings else str(plain["name"])


def _text_of(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"[{to_text(value)}]"
    if isinstance(value, str):
        return f"[{value}]" if ":" in value or "," in value else value
    return json.dumps(value)


def _split(rest: str, text: str) -> Iterator[str]:
    """The items between commas that stand in no bracket."""
    depth, start = 0, 0
    for position, sign in enumerate(rest):
        depth += (sign == "[") - (sign == "]")
        if depth < 0:
            break
        if sign == "," and depth == 0:
            yield from filter(None, (rest[start:position].strip(),))
            start = position + 1
    if depth:
        raise SettingsError(f"brackets do not match in {text!r}")
    yield from filter(None, (rest[start:].strip(),))


def read_value(text: str) -> Any:
    """The plain value that ``text`` stands for: JSON where it is that, a list or a part in brackets, else itself."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    if text.startswith("[") and text.endswith("]"):
        inner = text[1:-1].strip()
        items = list(_split(inner, text))
        if (len(items) > 1 or inner.endswith(",")) and not any(sign in items[0] for sign in ":="):
            return [read_value(item) for item in items]
        return parse(inner)
    return text
