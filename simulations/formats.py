"""Numbers as tables show them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

ABSENT = "–"


def number(value: Any) -> float | None:
    """``value`` if it is a finite number; results come from files, which may hold anything."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        found = float(value)
    except OverflowError:  # an integer of hundreds of digits
        return None
    return found if math.isfinite(found) else None


def numbers(values: Any) -> list[float]:
    """The finite numbers of a list, or none if it is no list."""
    found = [number(value) for value in values] if isinstance(values, list | tuple) else []
    return [value for value in found if value is not None]


def mean(values: Sequence[float]) -> float | None:
    """Mean, or None of nothing."""
    return statistics.fmean(values) if values else None


def spread(values: Sequence[float]) -> float:
    """Sample standard deviation; 0 for fewer than two values."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def percent(values: Sequence[float]) -> str:
    """Fractions as "95.1 ± 0.3" (mean and standard deviation) in per cent; the unit stands in the column's title."""
    if not values:
        return ABSENT
    text = f"{100 * statistics.fmean(values):.1f}"
    return f"{text} ± {100 * spread(values):.1f}" if len(values) > 1 else text


def byte_size(count: float | None) -> str:
    """1,234 as "1.23 kB", in decimal units."""
    if count is None:
        return ABSENT
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(count) >= size * 0.9995:
            return f"{_three_digits(count / size)} {unit}"
    return f"{count:.0f} B"


def seconds(value: float | None) -> str:
    """Durations: "0.4 s", "42 s", "3 min 05 s", "2 h 10 min"."""
    if value is None:
        return ABSENT
    if value < 9.95:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 100:
        return f"{whole} s"
    if whole < 6000:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def plural(count: int, noun: str, several: str | None = None) -> str:
    """ "1 seed", "2 seeds"."""
    return f"{count:,} {noun if count == 1 else several or noun + 's'}"


def _three_digits(value: float) -> str:
    return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"
