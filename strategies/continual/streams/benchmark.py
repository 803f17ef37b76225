"""A data set as a stream of experiences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from avalanche.benchmarks import (
    benchmark_from_datasets,
    nc_benchmark,
    split_online_stream,
    with_classes_timeline,
)
from avalanche.benchmarks.utils.classification_dataset import _make_taskaware_classification_dataset

from fedcl_distill.data import LabelledData, Splits
from fedcl_distill.errors import SettingsError
from strategies.continual.streams.avalanche_data import InputsDataset, inputs_dataset
from strategies.continual.streams.class_groups import class_order, group_sizes
from strategies.continual.streams.domains import DOMAINS


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
    :class:`~strategies.continual.replay.losses.WithinTask`), in training and in testing.

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
