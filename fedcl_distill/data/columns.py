"""Columns of tables as features: numbers, booleans and categories, and what stands for a missing value."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedcl_distill.errors import DataError

MISSING = "(missing)"
"""What the category of missing values is called."""
MISSING_TEXTS = frozenset({"", "?", "na", "n/a", "nan", "null", "none"})
"""Texts that stand for no value, in small letters."""
MAX_CATEGORIES = 50
"""Of one column; more are names or free text, of which each would be a feature of its own."""

Kind = Literal["number", "bool", "category"]
_LARGEST = float(np.finfo(np.float32).max)
_DATES = re.compile(r"\d{4}-\d\d-\d\d([T ].*)?|\d{1,2}[./-]\d{1,2}[./-]\d{2,4}|\d{4}/\d\d/\d\d")
_COMMAS = re.compile(r"[+-]?\d[\d.]*,\d+")


@dataclass(frozen=True)
class Cells:
    """The values of one column, None where one is missing.

    Attributes:
        kind: "number" and "bool" hold floats, "category" texts.
        values: one a row.
        order: of categories; empty for sorted ones.
    """

    kind: Kind
    values: list[Any]
    order: tuple[str, ...] = ()

    def __add__(self, other: Cells) -> Cells:
        if self.kind != other.kind:
            raise DataError(f"a column holds {self.kind} values here and {other.kind} values there")
        return Cells(self.kind, self.values + other.values, self.order)


@dataclass(frozen=True)
class FrameColumn:
    """How one column becomes features.

    Attributes:
        name: in the table.
        fill: of a column of numbers or booleans, what stands for a missing value; None for categories.
        categories: in the order of their features; empty for numbers.
    """

    name: str
    fill: float | None = None
    categories: tuple[str, ...] = ()

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(f"{self.name}={one}" for one in self.categories) if self.fill is None else (self.name,)


def fit_column(name: str, cells: Cells, rows: Collection[int] | None = None) -> FrameColumn:
    """How the column called ``name`` becomes features.

    A missing number becomes the median of ``rows`` (0 if these have none), a missing boolean the more frequent of the
    two. Categories become one feature each that is 0 or 1 (one-hot); where any is missing, that is a category of its
    own, the last.

    Args:
        name: of the column.
        cells: its values; all of them say which categories there are.
        rows: those that medians are taken of; default all.

    Raises:
        DataError: more than :data:`MAX_CATEGORIES` categories in no given order.
    """
    if cells.kind == "category":
        categories = cells.order or tuple(sorted({one for one in cells.values if one is not None}))
        if len(categories) > MAX_CATEGORIES and not cells.order:
            raise DataError(
                f"column {name!r} holds {len(categories)} different texts, such as {categories[0]!r}; at most "
                f"{MAX_CATEGORIES} become categories: name the columns to use by features=[…] "
                "(on the command line --feature-columns)"
            )
        return FrameColumn(name, categories=categories + ((MISSING,) if None in cells.values else ()))
    chosen = cells.values if rows is None else [cells.values[row] for row in rows]
    known = np.array([one for one in chosen if one is not None], dtype=np.float64)
    if not len(known):
        return FrameColumn(name, fill=0.0)
    return FrameColumn(name, fill=float(known.mean() >= 0.5 if cells.kind == "bool" else np.median(known)))


def encode_column(column: FrameColumn, cells: Cells, unknown: Literal["error", "zeros"], what: str) -> NDArray[Any]:
    """Features, float64 (rows, 1) of numbers and booleans, or (rows, categories).

    Raises:
        DataError: another kind of column than ``column`` was made of, or (unless ``unknown`` is "zeros") a category
            that it does not know.
    """
    if (cells.kind == "category") != (column.fill is None):
        kinds = ("numbers", "categories") if column.fill is not None else ("categories", "numbers")
        raise DataError(f"{what} held {kinds[0]} in training, here it holds {kinds[1]}")
    if column.fill is not None:
        return np.array([column.fill if one is None else one for one in cells.values], dtype=np.float64)[:, None]
    position = {category: index for index, category in enumerate(column.categories)}
    found = np.zeros((len(cells.values), len(position)))
    for row, value in enumerate(cells.values):
        text = MISSING if value is None else value
        if text in position:
            found[row, position[text]] = 1
        elif unknown == "error":
            raise DataError(
                f"{what}: row {row} holds {text!r}, which training did not have; "
                "fit with unknown='zeros' to let it pass as no category"
            )
    return found


def read_cells(
    texts: Sequence[str],
    places: Sequence[str],
    missing: Collection[str] | None,
    decimal: str,
    *,
    category: bool = False,
) -> Cells:
    """What the texts of one column say: true and false, numbers, or categories.

    Args:
        texts: one a row.
        places: where each stands, for messages.
        missing: those that stand for no value; None takes :data:`MISSING_TEXTS`, capitals aside.
        decimal: "." or ","; with a comma, points stand between thousands.
        category: whether numbers are names of categories.

    Raises:
        DataError: text among numbers, numbers beyond float32, dates, or numbers with decimal commas where ``decimal``
            is a point.
    """
    plain = [text.strip() for text in texts]
    known = [None if is_missing(text, missing) else text for text in plain]
    held = [(text, place) for text, place in zip(known, places, strict=True) if text is not None]
    if held and not category and all(text.lower() in ("true", "false") for text, _ in held):
        return Cells("bool", [None if text is None else float(text.lower() == "true") for text in known])
    numbers = [_number(text, decimal) for text, _ in held]
    if category or (held and all(number is None for number in numbers)):
        if not category:
            _refuse_dates_and_commas(held)
        return Cells("category", known)
    for (text, place), number in zip(held, numbers, strict=True):
        if number is None or not abs(number) <= _LARGEST:
            raise DataError(
                f"{place}: {text[:50]!r} is no finite float32 number, as others in its column are; if it stands for a "
                "missing value name it in missing=…, and columns of categories with numbers among them in categories=…"
            )
    values = iter(numbers)
    return Cells("number", [None if text is None else next(values) for text in known])


def is_missing(text: str, missing: Collection[str] | None) -> bool:
    """Whether ``text`` stands for no value."""
    return text in missing if missing is not None else text.lower() in MISSING_TEXTS


def _number(text: str, decimal: str) -> float | None:
    if decimal == ",":
        if "." in text and "," not in text:
            return None  # thousands or not: nothing tells
        text = text.replace(".", "").replace(",", ".")
    try:
        number = float(text)
    except ValueError:
        return None
    return None if "_" in text or math.isnan(number) else number


def uses_decimal_commas(texts: Sequence[str]) -> bool:
    """Whether numbers among ``texts`` have decimal commas, and none has a decimal point alone."""
    commas = any(_COMMAS.fullmatch(text.strip()) for text in texts)
    return commas and not any(re.fullmatch(r"[+-]?\d+\.\d+", text.strip()) for text in texts)


def _refuse_dates_and_commas(held: Sequence[tuple[str, str]]) -> None:
    text, place = held[0]
    if all(_DATES.fullmatch(one) for one, _ in held):
        raise DataError(
            f"{place}: {text!r} is a date: make numbers of dates first (days, months, …), or name the other columns by "
            "features=[…] (on the command line --feature-columns)"
        )
    if all(re.fullmatch(r"[+-]?\d[\d.]*(,\d+)?", one) for one, _ in held):
        raise DataError(f"{place}: {text!r} looks like a number with a decimal comma: say so by decimal=','")
