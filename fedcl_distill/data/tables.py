"""Readers of tables: CSV files, and the four hospitals of the UCI heart disease data."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from fedcl_distill.data.files import stratified_split
from fedcl_distill.data.labelled import LabelledData, Splits
from fedcl_distill.data.spec import DataSpec, Normalisation
from fedcl_distill.errors import DataError, SettingsError

Column = str | int
"""A column by its name in the header, or by its position (negative ones count from the end)."""

LabelRule = Mapping[str, str] | Callable[[str], str]
"""From the text of a label cell to the name of its class."""

TABLE_SUFFIXES = (".csv", ".tsv")

_LARGEST = torch.finfo(torch.float32).max


def load_csv(
    path: str | os.PathLike[str],
    *,
    label: Column,
    features: Sequence[Column] | None = None,
    group: Column | None = None,
    missing: Sequence[str] = ("", "?"),
    label_rule: LabelRule | None = None,
    class_names: Sequence[str] | None = None,
    header: bool = True,
    delimiter: str = ",",
    test_fraction: float = 0.2,
    seed: int = 0,
    name: str | None = None,
) -> Splits:
    """Load numeric features from a CSV file and hold out a part of every class (of every group) for testing.

    Missing values become the median of the training rows; a feature without any value in training becomes 0
    everywhere. The normalisation is measured on the training rows.

    Args:
        path: the file, UTF-8.
        label: the column of the labels.
        features: the columns of the features; default: all but ``label`` and ``group``.
        group: the column of natural groups, such as hospitals; they become ``LabelledData.groups``.
        missing: cell texts that stand for "no value" in a feature.
        label_rule: from label text to class name, such as ``{"0": "healthy", "1": "ill"}``; default: the text
            itself.
        class_names: the classes in the order of their labels; default: those found, sorted (numbers by
            value).
        header: whether the first row names the columns; without it, columns go by position.
        delimiter: one character.
        test_fraction: in (0, 1).
        seed: fixes the split.
        name: default the name of the file without its suffix.

    Returns:
        float32 samples (n, features) in the units of the file.

    Raises:
        DataError: no such file, no such column, ragged rows, text or NaN among the numbers, a missing label.
    """
    file = Path(path)
    table = read_table(
        file,
        label=label,
        features=features,
        group=group,
        missing=(missing,) if isinstance(missing, str) else missing,
        label_rule=label_rule,
        header=header,
        delimiter=delimiter,
    )
    return table_splits(table, class_names=class_names, test_fraction=test_fraction, seed=seed, name=name or file.stem)


@dataclass
class Table:
    """Rows of one or several files: features (NaN where missing), class names and group names; a header's names."""

    features: list[list[float]] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    feature_names: tuple[str, ...] = ()

    def __add__(self, other: Table) -> Table:
        names = self.feature_names or other.feature_names
        return Table(self.features + other.features, self.labels + other.labels, self.groups + other.groups, names)


def read_table(
    file: Path,
    *,
    label: Column,
    features: Sequence[Column] | None = None,
    group: Column | None = None,
    missing: Sequence[str] = ("", "?"),
    label_rule: LabelRule | None = None,
    header: bool = True,
    delimiter: str = ",",
) -> Table:
    """Read one file for :func:`table_splits`; arguments and errors are those of :func:`load_csv`."""
    rows = _read_rows(file, delimiter)
    names = [cell.strip() for cell in rows.pop(0)[1]] if header and rows else None
    if not rows:
        raise DataError(f"{file}: holds no rows of data")
    width = len(names) if names is not None else len(rows[0][1])
    label_at = _position(label, names, width, file)
    group_at = None if group is None else _position(group, names, width, file)
    if features is None:
        feature_at = [i for i in range(width) if i not in (label_at, group_at)]
    else:
        feature_at = [_position(column, names, width, file) for column in features]
    if not feature_at:
        raise DataError(f"{file}: there are no feature columns")
    table = Table(feature_names=tuple(names[at] for at in feature_at) if names is not None else ())
    for line, cells in rows:
        where = f"{file}, line {line}"
        if len(cells) != width:
            raise DataError(f"{where}: has {len(cells)} cells, expected {width}")
        table.features.append([_number(cells[i], missing, f"{where}, column {i + 1}") for i in feature_at])
        table.labels.append(_class_of(cells[label_at].strip(), label_rule, missing, where))
        if group_at is not None:
            table.groups.append(cells[group_at].strip())
    return table


