"""Data frames of pandas as :class:`LabelledData`: numbers, booleans, categories and missing values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from fedcl_distill._imports import require
from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.data.spec import DataSpec, Normalisation
from fedcl_distill.errors import DataError

MISSING = "(missing)"
"""What the category of missing values is called."""
_MISSING_TEXTS = frozenset({"", "NA", "N/A", "NaN", "nan", "None", "?"})


@dataclass(frozen=True)
class FrameColumn:
    """How one column becomes features.

    Attributes:
        name: in the frame.
        fill: of a column of numbers or booleans, what stands for a missing value; None for categories.
        categories: in the order of their features; empty for numbers.
    """

    name: str
    fill: float | None = None
    categories: tuple[str, ...] = ()

    @property
    def feature_names(self) -> tuple[str, ...]:
        return tuple(f"{self.name}={one}" for one in self.categories) if self.fill is None else (self.name,)


@dataclass(frozen=True)
class FrameEncoder:
    """Maps frames to features as it was fitted on a training frame; test frames and other nodes' are mapped alike.

    Attributes:
        label: the column of labels.
        columns: the columns of features, in order.
        spec: of the training data.
        unknown: what a category that training did not have is: an "error", or "zeros" in all features of its column.

    Example:
        data, encoder = from_dataframe(train, label="income")
        test = encoder.encode(test_frame)
    """

    label: str
    columns: tuple[FrameColumn, ...]
    spec: DataSpec
    unknown: Literal["error", "zeros"] = "error"
    _positions: Mapping[str, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.unknown not in ("error", "zeros"):
            raise DataError(f"unknown must be 'error' or 'zeros', got {self.unknown!r}")
        object.__setattr__(self, "_positions", {name: at for at, name in enumerate(self.spec.class_names)})

    def encode(self, frame: Any, name: str = "frame") -> LabelledData:
        """``frame`` as labelled data; its range reaches at least as far as the training data's.

        Raises:
            DataError: a column is missing, holds something else than in training, or a label is missing or unknown.
        """
        columns = [*self.columns]
        for column in (self.label, *(one.name for one in columns)):
            if column not in frame.columns:
                raise DataError(f"{name}: has no column {column!r}, only {list(frame.columns)[:20]}")
        if not len(frame):
            raise DataError(f"{name}: there are no rows")
        values = np.concatenate([self._features(frame[one.name], one, name) for one in columns], axis=1)
        samples = torch.from_numpy(values.astype(np.float32))
        low, high = self.spec.value_range
        spec = replace(self.spec, value_range=(min(low, float(samples.min())), max(high, float(samples.max()))))
        return LabelledData(samples, self._labels(frame[self.label], name), spec, name)

    def _features(self, series: Any, column: FrameColumn, where: str) -> NDArray[np.float64]:
        what = f"{where}: column {column.name!r}"
        if column.fill is not None:
            return _as_numbers(series, what, column.fill)[:, None]
        texts = _as_texts(series)
        found = np.array([[text == category for category in column.categories] for text in texts], dtype=np.float64)
        lost = np.flatnonzero(found.sum(axis=1) == 0)
        if len(lost) and self.unknown == "error":
            raise DataError(
                f"{what}: row {lost[0]} holds {texts[lost[0]]!r}, which training did not have; "
                "fit with unknown='zeros' to let it pass as no category"
            )
        return found

    def _labels(self, series: Any, where: str) -> torch.Tensor:
        labels = []
        for row, text in enumerate(_as_texts(series)):
            if text not in self._positions:
                raise DataError(f"{where}: row {row} has the label {text!r}, classes are {self.spec.class_names[:20]}")
            labels.append(self._positions[text])
        return torch.tensor(labels, dtype=torch.int64)

    def as_record(self) -> dict[str, Any]:
        """JSON values that :meth:`from_record` reads."""
        return {
            "label": self.label,
            "columns": [{"name": c.name, "fill": c.fill, "categories": list(c.categories)} for c in self.columns],
            "spec": self.spec.as_record(),
            "unknown": self.unknown,
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> FrameEncoder:
        """The encoder that :meth:`as_record` wrote; DataError if something is missing."""
        try:
            columns = tuple(FrameColumn(c["name"], c["fill"], tuple(c["categories"])) for c in record["columns"])
            return cls(record["label"], columns, DataSpec.from_record(record["spec"]), record["unknown"])
        except (KeyError, TypeError) as error:
            raise DataError(f"frame encoder: its record lacks {error}") from error


def from_dataframe(
    frame: Any,
    label: str,
    *,
    features: Sequence[str] | None = None,
    unknown: Literal["error", "zeros"] = "error",
    name: str = "frame",
) -> tuple[LabelledData, FrameEncoder]:
    """Read a pandas ``DataFrame``, and say how to read another one alike.

    Numbers stay as they are, and a missing one becomes the median of its column. Booleans become 0 and 1, and a missing
    one the more frequent of the two. Categories and texts become one feature each that is 0 or 1 (one-hot): in the
    order of a pandas categorical, else sorted; where any is missing, "missing" is a category of its own, the last. "",
    "NA", "NaN", "None" and "?" count as missing.

    Args:
        frame: the training frame.
        label: the column of labels; classes are its values, sorted (numbers by value) or in the order of a categorical.
        features: the columns to use; default all others.
        unknown: what a category that this frame does not have is when another frame is encoded.
        name: what reports call the data.

    Returns:
        The data, with names of features, and the encoder: ``encoder.encode(test_frame)`` gives the test data.

    Raises:
        DataError: no such column, a missing label, a column without values, dates, numbers written as text (such as
            "17,99": read them with ``pandas.read_csv(…, decimal=",")``), or nothing to learn from.
        DependencyError: pandas is not installed.
    """
    require("pandas", "from_dataframe", "'fedcl-distill[frames]'")
    for column in (label, *(features or ())):
        if column not in frame.columns:
            raise DataError(f"{name}: has no column {column!r}, only {list(frame.columns)[:20]}")
    if not len(frame):
        raise DataError(f"{name}: there are no rows")
    used = list(features) if features is not None else [one for one in frame.columns if one != label]
    if not used:
        raise DataError(f"{name}: there are no columns of features beside {label!r}")
    columns = tuple(_fitted(frame[one], str(one), f"{name}: column {one!r}") for one in used)
    classes = _categories(frame[label])
    names = tuple(feature for column in columns for feature in column.feature_names)
    unscaled = Normalisation((0.0,) * len(names), (1.0,) * len(names))
    raw = FrameEncoder(label, columns, DataSpec((len(names),), classes, unscaled, (0.0, 0.0), feature_names=names))
    data = raw.encode(frame, name)
    samples = data.samples
    spec = replace(
        data.spec,
        normalisation=Normalisation.of(samples),
        value_range=(float(samples.min()), float(samples.max())),
    )
    return replace(data, spec=spec), FrameEncoder(label, columns, spec, unknown)


def _fitted(series: Any, name: str, what: str) -> FrameColumn:
    kind = _kind(series)
    if kind == "date":
        raise DataError(f"{what} holds dates or times: make numbers of them first")
    if series.isna().all():
        raise DataError(f"{what} holds no values")
    if kind == "number":
        return FrameColumn(name, fill=float(series.median()))
    if kind == "bool":
        return FrameColumn(name, fill=float(series.dropna().astype(float).mean() >= 0.5))
    texts = set(_as_texts(series)) - {MISSING}
    if kind == "text" and texts and all(_is_number(text) for text in texts):
        raise DataError(
            f"{what} holds numbers as text ({sorted(texts)[0]!r}): read them as numbers (pandas.read_csv takes "
            f"decimal=',' and na_values=), or say that they are categories with .astype('category')"
        )
    return FrameColumn(name, categories=_categories(series) + ((MISSING,) if MISSING in _as_texts(series) else ()))


def _kind(series: Any) -> Literal["number", "bool", "date", "category", "text"]:
    types = require("pandas", "from_dataframe", "'fedcl-distill[frames]'").api.types
    if types.is_bool_dtype(series.dtype) or set(map(type, series.dropna())) == {bool}:
        return "bool"
    if isinstance(series.dtype, require("pandas", "from_dataframe", "'fedcl-distill[frames]'").CategoricalDtype):
        return "category"
    if types.is_numeric_dtype(series.dtype):
        return "number"
    dated = types.is_datetime64_any_dtype(series.dtype) or types.is_timedelta64_dtype(series.dtype)
    return "date" if dated else "text"


def _categories(series: Any) -> tuple[str, ...]:
    """The texts of a column's values: in the order of a categorical, else sorted, numbers by value."""
    if hasattr(series, "cat"):
        return tuple(str(one) for one in series.cat.categories)
    values = [one for one in series.dropna().unique() if str(one).strip() not in _MISSING_TEXTS]
    try:
        return tuple(str(one) for one in sorted(values))
    except TypeError:
        return tuple(sorted(str(one) for one in values))


def _as_texts(series: Any) -> list[str]:
    return [
        MISSING if lost or str(value).strip() in _MISSING_TEXTS else str(value)
        for value, lost in zip(series, series.isna(), strict=True)
    ]


def _as_numbers(series: Any, what: str, fill: float) -> NDArray[np.float64]:
    if _kind(series) not in ("number", "bool"):
        raise DataError(f"{what} held numbers in training, here it is {series.dtype}")
    values = np.array([fill if lost else float(value) for value, lost in zip(series, series.isna(), strict=True)])
    if not np.isfinite(values).all():
        raise DataError(f"{what}: row {int(np.flatnonzero(~np.isfinite(values))[0])} is infinite")
    return values


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True
