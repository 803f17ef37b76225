"""JSON from untrusted sources: one object of bounded depth; no duplicate keys, NaN or broken characters."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any, NoReturn

from fedcl_distill.errors import PayloadError

MAX_DEPTH = 32


def parse_object(text: str, what: str) -> dict[str, Any]:
    """Parse ``text``, which must be one JSON object; ``what`` names it in errors.

    Raises:
        PayloadError: ``text`` is no JSON object, or breaks one of the rules of this module.
    """
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_float=_finite_float, parse_constant=_refuse_constant)
        if not isinstance(value, dict):
            raise PayloadError(f"{what} is not a JSON object")
        _check_depth(value, MAX_DEPTH)
        # An escaped lone surrogate parses, but could never be written again.
        json.dumps(value, ensure_ascii=False).encode()
    except PayloadError as error:
        raise PayloadError(f"{what}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise PayloadError(f"{what} is not valid JSON: {error}") from error
    return value


def compact(value: object) -> str:
    """``value`` as the shortest JSON text with sorted keys: equal values give equal text.

    Raises:
        PayloadError: ``value`` holds something JSON has no word for (NaN, an array, …), or is nested too deep
            to be read again.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
        text.encode()
        _check_depth(json.loads(text), MAX_DEPTH)
    except (TypeError, ValueError, RecursionError) as error:
        raise PayloadError(f"metadata cannot be written as JSON: {error}") from error
    return text


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise PayloadError(f"duplicate key {key!r}")
        result[key] = value
    return result


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise PayloadError(f"number {text[:40]} is out of range")
    return value


def _refuse_constant(text: str) -> NoReturn:
    raise PayloadError(f"{text} is not a number")


def _check_depth(value: object, remaining: int) -> None:
    if not isinstance(value, dict | list):
        return
    if remaining == 0:
        raise PayloadError(f"nested deeper than {MAX_DEPTH} levels")
    for child in value.values() if isinstance(value, dict) else value:
        _check_depth(child, remaining - 1)
