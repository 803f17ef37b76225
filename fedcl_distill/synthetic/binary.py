"""Small numbers, texts and exact floats as few bytes, and back from bytes of anyone."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from fedcl_distill.errors import PayloadError

Scalar = str | int | float | bool | None

_DIGITS = 15  # decimals after the point at most
_SINGLE, _DOUBLE = 16, 17
_ONE_BY_ONE, _ALL_SINGLE, _ALL_DOUBLE = range(3)
_NONE, _FALSE, _TRUE, _WHOLE, _REAL, _TEXT = range(6)
_MAX_WHOLE_BYTES = 10
_MOST = 2**64 - 1
_FEW = 32  # numbers of which each is looked at for its shortest form


@dataclass
class Writer:
    """Bytes, part by part."""

    parts: bytearray = field(default_factory=bytearray)

    def whole(self, value: int) -> None:
        """A number from 0 to 2**64 - 1, seven bits in a byte, the lowest first; PayloadError if it is larger."""
        if value > _MOST:
            raise PayloadError(f"{value} cannot be written: it is above {_MOST}")
        while value > 127:
            self.parts.append(value & 127 | 128)
            value >>= 7
        self.parts.append(value)

    def signed(self, value: int) -> None:
        """Any whole number; small ones of either sign take one byte."""
        self.whole(2 * value if value >= 0 else -2 * value - 1)

    def text(self, value: str) -> None:
        encoded = value.encode()
        self.whole(len(encoded))
        self.parts += encoded

    def real(self, value: float) -> None:
        """Exactly ``value``: in decimal where that is shorter than float32 or float64."""
        self.parts += _shortest_real(value)

    def reals(self, values: Sequence[float]) -> None:
        """Exactly ``values``: one by one, all as float32 or all as float64, whichever is shortest."""
        exact = np.array(values, "<f8")
        with np.errstate(over="ignore"):
            single = exact.astype("<f4")
        forms = [(exact.nbytes, _ALL_DOUBLE, exact.tobytes())]
        if len(values) <= _FEW:
            one_by_one = b"".join(map(_shortest_real, values))
            forms.append((len(one_by_one), _ONE_BY_ONE, one_by_one))
        if np.array_equal(single.astype("<f8").view("<u8"), exact.view("<u8")):
            forms.append((single.nbytes, _ALL_SINGLE, single.tobytes()))
        _, form, encoded = min(forms)
        self.whole(form)
        self.parts += encoded

    def scalar(self, value: Scalar) -> None:
        """One JSON scalar."""
        if value is None or isinstance(value, bool):
            self.whole(_NONE if value is None else _TRUE if value else _FALSE)
        elif isinstance(value, int):
            self.whole(_WHOLE)
            self.signed(value)
        elif isinstance(value, float):
            self.whole(_REAL)
            self.real(value)
        else:
            self.whole(_TEXT)
            self.text(value)


def _shortest_real(value: float) -> bytes:
    writer = Writer()
    forms = []
    for digits in range(_DIGITS + 1):
        if value == value and abs(value) < 2**53 and _decimal(round(value * 10**digits), digits) == _bits(value):
            writer.whole(digits)
            writer.signed(round(value * 10**digits))
            forms.append(bytes(writer.parts))
            break
    if abs(value) <= float(np.finfo(np.float32).max) and _bits(struct.unpack("<f", struct.pack("<f", value))[0]) == (
        _bits(value)
    ):
        forms.append(bytes([_SINGLE]) + struct.pack("<f", value))
    forms.append(bytes([_DOUBLE]) + struct.pack("<d", value))
    return min(forms, key=len)


def _bits(value: float) -> bytes:
    return struct.pack("<d", value)


def _decimal(number: int, digits: int) -> bytes:
    return _bits(float(Fraction(number, 10**digits)))


@dataclass
class Reader:
    """What a :class:`Writer` wrote, read once from the front.

    Every method raises PayloadError where the bytes end early or say something that a writer would not.
    """

    payload: memoryview
    position: int = 0

    def take(self, count: int) -> memoryview:
        end = self.position + count
        if end > len(self.payload):
            raise PayloadError(f"payload is truncated: {len(self.payload)} bytes, {end} are needed")
        taken = self.payload[self.position : end]
        self.position = end
        return taken

    def whole(self, most: int = _MOST, what: str = "a number") -> int:
        value = 0
        for place in range(_MAX_WHOLE_BYTES):
            (byte,) = self.take(1)
            value |= (byte & 127) << 7 * place
            if byte < 128:
                if place and not byte:
                    raise PayloadError("a number is written in more bytes than it needs")
                if value > most:
                    raise PayloadError(f"{what} is {value}, at most {most} is allowed")
                return value
        raise PayloadError("a number never ends")

    def signed(self) -> int:
        value = self.whole()
        return value // 2 if value % 2 == 0 else -(value + 1) // 2

    def text(self) -> str:
        length = self.whole(len(self.payload), "the length of a text")
        try:
            return bytes(self.take(length)).decode()
        except UnicodeDecodeError as error:
            raise PayloadError("a text is not UTF-8") from error

    def real(self) -> float:
        form = self.whole()
        if form <= _DIGITS:
            value = float(Fraction(self.signed(), 10**form))
        elif form in (_SINGLE, _DOUBLE):
            (value,) = struct.unpack("<f" if form == _SINGLE else "<d", self.take(4 if form == _SINGLE else 8))
        else:
            raise PayloadError(f"a number has form {form}, which does not exist")
        if not np.isfinite(value):
            raise PayloadError(f"{value} is not a number")
        return float(value)

    def reals(self, count: int) -> tuple[float, ...]:
        form = self.whole(_ALL_DOUBLE, "the form of numbers")
        if form == _ONE_BY_ONE:
            return tuple(self.many(count, self.real))
        dtype = np.dtype("<f4" if form == _ALL_SINGLE else "<f8")
        values = np.frombuffer(self.take(count * dtype.itemsize), dtype)
        if not np.isfinite(values).all():
            raise PayloadError("numbers must be finite")
        return tuple(values.astype(np.float64).tolist())

    def scalar(self) -> Scalar:
        readers: dict[int, Callable[[], Scalar]] = {
            _NONE: lambda: None,
            _FALSE: lambda: False,
            _TRUE: lambda: True,
            _WHOLE: self.signed,
            _REAL: self.real,
            _TEXT: self.text,
        }
        return readers[self.whole(_TEXT, "the kind of a value")]()

    def many(self, count: int, read: Callable[[], Any]) -> list[Any]:
        """``count`` things, each of a byte or more: no list is longer than the payload."""
        if count > len(self.payload) - self.position:
            raise PayloadError(f"payload is truncated: {count} values cannot be in {len(self.payload)} bytes")
        return [read() for _ in range(count)]
