"""Labelled data to Avalanche's datasets, and back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from avalanche.benchmarks.utils import AvalancheDataset
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from fedcl_distill.data import LabelledData
from fedcl_distill.errors import DataError
from fedcl_distill.synthetic import SyntheticSet

_ROUNDING = 0.05  # pixel levels: what normalising and back may change, in float32


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
            An Avalanche dataset is read with its evaluation transforms: a memory keeps samples, not random views.
        like: data of the same kind; its own samples are not looked at.

    Raises:
        DataError: inputs that are not 8-bit images normalised as ``like`` where ``like`` holds such images, or a label
            or a value outside what ``like`` allows.
    """
    if len(dataset) == 0:  # type: ignore[arg-type]
        return like.subset(torch.zeros(0, dtype=torch.int64), "experience")
    inputs, labels = _read(dataset.eval() if isinstance(dataset, AvalancheDataset) else dataset)
    samples = like.normalisation.invert(inputs)
    if like.samples.dtype == torch.uint8:
        samples = _pixels(samples, like.name)
    return replace(like, samples=samples, labels=labels, groups=None, group_names=(), name="experience")


def _read(dataset: Any) -> tuple[Tensor, Tensor]:
    """float32 (n, …) inputs and int64 (n,) labels; item by item, for a loader draws from the global generator."""
    items = [dataset[index] for index in range(len(dataset))]
    return torch.stack([item[0] for item in items]), torch.tensor([int(item[1]) for item in items])


def _pixels(unit: Tensor, name: str) -> Tensor:
    """uint8 images whose values in [0, 1] are ``unit``."""
    levels = unit * 255
    pixels = levels.round().clamp(0, 255)
    if len(unit) and float((levels - pixels).abs().max()) > _ROUNDING:
        raise DataError(f"the experience does not hold 8-bit images normalised as {name}: not all values are pixels")
    return pixels.to(torch.uint8)
