"""Codes of few bits to fewer bytes and back: an adaptive binary arithmetic coder with mixed contexts.

Every code is a path through a binary tree, most significant bit first. Five contexts of earlier codes each say how
likely the next bit is 1, in adaptive probabilities; a logistic mixer, whose weights learn from every bit, makes one
probability of them (Mahoney 2005, "Adaptive weighing of context models for lossless data compression"), and an
arithmetic coder (Rissanen 1976; the carry-less form of Mahoney's) spends that probability's logarithm. All of it is
integers, tables included, so that bytes and codes are the same on every machine.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import product

import numpy as np

from fedcl_distill.errors import PayloadError
from fedcl_distill.synthetic.quantise import UInts

MAX_DEPTH = 8
"""Bits of a code at most."""

Contexts = tuple[int, int, int, int, int]
Layout = tuple[int, int, int, int]
"""Samples, channels, height, width; rows of values have height 1."""

_MODELS = 5
_LIMIT = 255  # a probability forgets more than about so many bits
_RATE = 12
_CERTAINTIES = 8  # weights are learned apart for contexts seen 0, 1, …, and 7 or more times
_FIRST_WEIGHT = 1 << 14
_SPAN = 2047
_POSITIONS = 256
_MAGNITUDES = 12  # bit lengths of sums of distances, at most


def layout_of(shape: Sequence[int]) -> Layout:
    """How an array of this shape is read: images as they are, rows of the last dimension otherwise."""
    if len(shape) == 4:
        return shape[0], shape[1], shape[2], shape[3]
    if len(shape) == 3:
        return shape[0], shape[1], 1, shape[2]
    if len(shape) == 2:
        return shape[0], 1, 1, shape[1]
    return 1, 1, 1, math.prod(shape)


def squeeze(codes: UInts, depth: int, centre: int) -> bytes:
    """``codes`` as bytes, by :func:`expand` the same codes again.

    Takes about 5 microseconds for every bit of every code.

    Args:
        codes: unsigned integers below ``2**depth``, of any shape; its shape matters (see :func:`layout_of`).
        depth: in [1, 8].
        centre: the code that values are small around; neighbours that are missing count as it.
    """
    values = bytearray(codes.reshape(-1).astype(np.uint8).tobytes())
    return _run(values, layout_of(codes.shape), depth, centre, None)


def expand(data: bytes, shape: Sequence[int], depth: int, centre: int) -> UInts:
    """The codes, uint8 of ``shape``, that :func:`squeeze` made ``data`` of.

    Any bytes give some codes, in as many steps as ``shape`` says. Memory: a byte for each code, and tables of up to
    8 MiB.

    Raises:
        PayloadError: ``data`` holds more than these codes need.
    """
    layout = layout_of(shape)
    values = bytearray(math.prod(shape))
    _run(values, layout, depth, centre, data)
    return np.frombuffer(values, np.uint8).reshape(tuple(shape))


@cache
def _tables() -> tuple[list[int], list[int], list[int]]:
    """The logistic function of x / 256 in 1 / 65536, for x from -2047 on; its inverse, for 4096 probabilities; rates.

    Powers of e come by multiplication of whole numbers: no machine's library decides about the last bit.
    """
    one, root = 1 << 62, 4629735647166717428  # e ** (1 / 256) in 2 ** -62
    powers = [one]
    for _ in range(_SPAN):
        powers.append(powers[-1] * root >> 62)
    upper = [(power << 16) // (power + one) for power in powers]
    squash = [65536 - value for value in reversed(upper[1:])] + upper
    squash = [min(max(value, 32), 65536 - 32) for value in squash]
    stretch = [min(bisect_left(squash, 16 * share + 8) - _SPAN, _SPAN) for share in range(4096)]
    return squash, stretch, [65536 // (seen + 2) for seen in range(_LIMIT + 1)]


def _run(values: bytearray, layout: Layout, depth: int, centre: int, data: bytes | None) -> bytes:
    """Encode ``values``, or fill them with what ``data`` says: one loop, so that both sides cannot disagree.

    Written out for five contexts, for every bit of every code comes through here.
    """
    squash, stretch, rates = _tables()
    contexts_of = _of_images if layout[2] > 1 else _of_rows
    sizes, contexts = contexts_of(values, layout, depth, centre)
    nodes = 1 << depth
    chances = [array("H", (32768,)) * (size * nodes) for size in sizes]
    seen = [bytearray(size * nodes) for size in sizes]
    weights = [[_FIRST_WEIGHT] * (depth * _CERTAINTIES) for _ in range(_MODELS)]
    p0, p1, p2, p3, p4 = chances
    n0, n1, n2, n3, n4 = seen
    w0, w1, w2, w3, w4 = weights
    low, high, position = 0, 0xFFFFFFFF, 4
    out = bytearray()
    window = 0 if data is None else int.from_bytes(data[:4].ljust(4, b"\0"), "big")
    shifts = range(depth - 1, -1, -1)
    for at, (a, b, c, d, e) in contexts:
        value, node = values[at], 1
        a, b, c, d, e = a * nodes, b * nodes, c * nodes, d * nodes, e * nodes
        for shift in shifts:
            i0, i1, i2, i3, i4 = a + node, b + node, c + node, d + node, e + node
            s0, s1, s2 = stretch[p0[i0] >> 4], stretch[p1[i1] >> 4], stretch[p2[i2] >> 4]
            s3, s4 = stretch[p3[i3] >> 4], stretch[p4[i4] >> 4]
            k0, k1, k2, k3, k4 = n0[i0], n1[i1], n2[i2], n3[i3], n4[i4]
            first = shift * _CERTAINTIES
            u0, u1 = first + (k0 if k0 < 7 else 7), first + (k1 if k1 < 7 else 7)
            u2, u3 = first + (k2 if k2 < 7 else 7), first + (k3 if k3 < 7 else 7)
            u4 = first + (k4 if k4 < 7 else 7)
            mixed = (w0[u0] * s0 + w1[u1] * s1 + w2[u2] * s2 + w3[u3] * s3 + w4[u4] * s4) >> 16
            chance = squash[(_SPAN if mixed > _SPAN else -_SPAN if mixed < -_SPAN else mixed) + _SPAN]
            middle = low + ((high - low) * chance >> 16)
            bit = value >> shift & 1 if data is None else int(window <= middle)
            if bit:
                high, target = middle, 65535
            else:
                low, target = middle + 1, 0
            while (low ^ high) < 0x1000000:
                if data is None:
                    out.append(high >> 24)
                else:
                    window = (window << 8 & 0xFFFFFFFF) | (data[position] if position < len(data) else 0)
                    position += 1
                low, high = low << 8 & 0xFFFFFFFF, (high << 8 & 0xFFFFFFFF) | 255
            step = ((bit << 16) - chance) * _RATE
            w0[u0] += s0 * step >> 18
            w1[u1] += s1 * step >> 18
            w2[u2] += s2 * step >> 18
            w3[u3] += s3 * step >> 18
            w4[u4] += s4 * step >> 18
            p0[i0] += (target - p0[i0]) * rates[k0] >> 16
            p1[i1] += (target - p1[i1]) * rates[k1] >> 16
            p2[i2] += (target - p2[i2]) * rates[k2] >> 16
            p3[i3] += (target - p3[i3]) * rates[k3] >> 16
            p4[i4] += (target - p4[i4]) * rates[k4] >> 16
            n0[i0] = k0 + 1 if k0 < _LIMIT else k0
            n1[i1] = k1 + 1 if k1 < _LIMIT else k1
            n2[i2] = k2 + 1 if k2 < _LIMIT else k2
            n3[i3] = k3 + 1 if k3 < _LIMIT else k3
            n4[i4] = k4 + 1 if k4 < _LIMIT else k4
            node = 2 * node + bit
        values[at] = node - nodes
    if data is None:
        return bytes(out + _shortest(low, high)).rstrip(b"\0")
    if len(data) > position:
        raise PayloadError(f"{len(data) - position} coded bytes are left over")
    return data


def _shortest(low: int, high: int) -> bytes:
    """The fewest bytes that, with zeros behind them, are a number in [low, high]."""
    for count in range(5):
        unit = 1 << (32 - 8 * count)
        number = -(-low // unit) * unit
        if number <= high:
            return number.to_bytes(5, "big")[1 : 1 + count]
    raise AssertionError("an interval of whole numbers holds its lower end")


Source = Iterator[tuple[int, Contexts]]
ContextsOf = Callable[[bytearray, Layout, int, int], tuple[tuple[int, ...], Source]]


def _of_images(values: bytearray, layout: Layout, depth: int, centre: int) -> tuple[tuple[int, ...], Source]:
    """Sizes of the five contexts of an image's code, and for every code its place and its contexts.

    They are the codes above and to the left, what a plane through the neighbours predicts (as in LOCO-I, Weinberger
    et al. 2000), their mean with how much they differ, and in colour the change from the channel before.
    """
    samples, channels, height, width = layout
    whole, size = 1 << depth, height * width
    coarse, coarser = max(depth - 5, 0), max(depth - 4, 0)
    sizes = (1024, whole * 10, whole * 3, 4096, max(1024, 2 * whole + 1))

    def every() -> Source:
        at = -1
        for _, channel, row, column in product(range(samples), range(channels), range(height), range(width)):
            at += 1
            if row:
                above = values[at - width]
                left = values[at - 1] if column else above
                corner = values[at - width - 1] if column else above
                right = values[at - width + 1] if column < width - 1 else above
            else:
                above = left = corner = right = values[at - 1] if column else centre
            left2 = values[at - 2] if column > 1 else left
            plane = above + left - corner
            least, most = (above, left) if above < left else (left, above)
            plane = least if plane < least else most if plane > most else plane
            differ = abs(left - corner) + abs(above - corner) + abs(above - right) + abs(left - left2)
            mean = (2 * left + 2 * above + right + corner + 3) // 6
            if channel:
                below = values[at - size]
                change = below - (values[at - size - 1] if column else below) + left + whole // 2
                last = 1 + (0 if change < 0 else min(change, 2 * whole - 1))
            else:
                last = (left >> coarse) * 32 + (left2 >> coarse)
            yield (
                at,
                (
                    (left >> coarse) * 32 + (above >> coarse),
                    mean * 10 + min(differ.bit_length(), 9),
                    plane * 3 + min(channel, 2),
                    ((left >> coarser) * 16 + (above >> coarser)) * 16 + (right >> coarser),
                    last,
                ),
            )

    return sizes, every()


def _of_rows(values: bytearray, layout: Layout, depth: int, centre: int) -> tuple[tuple[int, ...], Source]:
    """The same for rows, such as coefficients in order of frequency, or features.

    Contexts are where in its row a code is, how far from ``centre`` the codes before it are, and the code at the same
    place of the channel and of the sample before.
    """
    samples, channels, _, width = layout
    whole, row_size = 1 << depth, channels * width
    positions = row_size if row_size <= _POSITIONS else min(width, _POSITIONS)
    sizes = (positions * _MAGNITUDES, 256, positions * _MAGNITUDES, 8 * _MAGNITUDES**2, whole)

    def every() -> Source:
        at = -1
        for sample, channel, column in product(range(samples), range(channels), range(width)):
            at += 1
            one = abs(values[at - 1] - centre) if column else 0
            two = abs(values[at - 2] - centre) if column > 1 else 0
            three = abs(values[at - 3] - centre) if column > 2 else 0
            before = values[at - row_size] if sample else centre
            near = min((2 * one + two + three).bit_length(), _MAGNITUDES - 1)
            other = abs(values[at - width] - centre).bit_length() if channel else 0
            place = column * positions // width if row_size > _POSITIONS else channel * width + column
            yield (
                at,
                (
                    place * _MAGNITUDES + near,
                    min(one, 15) * 16 + min(two, 15),
                    place * _MAGNITUDES + abs(before - centre).bit_length(),
                    (min(channel, 7) * _MAGNITUDES + near) * _MAGNITUDES + other,
                    before,
                ),
            )

    return sizes, every()
