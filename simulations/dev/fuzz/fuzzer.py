"""Targets, mutations of what they read, and what counts as a finding.

``python -m simulations.dev.fuzz.fuzzer`` fuzzes one target under Atheris, in a process that libFuzzer ends. Findings
are written down and the search goes on; what ends the process itself (a crash below Python, memory, an input that
hangs) is left by libFuzzer beside them.
"""

from __future__ import annotations

import atexit
import copy
import hashlib
import json
import logging
import resource
import shutil
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import torch

from fedcl_distill.data import LabelledData, Splits
from fedcl_distill.seeding import generator_for
from fedcl_distill.synthetic.packed import MAGIC


def scratch_file(name: str, content: bytes) -> Path:
    """A file of that name and content in a folder that goes when the process ends."""
    path = scratch_folder() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@cache
def scratch_folder() -> Path:
    """That folder."""
    folder = tempfile.mkdtemp(prefix="fuzz-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


Mutator = Callable[[bytes, Random], bytes]

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


MAX_SECONDS = 2.0
MAX_MEMORY = 256 * 2**20  # bytes by which one input may raise the process's peak


class Finding(Exception):
    """An input that a reader did not take as it promises."""


def _nothing_more(value: Any) -> None:
    """What was accepted needs no further look."""


@dataclass(frozen=True)
class Target:
    """A reader of bytes from anyone.

    Attributes:
        name: on the command line.
        seeds: valid inputs to start from, made by code.
        read: takes an input, or refuses it by raising one of ``refusals``.
        refusals: the only exceptions that may come out of ``read``.
        check: must hold of whatever was accepted; no exception may come out of it.
        mutate: another input from one, in a way that keeps the form which random bytes would lose at once.
    """

    name: str
    seeds: Callable[[], Sequence[bytes]]
    read: Callable[[bytes], Any]
    refusals: tuple[type[Exception], ...]
    check: Callable[[Any], None] = _nothing_more
    mutate: Mutator = mutate_bytes


def judge(target: Target, data: bytes) -> bool:
    """Whether ``target`` accepts ``data``.

    Raises:
        Finding: neither accepted nor refused as promised, or at a cost of more than :data:`MAX_SECONDS` of processor
            time or :data:`MAX_MEMORY`; the exception behind it, if any, is its cause.
    """
    started, peak = time.thread_time(), _peak()
    accepted = _is_accepted(target, data)
    seconds, grown = time.thread_time() - started, _peak() - peak
    if seconds > MAX_SECONDS:
        raise Finding(f"{target.name} took {seconds:.1f} s")
    if grown > MAX_MEMORY:
        raise Finding(f"{target.name} took {grown // 2**20} MiB")
    return accepted


def _is_accepted(target: Target, data: bytes) -> bool:
    try:
        found = target.read(data)
    except target.refusals:
        return False
    except Exception as error:
        raise Finding(f"{target.name} raised {type(error).__name__}: {str(error)[:200]}") from error
    try:
        target.check(found)
    except Exception as error:
        raise Finding(f"{target.name} accepted what does not hold: {type(error).__name__}: {error}") from error
    return True


def _peak() -> int:
    """Largest resident size of this process so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


KEY = "fedcl_distill"


def take_apart(payload: bytes) -> tuple[dict[str, Any], dict[str, Any], bytes]:
    """The container's entries, the metadata as an object, and the bytes of the arrays."""
    (length,) = struct.unpack_from("<Q", payload)
    entries = json.loads(payload[8 : 8 + length])
    metadata = json.loads(entries.pop("__metadata__")[KEY])
    return entries, metadata, payload[8 + length :]


def put_together(entries: Mapping[str, Any], metadata: Any, body: bytes) -> bytes:
    """The inverse of :func:`take_apart`, without any check; a metadata string is taken as it is."""
    text = metadata if isinstance(metadata, str) else json.dumps(metadata)
    return with_header(json.dumps({"__metadata__": {KEY: text}, **entries}).encode(), body)


def with_header(header: bytes, body: bytes = b"") -> bytes:
    """A header of the right length before ``body``."""
    return struct.pack("<Q", len(header)) + header + body


def mutate_container(payload: bytes, random: Random) -> bytes:
    """Another payload: entries, metadata or bytes of arrays are changed; half of the time lengths agree again."""
    try:
        entries, metadata, body = take_apart(payload)
    except Exception:  # an earlier change took its form
        return mutate_bytes(payload, random)
    match random.randrange(4):
        case 0:
            entries = mutate_tree(entries, random)
        case 1 | 2:
            metadata = mutate_tree(metadata, random)
        case _:
            body = mutate_bytes(body, random)
    if not isinstance(entries, dict):
        return with_header(json.dumps(entries).encode(), body)
    if random.randrange(2):
        body = _of_declared_length(entries, body)
    return put_together(entries, metadata, body)


def mutate_packed(payload: bytes, random: Random) -> bytes:
    """Another payload of format 3, whose checksum mostly fits; of other formats :func:`mutate_container`."""
    if not payload.startswith(MAGIC) or not random.randrange(16):
        return mutate_container(payload, random)
    body = MAGIC + mutate_bytes(payload[len(MAGIC) : -4], random)
    return body + (zlib.crc32(body).to_bytes(4, "little") if random.randrange(8) else payload[-4:])


def _of_declared_length(entries: Mapping[str, Any], body: bytes) -> bytes:
    """``body`` cut, or filled up with zeros, to where the last array ends."""
    try:
        end = max(int(entry["data_offsets"][1]) for entry in entries.values())
    except (TypeError, ValueError, KeyError, IndexError, OverflowError):
        return body
    return body[:end].ljust(end, b"\0") if 0 <= end <= 1 << 16 else body


@cache
def images() -> LabelledData:
    """24 grey images of 6×6 pixels in 3 classes."""
    values = torch.randint(0, 256, (24, 1, 6, 6), dtype=torch.uint8, generator=generator_for(0, "images"))
    return LabelledData.from_tensors(values, torch.arange(24) % 3, name="images")


@cache
def features() -> LabelledData:
    """24 vectors of 4 numbers in 3 classes."""
    values = torch.rand(24, 4, generator=generator_for(0, "features"))
    return LabelledData.from_tensors(values, torch.arange(24) % 3, name="features")


def splits() -> Splits:
    return Splits(features(), features())


_CODE = ("fedcl_distill", "strategies", "simulations")
_MAX_INPUT = 1 << 16
_HANGING_SECONDS = 60
_MAX_PROCESS_MIB = 4096
_COUNTED_EVERY = 500


def main(name: str, folder: Path, seconds: int, seed: int) -> None:
    """Fuzz the target for so many seconds; never returns."""
    import atheris

    logging.disable()
    warnings.simplefilter("ignore")
    with atheris.instrument_imports(include=list(_CODE), exclude=["simulations.dev.fuzz"]):
        from simulations.dev.fuzz.messages import TARGETS

    target = TARGETS[name]
    corpus, findings = folder / "corpus" / name, folder / "findings"
    corpus.mkdir(parents=True, exist_ok=True)
    findings.mkdir(parents=True, exist_ok=True)
    for content in target.seeds():
        (corpus / hashlib.sha1(content).hexdigest()).write_bytes(content)
    log = _Log(name, folder)

    def try_one(data: bytes) -> None:
        from simulations.dev.fuzz.fuzzer import Finding, judge

        try:
            log.count(judge(target, data))
        except Finding as finding:
            log.keep(finding, data)

    options = {
        "max_total_time": seconds,
        "seed": seed,
        "max_len": _MAX_INPUT,
        "timeout": _HANGING_SECONDS,
        "rss_limit_mb": _MAX_PROCESS_MIB,
        "artifact_prefix": f"{findings}/{name}-",
        "print_final_stats": 1,
    }
    arguments = [sys.argv[0], str(corpus), *(f"-{key}={value}" for key, value in options.items())]
    atheris.Setup(arguments, try_one, custom_mutator=_mutator(target.mutate))
    atheris.Fuzz()


def _mutator(of_target: Callable[[bytes, Random], bytes]) -> Callable[..., bytes]:
    """The target's own three times out of four, else one that knows of no form."""

    def mutate(data: bytes, largest: int, seed: int) -> bytes:
        from simulations.dev.fuzz.fuzzer import mutate_bytes

        random = Random(seed)
        return (of_target if random.randrange(4) else mutate_bytes)(data, random)[:largest]

    return mutate


class _Log:
    """Counts inputs, and keeps one input for each place in the code where something came out that should not."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name, self._folder = name, folder
        self._counts = {"executions": 0, "accepted": 0, "findings": 0}
        self._places = set[str]()

    def count(self, accepted: bool) -> None:
        self._counts["executions"] += 1
        self._counts["accepted"] += accepted
        if self._counts["executions"] % _COUNTED_EVERY == 0:
            self._write()

    def keep(self, finding: Exception, data: bytes) -> None:
        self.count(False)
        place = _place(finding)
        if place in self._places:
            return
        self._places.add(place)
        self._counts["findings"] = len(self._places)
        stem = self._folder / "findings" / f"{self._name}-{hashlib.sha1(place.encode()).hexdigest()[:12]}"
        stem.with_suffix(".input").write_bytes(data)
        stem.with_suffix(".txt").write_text("".join(traceback.format_exception(finding)), errors="replace")
        self._write()

    def _write(self) -> None:
        (self._folder / f"{self._name}.json").write_text(json.dumps(self._counts))


def _place(finding: Exception) -> str:
    """The exception and the innermost line of our own code on its way: one finding each."""
    error: Any = finding.__cause__ or finding
    ours = [
        f"{frame.filename}:{frame.lineno}"
        for frame in traceback.extract_tb(error.__traceback__)
        if any(f"/{package}/" in frame.filename for package in _CODE)
    ]
    return f"{type(error).__name__} at {ours[-1] if ours else '?'}"


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
