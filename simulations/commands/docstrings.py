"""What docstrings say about fields and arguments, for whoever sits before a terminal."""

from __future__ import annotations

import inspect
import re


def explained(thing: object, section: str) -> dict[str, str]:
    """What the docstring of ``thing`` says below ``section`` ("Attributes", "Args") about each name there."""
    found = re.search(rf"^{section}:\n((?:[ ]{{4}}.*\n?|\n)+)", inspect.getdoc(thing) or "", re.MULTILINE)
    if found is None:
        return {}
    helps = {}
    for names, text in re.findall(r"^ {4}(\w[\w, ]*): (.*(?:\n {8}.*)*)", found[1], re.MULTILINE):
        sentence = plain(text)
        for name in names.split(","):
            helps[name.strip()] = sentence[:1].upper() + sentence[1:]
    return helps


def introduction(thing: object) -> list[str]:
    """The paragraphs of the docstring of ``thing`` before its first section."""
    text = re.split(r"^(?:Args|Attributes|Raises|Returns):\n", inspect.getdoc(thing) or "", flags=re.MULTILINE)[0]
    return [plain(paragraph) for paragraph in text.split("\n\n") if paragraph.strip()]


def plain(text: str) -> str:
    """``text`` in one line, without the marks of reStructuredText."""
    return re.sub(r":\w+:`~?([^`]*)`", r"\1", re.sub(r"\s+", " ", text)).replace("``", "").strip()
