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
from avalanche.benchmarks.utils import AvalancheDataset, FlatData
from avalanche.benchmarks.utils.classification_dataset import _make_taskaware_classification_dataset
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from fedcl_distill.data import DataSpec, LabelledData, Normalisation, Splits
from fedcl_distill.errors import DataError, SettingsError
from fedcl_distill.synthetic import SyntheticSet
from strategies.continual.memory import kind_without_samples
from strategies.continual.streams import DOMAINS, class_order, group_sizes, up_to

_ROWS_AT_ONCE = 256  # items in memory as a network reads them
_ROUNDING = 0.05  # pixel levels: what normalising and back may change, in float32


class InputsDataset(TensorDataset):
    """Normalised inputs with labels, as Avalanche's benchmark generators want them.

    Attributes:
        targets: labels as a list, which Avalanche reads to tell classes apart.
        like: data of the same kind, without samples, where that is known.
    """

    def __init__(self, inputs: Tensor, labels: Tensor, like: LabelledData | None = None) -> None:
        super().__init__(inputs, labels)
        self.targets = labels.tolist()
        self.like = None if like is None else kind_without_samples(like)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:  # type: ignore[override]
        return self.tensors[0][index], self.targets[index]


def inputs_dataset(data: LabelledData | SyntheticSet) -> InputsDataset:
    """``data`` as a dataset of normalised inputs and hard labels, which knows what they look like."""
    if isinstance(data, LabelledData):
        return InputsDataset(data.inputs(), data.labels, data)
    return InputsDataset(data.inputs(), data.hard_labels)


def labelled_data(
    dataset: Dataset[Any], like: DataSpec | LabelledData | None = None, *, widen: bool = False
) -> LabelledData:
    """What an experience holds, in the order of its items.

    Args:
        dataset: items begin with a network input and an integer label; what follows (a task) is left out: see
            :func:`tasks_of`. An Avalanche dataset is read with its evaluation transforms: a memory keeps samples, not
            random views. A random transform inside the user's own dataset is kept as it falls.
        like: what the data look like: a spec, or data that carry one, whose samples are not looked at. None finds out:
            data of this package say it; where the evaluation transforms end in a ``Normalize``, it is undone;
            everything else is kept as the network reads it, in the range of its values, with classes named by their
            numbers.
        widen: let values leave the range of ``like``, which then grows.

    Raises:
        DataError: inputs that are not 8-bit images normalised as ``like`` where ``like`` holds such images, a label or
            a value outside what ``like`` allows, or items that are no (tensor, integer label, …).
    """
    like = like if like is None else kind_without_samples(like)
    if len(dataset) == 0:  # type: ignore[arg-type]
        if like is None:
            raise DataError("an experience without samples does not say what its data look like")
        return replace(like, name="experience")
    evaluated = dataset.eval() if isinstance(dataset, AvalancheDataset) else dataset
    if like is None:
        like = kind_of(dataset)
    strict = like is not None and like.samples.dtype == torch.uint8
    normalisation = like.normalisation if like is not None else normalisation_of(dataset)
    samples, labels = _read(evaluated, normalisation, pixels=strict or like is None)
    if strict and samples.dtype != torch.uint8:
        assert like is not None
        raise DataError(
            f"the experience does not hold 8-bit images normalised as {like.name}: not all values are pixels"
        )
    if like is None:
        return _measured(samples, labels, normalisation)
    span = like.value_range
    if widen and samples.dtype != torch.uint8:
        span = min(span[0], float(samples.min())), max(span[1], float(samples.max()))
    spec = replace(like.spec, value_range=span)
    return replace(like, samples=samples, labels=labels, spec=spec, groups=None, group_names=(), name="experience")


def tasks_of(dataset: Dataset[Any]) -> Tensor:
    """int64 (n,): the task label of each item; 0 where items carry none."""
    told = getattr(dataset, "targets_task_labels", None)
    if told is None or len(dataset[0]) < 3:
        return torch.zeros(len(dataset), dtype=torch.int64)  # type: ignore[arg-type]
    return torch.tensor([int(task) for task in told], dtype=torch.int64)


def kind_of(dataset: Any) -> LabelledData | None:
    """Data of the kind of ``dataset``, without samples, where it was made by :func:`inputs_dataset`; else None."""
    leaf, _, chain = first_item(dataset, "eval")
    return leaf.like if isinstance(leaf, InputsDataset) and not chain else None


