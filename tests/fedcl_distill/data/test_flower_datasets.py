"""The adapter for Flower Datasets, with doubles that follow that package's published interface."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fedcl_distill.data import FlowerDatasetsPartitioner, LabelledData, partition
from fedcl_distill.errors import DataError, DependencyError, SettingsError


class FakeDataset:
    """The part of ``datasets.Dataset`` that is used: columns by name, rows by position."""

    def __init__(self, columns: dict[str, list[Any]]) -> None:
        self.columns = columns

    @classmethod
    def from_dict(cls, columns: dict[str, list[Any]]) -> FakeDataset:
        return cls(columns)

    def __getitem__(self, column: str) -> list[Any]:
        return self.columns[column]

    def select(self, rows: list[int]) -> FakeDataset:
        return FakeDataset({name: [values[row] for row in rows] for name, values in self.columns.items()})


class ByLabel:
    """Like ``NaturalIdPartitioner(partition_by="label")``; the data set may be set once only, as there."""

    def __init__(self, column: str = "label", lose: int = 0) -> None:
        self.column = column
        self.lose = lose
        self._dataset: FakeDataset | None = None

    @property
    def dataset(self) -> FakeDataset:
        assert self._dataset is not None
        return self._dataset

    @dataset.setter
    def dataset(self, value: FakeDataset) -> None:
        if self._dataset is not None:
            raise ValueError("The dataset should be assigned only once to the partitioner.")
        self._dataset = value

    @property
    def num_partitions(self) -> int:
        return len(set(self.dataset[self.column]))

    def load_partition(self, partition_id: int) -> FakeDataset:
        values = self.dataset[self.column]
        wanted = sorted(set(values))[partition_id]
        rows = [row for row, value in enumerate(values) if value == wanted]
        return self.dataset.select(rows[::-1][self.lose :])


@pytest.fixture
def data() -> LabelledData:
    made = LabelledData.from_tensors(torch.arange(6.0)[:, None], torch.tensor([2, 0, 1, 0, 2, 2]))
    return LabelledData(
        **{**made.__dict__, "groups": torch.tensor([1, 1, 0, 0, 1, 0]), "group_names": ("north", "south")}
    )


@pytest.fixture
def datasets_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(Dataset=FakeDataset))


@pytest.mark.usefixtures("datasets_installed")
def test_partitions_come_back_as_positions_and_the_partitioner_can_be_reused(data: LabelledData) -> None:
    rule = FlowerDatasetsPartitioner(ByLabel())
    for _ in range(2):
        assert [part.tolist() for part in rule.split(data, 3, seed=0)] == [[1, 3], [2], [0, 4, 5]]


@pytest.mark.usefixtures("datasets_installed")
def test_natural_groups_are_a_column(data: LabelledData) -> None:
    parts = partition(data, FlowerDatasetsPartitioner(ByLabel("group")), 2)
    assert [part.samples.flatten().tolist() for part in parts] == [[2, 3, 5], [0, 1, 4]]


@pytest.mark.usefixtures("datasets_installed")
def test_what_does_not_fit_is_refused(data: LabelledData) -> None:
    with pytest.raises(SettingsError, match="makes 3 partitions, 2 clients"):
        partition(data, FlowerDatasetsPartitioner(ByLabel()), 2)
    with pytest.raises(DataError, match="loses or repeats"):
        partition(data, FlowerDatasetsPartitioner(ByLabel(lose=1)), 3)
    with pytest.raises(DataError, match="min_size is 2"):
        partition(data, FlowerDatasetsPartitioner(ByLabel()), 3, min_size=2)


def test_without_the_package_the_error_says_what_to_install(
    data: LabelledData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DependencyError, match="pip install flwr-datasets"):
        partition(data, FlowerDatasetsPartitioner(ByLabel()), 3)
