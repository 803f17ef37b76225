"""A memory as one of Avalanche's storage policies, for its own plugins."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from avalanche.benchmarks.utils import AvalancheDataset, as_classification_dataset
from avalanche.benchmarks.utils.classification_dataset import (
    _make_taskaware_classification_dataset as with_tasks,
)
from avalanche.training.storage_policy import ExemplarsBuffer
from torch import Tensor
from torch.utils.data import Dataset

from fedcl_distill.data import DataSpec, LabelledData, Normalisation
from fedcl_distill.errors import DataError, SettingsError
from strategies.continual.benchmarks import first_item, labelled_data, normalisation_of, num_classes_of, tasks_of
from strategies.continual.buffer import ReplayBuffer
from strategies.continual.memory import Memory

_LOG = logging.getLogger(__name__)
_LEVEL = 1.01 / 255  # of a pixel in [0, 1]


class MemoryBuffer(ExemplarsBuffer):  # type: ignore[misc]
    """Keeps a memory behind the interface of Avalanche's buffers.

    Its items are like those of the experience: network inputs, or images with the experience's own transforms on them,
    so that remembered samples are augmented anew each time as Avalanche's own are; each has its own task label. Labels
    are the most probable classes. It keeps no training data beside what the memory holds.

    Args:
        memory: distilled, reservoir, or any other.
        mem_size: what Avalanche calls the size, in samples, and plugins want to be told; the memory's bytes bound it in
            truth.
        like: what the data look like: a spec, or data that carry one, of which no sample is kept. None reads classes,
            normalisation and range of values from the benchmark.
        benchmark: what will be trained on, to look at once whether the memory can take it in. Without it that is seen
            at the end of the first experience, for Avalanche does not tell a policy what is about to be trained on.

    Raises:
        SettingsError, DataError: the memory cannot take in what ``benchmark`` has.

    Example:
        policy = MemoryBuffer(ReservoirMemory(20_000), mem_size=200, benchmark=benchmark)
        plugin = ReplayPlugin(mem_size=200, storage_policy=policy)
    """

    def __init__(
        self, memory: Memory, mem_size: int, *, like: DataSpec | LabelledData | None = None, benchmark: Any = None
    ) -> None:
        super().__init__(mem_size)
        self.memory = memory
        self._replay = ReplayBuffer(memory, like, soft=False)
        for experience in () if benchmark is None else benchmark.train_stream:
            one = labelled_data(experience.dataset.subset([0]), self._replay.like, widen=True)
            self._replay.check(one, num_classes_of(experience))

    def post_adapt(self, agent_state: Any, exp: Any) -> None:
        """Take in the experience."""
        data = labelled_data(exp.dataset, self._replay.like, widen=True)
        self._replay.classes.reserve([str(label) for label in range(num_classes_of(exp))])
        self._replay.add(data, tasks_of(exp.dataset))
        held = self._replay.everything()
        if held is not None:
            self.buffer = _in_the_image_of(exp.dataset, held.inputs, held.labels, held.tasks)

    def resize(self, strategy: Any, new_size: int) -> None:
        """Refuse: a memory is bounded in bytes when it is made.

        Raises:
            SettingsError: ``new_size`` is another than ``max_size``.
        """
        if new_size != self.max_size:
            raise SettingsError(f"a memory of bytes keeps its bound; asked to go from {self.max_size} to {new_size}")


@dataclass(frozen=True)
class RawForm:
    """How remembered samples become what the transforms of a benchmark start from.

    Attributes:
        kind: "input" (as the network reads it), "unit" (values before normalisation), or 8-bit images: "tensor",
            "array" or "pil".
        normalisation: from unit values to network inputs.
        planes: whether an image has a dimension of channels.
    """

    kind: str = "input"
    normalisation: Normalisation | None = None
    planes: bool = True

    @classmethod
    def of(cls, raw: Any, normalisation: Normalisation | None) -> RawForm:
        """The form of ``raw``, an item of the user's own dataset; DataError for what is none of the above."""
        if isinstance(raw, Tensor) and raw.is_floating_point():
            return cls("input" if normalisation is None else "unit", normalisation)
        eight_bits = isinstance(raw, Tensor | np.ndarray) and raw.dtype in (torch.uint8, np.uint8)
        kind = "tensor" if isinstance(raw, Tensor) else "array" if isinstance(raw, np.ndarray) else "pil"
        if (kind != "pil" and not eight_bits) or (kind == "pil" and not hasattr(raw, "convert")):
            raise DataError(f"a {type(raw).__name__} is no image or tensor that samples could be turned into")
        return cls(kind, normalisation, kind == "pil" or raw.ndim == 3)  # type: ignore[union-attr]

    def __call__(self, inputs: Tensor) -> Any:
        """``inputs``, float32 (channels, …), in this form; values beyond [0, 1] are cut off in 8 bits."""
        if self.kind == "input":
            return inputs
        unit = inputs if self.normalisation is None else self.normalisation.invert(inputs[None])[0]
        if self.kind == "unit":
            return unit
        pixels = (unit * 255).round().clamp(0, 255).to(torch.uint8)
        if self.kind == "tensor":
            return pixels if self.planes else pixels[0]
        array = pixels.permute(1, 2, 0).numpy() if self.planes and len(pixels) > 1 else pixels[0].numpy()
        if self.kind == "array":
            return array[..., None] if self.planes and array.ndim == 2 else array
        from PIL import Image

        return Image.fromarray(array)