def table_splits(
    table: Table,
    *,
    name: str,
    class_names: Sequence[str] | None = None,
    test_fraction: float = 0.2,
    seed: int = 0,
) -> Splits:
    """Encode, split, impute and normalise a table; see :func:`load_csv`."""
    classes = tuple(class_names or sorted(set(table.labels), key=_numbers_by_value))
    group_names = tuple(sorted(set(table.groups), key=_numbers_by_value))
    labels = _encode(table.labels, classes, f"{name}: class")
    groups = _encode(table.groups, group_names, f"{name}: group") if table.groups else None
    strata = labels if groups is None else groups * len(classes) + labels
    train, test = stratified_split(strata, test_fraction, seed)
    raw = torch.tensor(table.features, dtype=torch.float64)
    values = torch.where(raw.isnan(), _medians(raw[train]), raw)
    values[:, raw[train].isnan().all(dim=0)] = 0
    samples = values.float()
    spec = DataSpec(
        tuple(samples.shape[1:]), classes, Normalisation.of(samples[train]), feature_names=table.feature_names
    )

    def part(rows: Tensor, known_values: Tensor, suffix: str) -> LabelledData:
        return LabelledData(
            samples=samples[rows],
            labels=labels[rows],
            spec=replace(spec, value_range=(float(known_values.min()), float(known_values.max()))),
            name=name + suffix,
            groups=None if groups is None else groups[rows],
            group_names=group_names,
        )

    # Training may not know how far the test values reach; the test data must.
    return Splits(train=part(train, samples[train], ""), test=part(test, samples, " (test)"))


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


def _position(column: Column, names: list[str] | None, width: int, file: Path) -> int:
    if isinstance(column, int):
        if not -width <= column < width:
            raise DataError(f"{file}: has {width} columns, none at position {column}")
        return column % width
    if names is None:
        raise SettingsError(f"column {column!r} is asked for by name, but header=False: give its position")
    if names.count(column) != 1:
        times = names.count(column)
        raise DataError(f"{file}: has {times} columns named {column!r}, expected one; its columns: {names[:30]}")
    return names.index(column)


def _number(cell: str, missing: Sequence[str], where: str) -> float:
    text = cell.strip()
    if text in missing:
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not abs(value) <= _LARGEST:  # NaN fails every comparison
        raise DataError(f"{where}: {text[:50]!r} is no finite float32 number, and not among missing={tuple(missing)}")
    return value


def _class_of(text: str, rule: LabelRule | None, missing: Sequence[str], where: str) -> str:
    if rule is None:
        if text in missing:
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


def _medians(values: Tensor) -> Tensor:
    """Median of each column (of an even count, the mean of the middle two); NaN for an empty column."""
    return values.nanquantile(0.5, dim=0)


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
    table = sum((_read_hospital(folder, hospital) for hospital in _HOSPITALS), Table())
    return table_splits(table, name="heart", class_names=("healthy", "disease"))


def _read_hospital(folder: Path, hospital: str) -> Table:
    file = folder / f"processed.{hospital}.data"
    rows = read_table(file, label=-1, header=False, label_rule=_diagnosis)
    if len(rows.features[0]) != 13:
        raise DataError(f"{file}: has {len(rows.features[0])} features, expected 13")
    return Table(rows.features, rows.labels, [hospital] * len(rows.labels))


def _diagnosis(cell: str) -> str:
    return "disease" if float(cell) > 0 else "healthy"