def normalisation_of(dataset: Any) -> Normalisation | None:
    """That of the ``Normalize`` in which the evaluation transforms of an Avalanche dataset end; else None."""
    _, _, chain = first_item(dataset, "eval")
    mean, std = (getattr(chain[-1], name, None) for name in ("mean", "std")) if chain else (None, None)
    if mean is None or std is None:
        return None
    try:
        return Normalisation(tuple(map(float, mean)), tuple(map(float, std)))
    except (TypeError, ValueError):
        return None


def first_item(dataset: Any, group: str) -> tuple[Any, Any, list[Any]]:
    """Where the first item comes from: the user's own dataset, its item there, and the transforms on the way, flat.

    Args:
        dataset: an Avalanche dataset, or any other, which has no transforms on the way.
        group: of transforms: "train" or "eval".
    """
    levels, index = [], 0
    node = dataset._flat_data if isinstance(dataset, AvalancheDataset) else dataset
    while isinstance(node, FlatData):
        levels.append(node)
        place, index = node._get_idx(index)
        node = node._datasets[place]
        node = node._flat_data if isinstance(node, AvalancheDataset) else node
    chain: list[Any] = []
    for level in reversed(levels):
        for name in ("_frozen_transform_groups", "_transform_groups"):
            transform = getattr(level, name)[group] if hasattr(level, name) else None
            chain += [] if transform is None else transform.flat_transforms(0)
    return node, node[index], chain


def num_classes_of(experience: Any) -> int:
    """How many outputs the labels of a whole benchmark take, as far as it tells; at least those of ``experience``."""
    benchmark = getattr(experience, "benchmark", None) or getattr(experience.origin_stream, "benchmark", None)
    stream: Any = getattr(benchmark, "train_stream", None)
    others = list(stream) if hasattr(stream, "__len__") else []
    return 1 + max(max(map(int, one.dataset.targets), default=-1) for one in (experience, *others))


def _read(dataset: Any, normalisation: Normalisation | None, *, pixels: bool) -> tuple[Tensor, Tensor]:
    """Samples in unit values, in 8 bits if asked for and all are ``pixels``, and int64 (n,) labels.

    Item by item, for a loader draws from the global generator; in parts, for images of 8 bits take a quarter of the
    room that network inputs do.
    """
    parts, labels = [], []
    for rows in torch.split(torch.arange(len(dataset)), _ROWS_AT_ONCE):
        items = [dataset[index] for index in rows.tolist()]
        try:
            inputs = torch.stack([item[0] for item in items]).float()
            labels += [int(item[1]) for item in items]
        except (TypeError, ValueError, RuntimeError) as error:
            raise DataError(f"items must begin with a tensor of one shape and an integer label: {error}") from error
        unit = inputs if normalisation is None else normalisation.invert(inputs)
        parts.append(_pixels(unit) if pixels and normalisation is not None and inputs.ndim == 4 else unit)
    if len({part.dtype for part in parts}) > 1:
        parts = [part.float() / 255 if part.dtype == torch.uint8 else part for part in parts]
    return torch.cat(parts), torch.tensor(labels)


def _measured(samples: Tensor, labels: Tensor, normalisation: Normalisation | None) -> LabelledData:
    """Data that nobody described; unit values from 0 to 1 count as those of pixels."""
    plain = Normalisation((0.0,) * samples.shape[1], (1.0,) * samples.shape[1])
    inside = normalisation is not None and float(samples.min()) >= 0 and float(samples.max()) <= 1
    return LabelledData.from_tensors(
        samples,
        labels,
        class_names=up_to(labels),
        normalisation=normalisation or plain,
        value_range=(0.0, 1.0) if inside and samples.dtype != torch.uint8 else None,
        name="experience",
        allow_hflip=False,
    )


def _pixels(unit: Tensor) -> Tensor:
    """uint8 images whose values in [0, 1] are ``unit``; ``unit`` itself where not all values are pixels."""
    levels = unit * 255
    pixels = levels.round().clamp(0, 255)
    exact = float((levels - pixels).abs().max()) <= _ROUNDING
    return pixels.to(torch.uint8) if exact else unit


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