class RememberedDataset(Dataset[tuple[Any, int]]):
    """Remembered samples in the form of a benchmark's raw items, with integer labels.

    Attributes:
        targets: labels as a list, which Avalanche reads to tell classes apart.
    """

    def __init__(self, inputs: Tensor, labels: Tensor, form: RawForm) -> None:
        self._inputs = inputs
        self._form = form
        self.targets = labels.tolist()

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self._form(self._inputs[index]), self.targets[index]


@dataclass(frozen=True)
class Chain:
    """Transforms one after the other."""

    transforms: tuple[Any, ...]

    def __call__(self, value: Any) -> Any:
        for transform in self.transforms:
            value = transform(value)
        return value


def _in_the_image_of(dataset: AvalancheDataset, inputs: Tensor, labels: Tensor, tasks: Tensor) -> AvalancheDataset:
    """What is held, with items of the same parts as ``dataset``'s and the same transforms on them.

    Avalanche concatenates buffer and experience, and fails later, inside a collate function, where they differ.
    """
    form, groups = _form_and_transforms(dataset)
    held = RememberedDataset(inputs, labels, form)
    if len(dataset[0]) > 2:
        return with_tasks(held, task_labels=tasks.tolist(), transform_groups=groups)
    return as_classification_dataset(held, transform_groups=groups)


def _form_and_transforms(dataset: AvalancheDataset) -> tuple[RawForm, dict[str, Chain] | None]:
    """In which form remembered samples go through the transforms of ``dataset``, and these; as they are for none.

    Whether that works is tried: an item, as the network reads it, must come back from its raw form as it was.
    """
    _, raw, evaluated = first_item(dataset, "eval")
    groups = {"train": Chain(tuple(first_item(dataset, "train")[2])), "eval": Chain(tuple(evaluated))}
    if not any(chain.transforms for chain in groups.values()):
        return RawForm(), None
    normalisation = normalisation_of(dataset)
    item = dataset.eval()[0][0]
    try:
        form = RawForm.of(raw[0], normalisation)
        again = groups["eval"](form(item))
        std = torch.ones(len(item)) if normalisation is None else torch.tensor(normalisation.std)
        slack = (_LEVEL / std).view(-1, *[1] * (item.ndim - 1)) if form.kind not in ("input", "unit") else 1e-4
        if again.shape == item.shape and bool(((again - item).abs() <= slack).all()):
            return form, groups
        why = "they do not lead from a sample of the network's size back to it"
    except Exception as error:  # somebody else's transforms, on something that they were not made for
        why = f"{type(error).__name__}: {error}"
    _LOG.warning("remembered samples are replayed as they are, without the training transforms: %s", why)
    return RawForm(), None
