"""What settings there are: each is named, typed, ranged and explained once, by the class that holds it.

A setting has three forms: the text of a flag, the plain value that TOML and results hold, and the object that the
class makes of it. Between the first two stands :class:`Setting`, between the last two the class and the registers.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from fedcl_distill.errors import SettingsError
from fedcl_distill.registry import read_value
from fedcl_distill.settings import Known, Range, allows, hints_of, marks, refusal

Shape = Literal["value", "switch", "list", "table"]
_METAVARS: dict[Any, str] = {int: "INT", float: "FLOAT", str: "TEXT", bool: "BOOL"}


@dataclass(frozen=True)
class Setting:
    """One field of a settings class.

    Attributes:
        name: of the field; its flag is ``--name`` with hyphens.
        hint: its annotation, ranges and choices included.
        help: from the class's docstring.
        group: the first name of its paragraph there.
        default: what holds where nothing is given.
        required: there is no default.
    """

    name: str
    hint: Any
    help: str = ""
    group: str = ""
    default: Any = None
    required: bool = False

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def shape(self) -> Shape:
        """A "list" (``1,2,3`` as a flag), a "table" (``key=value``), a "switch" or a single "value"."""
        bare, origin = _bare(self.hint), get_origin(_bare(self.hint))
        if bare is bool:
            return "switch"
        if bare is dict or origin in (dict, Mapping):
            return "table"
        return "list" if origin is tuple else "value"

    @property
    def item(self) -> Any:
        """The annotation of the value, or of each item of a list."""
        bare = _bare(self.hint)
        return get_args(bare)[0] if self.shape == "list" else bare

    @property
    def choices(self) -> tuple[Any, ...]:
        """The values that a ``Literal`` allows."""
        bare = _bare(self.item)
        return get_args(bare) if get_origin(bare) is Literal else ()

    @property
    def metavar(self) -> str:
        """What the help writes for a value."""
        if self.shape == "table":
            return "KEY=VALUE"
        one = "|".join(map(str, self.choices)) or _METAVARS.get(_bare(self.item), "TEXT")
        return f"{one},…" if self.shape == "list" else one

    @property
    def range(self) -> str:
        """The bounds of a number in words, or ""."""
        return " and ".join(str(one) for one in [*marks(self.hint), *marks(self.item)] if isinstance(one, Range))

    def read_flag(self, text: str) -> Any:
        """The plain value of what a flag says.

        Raises:
            SettingsError: the class does not allow it; the message begins with the flag.
        """
        if self.shape == "list":
            return self.check([_of_text(one, self.item) for one in text.split(",")], self.flag)
        return self.check(_of_text(text, self.item), self.flag)

    def alternatives(self, text: str) -> list[str]:
        """The values that one flag gives: names and numbers may be separated by commas."""
        named = self.choices or any(isinstance(one, Known) for one in [*marks(self.hint), *marks(self.item)])
        several = self.shape == "value" and ":" not in text and (named or _bare(self.item) in (int, float))
        return [one.strip() for one in text.split(",")] if several else [text]

    def check(self, value: Any, source: str) -> Any:
        """A plain value as the field takes it: lists become tuples, whole numbers floats where floats are meant.

        Raises:
            SettingsError: the annotation does not allow it; the message begins with ``source``.
        """
        plain = _fitted(value, self.hint)
        if not allows(self.hint, plain):
            raise SettingsError(_in_words(refusal(source, self.hint, value), source))
        return plain


def settings_of(kind: type) -> dict[str, Setting]:
    """The settings that the dataclass ``kind`` has by name, in the order of its fields."""
    hints = hints_of(kind)  # type: ignore[arg-type]
    helps: dict[str, str] = {}
    groups: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        helps |= explained(one, "Attributes")
        groups |= _groups(one)
    found = {}
    for field in dataclasses.fields(kind):
        if not field.init:
            continue
        required = field.default is MISSING and field.default_factory is MISSING
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        found[field.name] = Setting(
            name=field.name,
            hint=hints[field.name],
            help=_for_flags(helps.get(field.name, ""), helps),
            group=groups.get(field.name, ""),
            default=None if required else default,
            required=required,
        )
    return found


def read_table(items: Iterable[str], source: str) -> dict[str, Any]:
    """The table that ``key=value`` texts make; a dot in a key begins a table of its own.

    Raises:
        SettingsError: an item is not of that form.
    """
    found: dict[str, Any] = {}
    for item in items:
        key, equals, text = item.partition("=")
        if not equals or not key.strip():
            raise SettingsError(f"{source} takes key=value, got {item!r}")
        owner, dot, name = key.strip().partition(".")
        if dot:
            found.setdefault(owner, {})[name] = read_value(text.strip())
        else:
            found[owner] = read_value(text.strip())
    return found


def explained(thing: object, section: str) -> dict[str, str]:
    """What the docstring of ``thing`` says below ``section`` ("Attributes", "Args") about each name there."""
    helps = {}
    for names, text in _entries(thing, section):
        sentence = plain(text)
        for name in names:
            helps[name] = sentence[:1].upper() + sentence[1:]
    return helps


def introduction(thing: object) -> list[str]:
    """The paragraphs of the docstring of ``thing`` before its first section."""
    text = re.split(r"^(?:Args|Attributes|Raises|Returns):\n", inspect.getdoc(thing) or "", flags=re.MULTILINE)[0]
    return [plain(paragraph) for paragraph in text.split("\n\n") if paragraph.strip()]


def plain(text: str) -> str:
    """``text`` in one line, without the marks of reStructuredText."""
    return re.sub(r":\w+:`~?([^`]*)`", r"\1", re.sub(r"\s+", " ", text)).replace("``", "").strip()


_NONE_IN_WORDS = (
    (r"\bno part of as_record\b", "no part of a result's settings"),
    (r"\bNone (?:for|takes|keeps it|keeps|means)\b", "by default"),
    (r"\b(is|are) None\b", r"\1 not given"),
    (r"\bpositive or None\b", "positive"),
    (r", as JSON values\b", ""),
)
"""How a docstring for programmers reads at a terminal."""


def _for_flags(text: str, names: Iterable[str]) -> str:
    """``text`` with flags in place of fields and without words that only Python knows."""
    text = with_flags(text, names)
    for pattern, words in _NONE_IN_WORDS:
        text = re.sub(pattern, words, text)
    return text


def with_flags(text: str, names: Iterable[str]) -> str:
    """``text`` with flags in place of those ``names`` that are no words of English, such as ``images_per_class``."""
    for name in names:
        if "_" in name:
            text = re.sub(rf"\b{name}\b", "--" + name.replace("_", "-"), text)
    return text


def _section(thing: object, section: str) -> str:
    found = re.search(rf"^{section}:\n((?:[ ]{{4}}.*\n?|\n)+)", inspect.getdoc(thing) or "", re.MULTILINE)
    return found[1] if found else ""


def _entries(thing: object, section: str) -> list[tuple[list[str], str]]:
    found = re.findall(r"^ {4}(\w[\w, ]*): (.*(?:\n {8}.*)*)", _section(thing, section), re.MULTILINE)
    return [([name.strip() for name in names.split(",")], text) for names, text in found]


def _groups(thing: object) -> dict[str, str]:
    """For each attribute that the docstring of ``thing`` explains, the first name of its paragraph."""
    groups: dict[str, str] = {}
    for paragraph in re.split(r"\n\s*\n", _section(thing, "Attributes")):
        lines = re.findall(r"^ {4}(\w[\w, ]*): ", paragraph, re.MULTILINE)
        names = [name.strip() for line in lines for name in line.split(",")]
        groups |= dict.fromkeys(names, names[0] if names else "")
    return groups


def _bare(hint: Any) -> Any:
    """``hint`` without None and without ranges; a union of number types is the wider one."""
    if get_origin(hint) is Annotated:
        return _bare(get_args(hint)[0])
    if get_origin(hint) in (Union, types.UnionType):
        inner = [one for one in get_args(hint) if one is not type(None)]
        if len(inner) == 1:
            return _bare(inner[0])
        if {_bare(one) for one in inner} == {int, float}:
            return float
    return hint


def _of_text(text: str, hint: Any) -> Any:
    """What ``text`` stands for where ``hint`` is wanted: itself, or what it says as a plain value."""
    bare = _bare(hint)
    if bare is str or (get_origin(bare) is Literal and all(isinstance(one, str) for one in get_args(bare))):
        return text.strip()
    return read_value(text.strip())


def _fitted(value: Any, hint: Any) -> Any:
    bare = _bare(hint)
    if get_origin(bare) is tuple and isinstance(value, list | tuple):
        return tuple(_fitted(one, get_args(bare)[0]) for one in value)
    if bare is float and type(value) is int:
        return float(value)
    return value


def _in_words(refused: str, source: str) -> str:
    """A refusal for whoever sits before a terminal: it names the flag or the file, and neither None nor classes."""
    for python, words in ((" or None, got", ", got"), ("a Mapping", "a table"), ("a dict", "a table")):
        refused = refused.replace(python, words)
    return refused if refused.startswith(source) else f"{source}: {refused}"
