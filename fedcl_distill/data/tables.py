"""Readers of tables: CSV and parquet files, and the four hospitals of the UCI heart disease data."""

from __future__ import annotations

import csv
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from fedcl_distill._imports import require
from fedcl_distill.data.arrays import overlap_note, stratified_split
from fedcl_distill.data.columns import (
    Cells,
    FrameColumn,
    encode_column,
    fit_column,
    is_missing,
    read_cells,
    uses_decimal_commas,
)
from fedcl_distill.data.frame import series_cells, series_texts
from fedcl_distill.data.labelled import LabelledData, Splits
from fedcl_distill.data.spec import DataSpec, Normalisation
from fedcl_distill.errors import DataError, SettingsError

Column = str | int
"""A column by its name in the header, or by its position (negative ones count from the end)."""

LabelRule = Mapping[str, str] | Callable[[str], str]
"""From the text of a label cell to the name of its class."""

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet")


def load_table(
    path: str | os.PathLike[str],
    *,
    label: Column,
    features: Sequence[Column] | None = None,
    group: Column | None = None,
    test_fraction: float = 0.2,
    seed: int = 0,
    name: str | None = None,
) -> Splits:
    """Load a table, a ``.parquet`` file or one that :func:`load_csv` reads; arguments, rules and errors are its own.

    Of parquet, the types of columns count in place of what texts look like, and "" and "NA" are missing, too.

    Raises:
        DependencyError: for parquet, pandas or pyarrow is not installed.
    """
    file = Path(path).expanduser()
    if file.suffix.lower() != ".parquet":
        columns = read_table(file, label=label, features=features, group=group)
    else:
        columns = _read_parquet(file, label, features, group)
    return table_splits(columns, test_fraction=test_fraction, seed=seed, name=name or file.stem)


def load_csv(
    path: str | os.PathLike[str],
    *,
    label: Column,
    features: Sequence[Column] | None = None,
    group: Column | None = None,
    categories: Sequence[Column] = (),
    missing: Sequence[str] | None = None,
    label_rule: LabelRule | None = None,
    class_names: Sequence[str] | None = None,
    header: bool = True,
    delimiter: str | None = None,
    decimal: Literal[".", ","] | None = None,
    test_fraction: float = 0.2,
    seed: int = 0,
    name: str | None = None,
) -> Splits:
    """Load a CSV file and hold out a part of every class (of every group) for testing.

    Columns of numbers are features as they are; "true" and "false" become 1 and 0; columns of texts become one feature
    for each text, 0 or 1 (one-hot, sorted, called "column=text"). A missing number becomes the median of the training
    rows (a column without any in these is 0 throughout), a missing boolean the more frequent one, a missing text a
    category of its own. The normalisation is measured on the training rows. What was done is in the ``notes`` of the
    data.

    Args:
        path: the file, UTF-8.
        label: the column of the labels.
        features: the columns of the features; default: all but ``label`` and ``group``.
        group: the column of natural groups, such as hospitals; they become ``LabelledData.groups``.
        categories: columns of numbers that are names of categories (codes).
        missing: cell texts that stand for "no value"; default "", "?", "NA", "N/A", "NaN", "null" and "None", in any
            capitals.
        label_rule: from label text to class name, such as ``{"0": "healthy", "1": "ill"}``; default: the text
            itself.
        class_names: the classes in the order of their labels; default: those found, sorted (numbers by
            value).
        header: whether the first row names the columns; without it, columns go by position.
        delimiter: one character; default the one of comma, semicolon and tab that is most frequent in the first row.
        decimal: the sign before decimals; with a comma, points stand between thousands. Default a point; where the
            delimiter is a semicolon or tab, a comma if numbers have commas and none has a point alone.
        test_fraction: in (0, 1).
        seed: fixes the split.
        name: default the name of the file without its suffix.

    Returns:
        float32 samples (n, features) in the units of the file, with names and value ranges of features.

    Raises:
        DataError: no such file, no such column, ragged rows, text among numbers, numbers beyond float32, dates, more
            than 50 categories in a column, a missing label.

    Example:
        splits = load_csv("patients.csv", label="ill", group="hospital")
    """
    file = Path(path).expanduser()
    columns = read_table(
        file,
        label=label,
        features=features,
        group=group,
        categories=categories,
        missing=(missing,) if isinstance(missing, str) else missing,
        label_rule=label_rule,
        header=header,
        delimiter=delimiter,
        decimal=decimal,
    )
    return table_splits(
        columns, class_names=class_names, test_fraction=test_fraction, seed=seed, name=name or file.stem
    )


