"""The network, and where data come from: a site's own CSV file, or a part of a public table in a simulation."""

from __future__ import annotations

import csv
import tomllib
from pathlib import Path

import numpy as np
import torch
from flwr.app import Context
from sklearn.datasets import load_breast_cancer
from torch import nn

from fedcl_distill.data import LabelledData, from_arrays, partition
from fedcl_distill.networks import register_network

TEST = 114  # samples of the simulation's table, the last ones, that belong to the server


@register_network("hospital-net")
class Net(nn.Module):
    """Two layers, for tables of any width; nodes build it by its name."""

    def __init__(self, sample_shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(sample_shape[0], 32)
        self.classifier = nn.Linear(32, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.relu(self.hidden(x)))


def load_data(context: Context) -> LabelledData:
    """What the node of ``context`` learns from: ``data-path`` of its configuration, else its ``partition-id``."""
    node = context.node_config
    if "data-path" in node:
        return read_site(Path(str(node["data-path"])))
    if "partition-id" not in node:
        raise ValueError("this node holds no data: its configuration names neither data-path nor partition-id")
    parts = partition(_table().subset(torch.arange(569 - TEST)), "dirichlet:1.0", int(node["num-partitions"]), seed=0)
    return parts[int(node["partition-id"])]


def load_test(path: str) -> LabelledData:
    """What the server tests on."""
    return read_site(Path(path)) if path else _table().subset(torch.arange(569 - TEST, 569))


def _table() -> LabelledData:
    table = load_breast_cancer()
    order = np.random.default_rng(0).permutation(len(table.data))
    names = [str(name) for name in table.target_names]
    columns = [str(name) for name in table.feature_names]
    return from_arrays(table.data[order], table.target[order], class_names=names, feature_names=columns)


def read_site(path: Path) -> LabelledData:
    """One site's CSV file, as ``path`` with ``.toml`` in place of ``.csv`` says that it is written.

    ``label``: the column of labels. ``labels``: what a label stands for. ``missing``: what stands for no value.
    ``codes.COLUMN``: the number that a text in this column stands for. ``delimiter``: one character.

    Columns may come in any order: the federation knows them by name. Missing values become the median of the column.
    """
    notes = path.expanduser().with_suffix(".toml")
    said = tomllib.loads(notes.read_text(encoding="utf-8")) if notes.exists() else {}
    label, missing = said.get("label", "label"), set(said.get("missing", ["", "?", "NA"]))
    with path.expanduser().open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file, delimiter=said.get("delimiter", ",")))
    if not rows:
        raise ValueError(f"{path}: holds no data")
    columns = [name for name in rows[0] if name != label]

    def number(column: str, text: str) -> float:
        codes = said.get("codes", {}).get(column, {})
        return float("nan") if text.strip() in missing else float(codes.get(text.strip(), text))

    values = np.array([[number(column, row[column]) for column in columns] for row in rows])
    empty = np.isnan(values).all(axis=0)
    values[:, empty] = 0.0
    filled = np.where(np.isnan(values), np.nanmedian(values, axis=0), values)
    labels = [said.get("labels", {}).get(row[label].strip(), row[label].strip()) for row in rows]
    return from_arrays(filled, labels, feature_names=columns, name=path.stem)
