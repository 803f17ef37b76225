"""UCI heart disease (Janosi et al. 1988): four hospitals, hence four natural federated clients."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedcl_distill.data.features_csv import Table, read_table, table_splits
from fedcl_distill.data.labelled import Splits
from fedcl_distill.errors import DataError

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
