"""Labelled data as Avalanche's benchmarks, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from avalanche.benchmarks import (
    benchmark_from_datasets,
    nc_benchmark,
    split_online_stream,
    with_classes_timeline,
)
from avalanche.benchmarks.utils import AvalancheDataset
from avalanche.benchmarks.utils.classification_dataset import _make_taskaware_classification_dataset
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from fedcl_distill.data import LabelledData, Splits
from fedcl_distill.errors import DataError, SettingsError
from fedcl_distill.synthetic import SyntheticSet
from strategies.continual.streams import DOMAINS, class_order, group_sizes

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


def class_incremental(splits: Splits, experiences: int, *, order_seed: int | None = None) -> Any:
    """Classes arrive in ``experiences`` groups, one after the other; the model is never told which group it sees.

    Where the classes do not divide evenly, the first experiences get one more: no class is left out.

    Args:
        splits: training and test data.
        experiences: how many.
        order_seed: draws the order of classes; None keeps it as numbered.

    Returns:
        An Avalanche benchmark with a train and a test stream, items (normalised input, label, task 0).

    Raises:
        SettingsError: there are fewer classes than experiences.
        DataError: a class has no training sample.
    """
    return _by_classes(splits, experiences, order_seed, tasks=False)


def task_incremental(splits: Splits, experiences: int, *, order_seed: int | None = None) -> Any:
    """As :func:`class_incremental`, but items carry the experience as their task label, and labels stay as they are.

    Who trains on it may look at the scores of the task's classes alone (see
    :class:`~strategies.continual.losses.MaskedLoss`), in training and in testing.

    Returns:
        An Avalanche benchmark with a train and a test stream, items (normalised input, label, task).

    Raises:
        SettingsError, DataError: as for :func:`class_incremental`.
    """
    return _by_classes(splits, experiences, order_seed, tasks=True)


def domain_incremental(splits: Splits, experiences: int, *, domain: str = "rotation") -> Any:
    """Every experience has all classes and all samples, each time seen otherwise.

    Args:
        splits: training and test data.
        experiences: how many.
        domain: "rotation" (images turned, up to 180 degrees), "permutation" (of pixels or features) or "inversion"
            (positives and negatives in turn); the same for every seed.

    Returns:
        An Avalanche benchmark with a train and a test stream, items (normalised input, label, task 0).

    Raises:
        SettingsError: the domain is unknown or does not fit the data, or there is no experience.
        DataError: a class has no training sample.
    """
    if domain not in DOMAINS:
        raise SettingsError(f"unknown domain {domain!r}; known: {', '.join(DOMAINS)}")
    if experiences < 1:
        raise SettingsError(f"a stream needs an experience, got {experiences}")
    splits.train.require_every_class()
    streams = {
        name: [_with_task(inputs_dataset(DOMAINS[domain](data, index, experiences))) for index in range(experiences)]
        for name, data in (("train", splits.train), ("test", splits.test))
    }
    return benchmark_from_datasets(**streams)


def in_parts(parts: Sequence[LabelledData]) -> Any:
    """Experiences that are there one by one, such as those of a client; one may be empty.

    Returns:
        An Avalanche benchmark with a train stream, items (normalised input, label, task 0).
    """
    datasets = [_with_task(inputs_dataset(part)) for part in parts]
    return with_classes_timeline(benchmark_from_datasets(train=datasets))


def in_mini_batches(experience: Any, size: int, *, seed: int) -> Any:
    """An experience as a stream of experiences of ``size`` samples, each seen once and in an order that ``seed`` fixes.

    Where the experience ends is not told: whoever trains on it learns without boundaries.
    """
    return split_online_stream([experience], size, access_task_boundaries=False, seed=seed)


def _by_classes(splits: Splits, experiences: int, order_seed: int | None, *, tasks: bool) -> Any:
    classes = splits.train.num_classes
    sizes = group_sizes(classes, experiences)
    splits.train.require_every_class()
    return nc_benchmark(
        inputs_dataset(splits.train),
        inputs_dataset(splits.test),
        n_experiences=experiences,
        task_labels=tasks,
        fixed_class_order=class_order(classes, order_seed),
        per_exp_classes=dict(enumerate(sizes)) if sizes[0] > sizes[-1] else None,
    )


def _with_task(dataset: InputsDataset) -> Any:
    return _make_taskaware_classification_dataset(dataset, task_labels=0)
