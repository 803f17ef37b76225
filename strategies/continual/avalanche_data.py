"""Labelled data to Avalanche's datasets, and back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from fedcl_distill.data import LabelledData
from fedcl_distill.synthetic import SyntheticSet


class InputsDataset(TensorDataset):
    """Normalised inputs with labels, as Avalanche's benchmark generators want them.

    Attributes:
        targets: labels as a list, which Avalanche reads to tell classes apart.
    """

    def __init__(self, inputs: Tensor, labels: Tensor) -> None:
        super().__init__(inputs, labels)
        self.targets = labels.tolist()

    def __getitem__(self, index: int) -> tuple[Tensor, int]:  # type: ignore[override]
        return self.tensors[0][index], self.targets[index]


def inputs_dataset(data: LabelledData | SyntheticSet) -> InputsDataset:
    """``data`` as a dataset of normalised inputs and hard labels."""
    return InputsDataset(data.inputs(), data.labels if isinstance(data, LabelledData) else data.hard_labels)


def labelled_data(dataset: Dataset[Any], like: LabelledData) -> LabelledData:
    """What an experience holds, with the classes, normalisation and sample type of ``like``.

    Args:
        dataset: items begin with a normalised input and an integer label; what follows (a task) is left out.
        like: data of the same kind; its own samples are not looked at.

    Raises:
        DataError: a label or a value is outside what ``like`` allows.
    """
    batches = [(batch[0], batch[1]) for batch in DataLoader(dataset, batch_size=1024)]
    inputs = torch.cat([inputs for inputs, _ in batches])
    samples = like.normalisation.invert(inputs)
    if like.samples.dtype == torch.uint8:
        samples = samples.mul(255).round().clamp(0, 255).to(torch.uint8)
    labels = torch.cat([labels for _, labels in batches]).long()
    return replace(like, samples=samples, labels=labels, groups=None, group_names=(), name="experience")