@dataclass
class Columns:
    """Columns of one or several files: features, names of classes, names of groups."""

    names: tuple[str, ...]
    cells: list[Cells]
    labels: list[str]
    groups: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    named: bool = True  # by a header

    def __add__(self, other: Columns) -> Columns:
        """The rows of both."""
        cells = [one + another for one, another in zip(self.cells, other.cells, strict=True)]
        notes = [*self.notes, *other.notes]
        return Columns(self.names, cells, self.labels + other.labels, self.groups + other.groups, notes, self.named)


def read_table(
    file: Path,
    *,
    label: Column,
    features: Sequence[Column] | None = None,
    group: Column | None = None,
    categories: Sequence[Column] = (),
    missing: Sequence[str] | None = None,
    label_rule: LabelRule | None = None,
    header: bool = True,
    delimiter: str | None = None,
    decimal: Literal[".", ","] | None = None,
) -> Columns:
    """Read one file for :func:`table_splits`; arguments and errors are those of :func:`load_csv`."""
    delimiter = _delimiter_of(file) if delimiter is None else delimiter
    rows = _read_rows(file, delimiter)
    names = [cell.strip() for cell in rows.pop(0)[1]] if header and rows else None
    if not rows:
        raise DataError(f"{file}: holds no rows of data")
    width = len(names) if names is not None else len(rows[0][1])
    label_at, group_at, feature_at = _positions(label, group, features, names, width, file)
    named = [_position(column, names, width, file) for column in categories]
    for line, cells in rows:
        if len(cells) != width:
            raise DataError(f"{file}, line {line}: has {len(cells)} cells, expected {width}")
    texts = {at: [cells[at] for _, cells in rows] for at in feature_at}
    notes = []
    if decimal is None:
        commas = delimiter != "," and uses_decimal_commas([text for column in texts.values() for text in column])
        decimal = "," if commas else "."
        notes = [f"numbers of {file.name} are read with decimal commas"] if commas else []
    return Columns(
        names=tuple(names[at] if names is not None else f"column {at}" for at in feature_at),
        cells=[
            read_cells(
                column,
                [f"{file}, line {line}, column {at + 1}" for line, _ in rows],
                missing,
                decimal,
                category=at in named,
            )
            for at, column in texts.items()
        ],
        labels=[
            _class_of(cells[label_at].strip(), label_rule, missing, f"{file}, line {line}") for line, cells in rows
        ],
        groups=[cells[group_at].strip() for _, cells in rows] if group_at is not None else [],
        notes=notes,
        named=names is not None,
    )


def _read_parquet(file: Path, label: Column, features: Sequence[Column] | None, group: Column | None) -> Columns:
    pandas = require("pandas", "reading parquet", "'fedcl-distill[frames]'")
    require("pyarrow", "reading parquet", "pyarrow")
    try:
        frame = pandas.read_parquet(file)
    except Exception as error:  # what readers raise of damaged files has no end
        raise DataError(f"{file}: cannot be read as a parquet file: {error}") from error
    if not len(frame):
        raise DataError(f"{file}: holds no rows of data")
    names = [str(one) for one in frame.columns]
    label_at, group_at, feature_at = _positions(label, group, features, names, len(names), file)

    def texts(at: int, what: str) -> list[str]:
        found = series_texts(frame.iloc[:, at])
        if None in found:
            raise DataError(f"{file}, row {found.index(None)}: the {what} is missing")
        return [str(one) for one in found]

    return Columns(
        names=tuple(names[at] for at in feature_at),
        cells=[series_cells(frame.iloc[:, at], f"{file}: column {names[at]!r}") for at in feature_at],
        labels=texts(label_at, "label"),
        groups=texts(group_at, "group") if group_at is not None else [],
    )


