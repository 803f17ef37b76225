"""Data frames of pandas as :class:`LabelledData`: numbers, booleans, categories and missing values."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from fedcl_distill._imports import require
from fedcl_distill.data.columns import MISSING, MISSING_TEXTS, Cells, FrameColumn, encode_column, fit_column
from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.data.spec import DataSpec, Normalisation
from fedcl_distill.errors import DataError


@dataclass(frozen=True)
class FrameEncoder:
    """Maps frames to features as it was fitted on a training frame; test frames and other nodes' are mapped alike.

    Attributes:
        label: the column of labels.
        columns: the columns of features, in order.
        spec: of the training data.
        unknown: what a category that training did not have is: an "error", or "zeros" in all features of its column.
        booleans: names of the columns that held true and false.

    Example:
        data, encoder = from_dataframe(train, label="income")
        test = encoder.encode(test_frame)
    """

    label: str
    columns: tuple[FrameColumn, ...]
    spec: DataSpec
    unknown: Literal["error", "zeros"] = "error"
    booleans: tuple[str, ...] = ()
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
        return LabelledData(samples, self._labels(frame[self.label], name), self.spec.covering(samples), name)

    def _features(self, series: Any, column: FrameColumn, where: str) -> NDArray[np.float64]:
        what = f"{where}: column {column.name!r}"
        return encode_column(column, series_cells(series, what, text=column.fill is None), self.unknown, what)

    def _labels(self, series: Any, where: str) -> torch.Tensor:
        labels = []
        for row, text in enumerate(series_texts(series)):
            if text is None or text not in self._positions:
                raise DataError(f"{where}: row {row} has the label {text!r}, classes are {self.spec.class_names[:20]}")
            labels.append(self._positions[text])
        return torch.tensor(labels, dtype=torch.int64)

    def decode(self, data: Any) -> Any:
        """Samples of these features as a data frame in the form of the training frame.

        Numbers are clipped to the range of their column in training; booleans and categories become the nearest, so
        that a synthetic row is one that the table could hold.

        Args:
            data: :class:`~fedcl_distill.synthetic.SyntheticSet` or labelled data with the features of this encoder.

        Raises:
            DataError: ``data`` have another number of features.
        """
        data = data.as_labelled_data() if hasattr(data, "as_labelled_data") else data
        if data.sample_shape != self.spec.sample_shape:
            raise DataError(f"samples have {data.sample_shape} features, this encoder {self.spec.sample_shape}")
        values, found, at = data.unit().detach().cpu().numpy(), dict[str, Any](), 0
        for column in self.columns:
            width = len(column.feature_names)
            found[column.name] = self._decoded(column, values[:, at : at + width], at)
            at += width
        found[self.label] = [self.spec.class_names[label] for label in data.labels.tolist()]
        return require("pandas", "decoding a frame", "'fedcl-distill[frames]'").DataFrame(found)

    def _decoded(self, column: FrameColumn, values: NDArray[Any], at: int) -> Any:
        if column.fill is None:
            names = [None if one == MISSING else one for one in column.categories]
            return [names[best] for best in values.argmax(axis=1)]
        low, high = self.spec.feature_ranges[at] if self.spec.feature_ranges else self.spec.value_range
        if column.name in self.booleans:
            return values[:, 0] >= 0.5
        return values[:, 0].clip(low, high)

    def as_record(self) -> dict[str, Any]:
        """JSON values that :meth:`from_record` reads."""
        return {
            "label": self.label,
            "columns": [{"name": c.name, "fill": c.fill, "categories": list(c.categories)} for c in self.columns],
            "spec": self.spec.as_record(),
            "ranges": [list(one) for one in self.spec.feature_ranges],
            "unknown": self.unknown,
            "booleans": list(self.booleans),
        }

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> FrameEncoder:
        """The encoder that :meth:`as_record` wrote; DataError if something is missing."""
        try:
            columns = tuple(FrameColumn(c["name"], c["fill"], tuple(c["categories"])) for c in record["columns"])
            return cls(
                record["label"],
                columns,
                DataSpec.from_record(record["spec"]),
                record["unknown"],
                tuple(record.get("booleans", ())),
            )
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
    "NA", "N/A", "NaN", "null", "None" and "?" count as missing, in any capitals.

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
            "17,99": read them with ``pandas.read_csv(…, decimal=",")``), more than 50 different texts in a column, or
            nothing to learn from.
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
    cells = {one: series_cells(frame[one], f"{name}: column {one!r}") for one in used}
    for one, held in cells.items():
        if all(value is None for value in held.values):
            raise DataError(f"{name}: column {one!r} holds no values")
    columns = tuple(fit_column(str(one), held) for one, held in cells.items())
    classes = _categories(frame[label])
    names = tuple(feature for column in columns for feature in column.feature_names)
    booleans = tuple(str(one) for one, held in cells.items() if held.kind == "bool")
    plain = Normalisation((0.0,) * len(names), (1.0,) * len(names))
    spec = DataSpec((len(names),), classes, plain, (0.0, 0.0), feature_names=names)
    samples = FrameEncoder(label, columns, spec).encode(frame, name).samples
    spec = replace(spec, normalisation=Normalisation.of(samples)).covering(samples)
    encoder = FrameEncoder(label, columns, spec, unknown, booleans)
    return encoder.encode(frame, name), encoder


def series_cells(series: Any, what: str, *, text: bool = False) -> Cells:
    """The values of a pandas column.

    Args:
        series: the column.
        what: begins messages.
        text: whether numbers written as text are categories, for training had categories here.

    Raises:
        DataError: dates, infinite numbers, or numbers written as text.
    """
    kind = _kind(series)
    if kind == "date":
        raise DataError(f"{what} holds dates or times: make numbers of them first")
    lost = series.isna().tolist()
    if kind in ("number", "bool"):
        values = [None if gone else float(value) for value, gone in zip(series, lost, strict=True)]
        for row, value in enumerate(values):
            if value is not None and not math.isfinite(value):
                raise DataError(f"{what}: row {row} is infinite")
        return Cells("number" if kind == "number" else "bool", values)
    texts = series_texts(series)
    held = {one for one in texts if one is not None}
    if kind == "text" and not text and held and all(_is_number(one) for one in held):
        raise DataError(
            f"{what} holds numbers as text ({sorted(held)[0]!r}): read them as numbers (pandas.read_csv takes "
            f"decimal=',' and na_values=), or say that they are categories with .astype('category')"
        )
    return Cells("category", texts, _categories(series) if kind == "category" else ())


def series_texts(series: Any) -> list[str | None]:
    """The values of a pandas column as texts; None where one is missing."""
    return [
        None if lost or str(value).strip().lower() in MISSING_TEXTS else str(value)
        for value, lost in zip(series, series.isna(), strict=True)
    ]


def _kind(series: Any) -> Literal["number", "bool", "date", "category", "text"]:
    pandas = require("pandas", "from_dataframe", "'fedcl-distill[frames]'")
    types = pandas.api.types
    if types.is_bool_dtype(series.dtype) or set(map(type, series.dropna())) == {bool}:
        return "bool"
    if isinstance(series.dtype, pandas.CategoricalDtype):
        return "category"
    if types.is_numeric_dtype(series.dtype):
        return "number"
    dated = types.is_datetime64_any_dtype(series.dtype) or types.is_timedelta64_dtype(series.dtype)
    return "date" if dated or _holds_dates(series) else "text"


def _holds_dates(series: Any) -> bool:
    values = series.dropna()
    return len(values) > 0 and all(isinstance(one, datetime.date | datetime.time) for one in values)


def _categories(series: Any) -> tuple[str, ...]:
    """The texts of a column's values: in the order of a categorical, else sorted, numbers by value."""
    if hasattr(series, "cat"):
        return tuple(str(one) for one in series.cat.categories)
    values = [one for one in series.dropna().unique() if str(one).strip().lower() not in MISSING_TEXTS]
    try:
        return tuple(str(one) for one in sorted(values))
    except TypeError:
        return tuple(sorted(str(one) for one in values))


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True
