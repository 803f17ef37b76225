"""Small random changes to bytes, texts and trees of JSON values."""

from __future__ import annotations

import copy
import json
from random import Random
from typing import Any

_BYTES = (b"\0", b"\x7f", b"\xff", b"\xff" * 4, b"\0\0\x80\x7f", b"\0\0\xc0\x7f", b"\x80" + bytes(7), b"nan")
_CHARACTERS = "{}[]:,=\"'\\ \n\r\t.-+_0²٣eE#\0é\ud800"
JUNK: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 255, 65536, 2**31, 2**32, -(2**63), 2**63, 2**64, 10**400),
    *(0.0, -0.0, 0.5, 1e-320, 1e38, 1e308, -1e308, float("nan"), float("inf")),
    *("", "0", "²", "nan", "inf", "\ud800", "\0", "../..", "x" * 300, "9" * 5000, "[" * 3000, "pixels", "iid"),
    *([], {}, [[]], [0, 0], [1, 28, 28], {"a": 1}, [[[[[[[[[[[]]]]]]]]]]], [0] * 100, ["a", "a"]),
)


def mutate_bytes(data: bytes, random: Random) -> bytes:
    """A few of: a flipped bit, a cut, a repetition, a move, a value from the edge of what types hold."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 4))):
        start = random.randrange(len(changed) + 1)
        length = min(len(changed) - start, random.choice((1, 2, 4, 8, 64)))
        match random.randrange(5):
            case 0 if start < len(changed):
                changed[start] ^= 1 << random.randrange(8)
            case 1:
                del changed[start : start + length]
            case 2:
                changed[start:start] = changed[start : start + length]
            case 3:
                value = random.choice(_BYTES)
                changed[start : start + len(value)] = value
            case _:
                changed[start:start] = random.choice(_BYTES)
    return bytes(changed)


def mutate_text(data: bytes, random: Random) -> bytes:
    """The same for UTF-8 text: characters that mean something come in, lines and numbers are moved and repeated."""
    text = data.decode(errors="replace")
    for _ in range(random.choice((1, 1, 2, 4))):
        start = random.randrange(len(text) + 1)
        end = min(len(text), start + random.choice((0, 1, 3, 20)))
        middle = random.choice(("", random.choice(_CHARACTERS), text[start:end] * 2, _as_text(random.choice(JUNK))))
        text = text[:start] + middle + text[end:]
    return text.encode(errors="surrogatepass" if random.randrange(2) else "replace")


def mutate_tree(tree: Any, random: Random, junk: tuple[Any, ...] = JUNK) -> Any:
    """A copy of ``tree`` (dictionaries and lists, whatever is in them) with one or a few nodes changed."""
    holder = {"": copy.deepcopy(tree)}
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        places = list(_places(holder))
        node, key = random.choice(places)
        match random.randrange(6):
            case 0 if node is not holder:
                del node[key]
            case 1 if isinstance(node, dict):
                node[random.choice([*map(str, node), "more", "x" * 300])] = copy.deepcopy(node[key])
            case 1:
                node.insert(key, copy.deepcopy(node[key]))
            case 2:
                other, place = random.choice(places)
                node[key] = copy.deepcopy(other[place]) if place in _keys(other) else None
            case 3 if type(node[key]) in (int, float):
                node[key] = random.choice((node[key] + 1, node[key] - 1, -node[key], node[key] * 2))
            case 3 if isinstance(node[key], str):
                node[key] = mutate_text(node[key].encode(errors="replace"), random).decode(errors="replace")
            case _:
                node[key] = copy.deepcopy(random.choice(junk))
        if not holder:
            break
    return holder.get("")


def mutate_json(data: bytes, random: Random) -> bytes:
    """A JSON text with one or a few values changed; where it is none, its bytes are."""
    try:
        tree = json.loads(data)
    except (ValueError, RecursionError):
        return mutate_bytes(data, random)
    return json.dumps(mutate_tree(tree, random)).encode()


def _places(node: Any) -> Any:
    """All (container, key) below ``node``."""
    for key in _keys(node):
        yield node, key
        yield from _places(node[key])


def _keys(node: Any) -> list[Any]:
    if isinstance(node, dict):
        return list(node)
    return list(range(len(node))) if isinstance(node, list) else []


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