def table_splits(
    columns: Columns,
    *,
    name: str,
    class_names: Sequence[str] | None = None,
    test_fraction: float = 0.2,
    seed: int = 0,
) -> Splits:
    """Encode, split, impute and normalise a table; see :func:`load_csv`."""
    classes = tuple(class_names or sorted(set(columns.labels), key=_numbers_by_value))
    group_names = tuple(sorted(set(columns.groups), key=_numbers_by_value))
    labels = _encode(columns.labels, classes, f"{name}: class")
    groups = _encode(columns.groups, group_names, f"{name}: group") if columns.groups else None
    strata = labels if groups is None else groups * len(classes) + labels
    train, test = stratified_split(strata, test_fraction, seed)
    known = train.tolist()
    fitted = [fit_column(one, cells, known) for one, cells in zip(columns.names, columns.cells, strict=True)]
    encoded = []
    for column, cells in zip(fitted, columns.cells, strict=True):
        values = encode_column(column, cells, "error", f"{name}: column {column.name!r}")
        untold = column.fill is not None and all(cells.values[row] is None for row in known)
        encoded.append(np.zeros_like(values) if untold else values)
    samples = torch.from_numpy(np.concatenate(encoded, axis=1)).float()
    names = tuple(one for column in fitted for one in column.feature_names)
    spec = DataSpec(
        tuple(samples.shape[1:]),
        classes,
        Normalisation.of(samples[train]),
        feature_names=names if columns.named or len(names) > len(fitted) else (),
    )
    notes = (
        *columns.notes,
        *_notes(fitted, columns.cells),
        f"held out {len(test)} of {len(samples)} rows for testing, a share of every class",
        *overlap_note(samples[train], samples[test]),
    )

    def part(rows: Tensor, known_values: Tensor, suffix: str) -> LabelledData:
        return LabelledData(
            samples=samples[rows],
            labels=labels[rows],
            spec=spec.covering(known_values),
            name=name + suffix,
            groups=None if groups is None else groups[rows],
            group_names=group_names,
            notes=notes,
        )

    # Training may not know how far the test values reach; the test data must.
    return Splits(train=part(train, samples[train], ""), test=part(test, samples, " (test)"))


def _notes(fitted: Sequence[FrameColumn], cells: Sequence[Cells]) -> Iterator[str]:
    """What became of categories and of missing values."""
    one_hot = [f"{column.name} ({len(column.categories)})" for column in fitted if column.fill is None]
    if one_hot:
        yield f"categories as features of 0 and 1: {', '.join(one_hot)}"
    lost = {column.name: (one.values.count(None), column.fill) for column, one in zip(fitted, cells, strict=True)}
    filled = [f"{name}: {count} as {fill:g}" for name, (count, fill) in lost.items() if count and fill is not None]
    if filled:
        yield f"missing values became the training rows' median or majority: {', '.join(filled)}"


def _delimiter_of(file: Path) -> str:
    if file.suffix.lower() == ".tsv":
        return "\t"
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            first = re.sub(r'"[^"]*"', "", stream.readline(1 << 20))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as a CSV file: {error}") from error
    return max(",;\t", key=first.count)


def _read_rows(file: Path, delimiter: str) -> list[tuple[int, list[str]]]:
    """The rows that hold anything, each with its line number."""
    if len(delimiter) != 1:
        raise SettingsError(f"delimiter must be one character, got {delimiter!r}")
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, delimiter=delimiter)
            return [(reader.line_num, cells) for cells in reader if any(cell.strip() for cell in cells)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file}: cannot be read as a CSV file: {error}") from error


def _positions(
    label: Column,
    group: Column | None,
    features: Sequence[Column] | None,
    names: list[str] | None,
    width: int,
    file: Path,
) -> tuple[int, int | None, list[int]]:
    """Where label, group and features stand."""
    label_at = _position(label, names, width, file)
    group_at = None if group is None else _position(group, names, width, file)
    if features is None:
        feature_at = [at for at in range(width) if at not in (label_at, group_at)]
    else:
        feature_at = [_position(column, names, width, file) for column in features]
    if not feature_at:
        raise DataError(f"{file}: there are no feature columns")
    if label_at in feature_at:
        raise DataError(f"{file}: column {label!r} is the label and cannot be a feature")
    return label_at, group_at, feature_at


def _position(column: Column, names: list[str] | None, width: int, file: Path) -> int:
    if isinstance(column, int) and not (names is not None and str(column) in names and not -width <= column < width):
        if not -width <= column < width:
            raise DataError(f"{file}: has {width} columns, none at position {column}")
        return column % width
    if names is None:
        raise SettingsError(f"column {column!r} is asked for by name, but header=False: give its position")
    times = names.count(str(column))
    if times != 1:
        raise DataError(f"{file}: has {times} columns named {column!r}, expected one; its columns: {names[:30]}")
    return names.index(str(column))


def _class_of(text: str, rule: LabelRule | None, missing: Sequence[str] | None, where: str) -> str:
    if rule is None:
        if is_missing(text, missing):
            raise DataError(f"{where}: the label is missing ({text!r})")
        return text
    try:
        return rule[text] if isinstance(rule, Mapping) else rule(text)
    except (KeyError, ValueError) as error:
        raise DataError(f"{where}: label_rule gives no class for {text!r}") from error


def _numbers_by_value(text: str) -> tuple[float, str]:
    try:
        return float(text), text
    except ValueError:
        return math.inf, text


def _encode(texts: Sequence[str], names: tuple[str, ...], what: str) -> Tensor:
    position = {name: i for i, name in enumerate(names)}
    unknown = sorted(set(texts) - set(names))
    if unknown:
        raise DataError(f"{what} {unknown[0]!r} is not one of {names}")
    return torch.tensor([position[text] for text in texts], dtype=torch.int64)


_HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")
_SOURCE = "https://archive.ics.uci.edu/dataset/45/heart+disease"


def load_heart(roots: Sequence[Path]) -> Splits:
    """Load ``heart/processed.{cleveland,hungarian,switzerland,va}.data`` from the first root that has them.

    13 features in the units of the files ('?' is missing; a cholesterol of 0 stays 0, as recorded), classes
    "healthy" and "disease" (last column above 0), one group a hospital. A fifth of each class of each
    hospital is held out, always the same rows.

    Raises:
        DataError: found nowhere, or damaged.
    """
    for folder in (root / "heart" for root in roots):
        if folder.is_dir():
            return _load(folder)
    searched = ", ".join(str(root / "heart") for root in roots)
    raise DataError(f"heart: not found; searched {searched}. Put the processed.*.data files of {_SOURCE} there")


def _load(folder: Path) -> Splits:
    table = reduce(add, (_read_hospital(folder, hospital) for hospital in _HOSPITALS))
    return table_splits(table, name="heart", class_names=("healthy", "disease"))


def _read_hospital(folder: Path, hospital: str) -> Columns:
    file = folder / f"processed.{hospital}.data"
    rows = read_table(file, label=-1, header=False, label_rule=_diagnosis, delimiter=",")
    if len(rows.cells) != 13:
        raise DataError(f"{file}: has {len(rows.cells)} features, expected 13")
    return replace(rows, groups=[hospital] * len(rows.labels))


def _diagnosis(cell: str) -> str:
    return "disease" if float(cell) > 0 else "healthy"
