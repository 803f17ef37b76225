"""A replay buffer for any training loop: a memory, the tasks of what it holds, logits beside it. Needs no Avalanche."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fedcl_distill.augmentation import Augmentation, NoAugmentation
from fedcl_distill.data import DataSpec, LabelledData, Normalisation
from fedcl_distill.errors import DataError, SettingsError
from fedcl_distill.seeding import generator_for
from fedcl_distill.synthetic import SyntheticSet, quantisation_error
from fedcl_distill.synthetic.quantise import Range, dequantise, quantise
from strategies.continual.memory import Memory, kind_without_samples
from strategies.continual.streams import up_to

LogitsOf = Callable[[Tensor, Tensor], Tensor]
"""float32 (n, classes) logits of inputs (n, …) whose tasks are int64 (n,)."""

_LOGIT_BITS = 8
RANGE_BYTES = 8
_NO_TASK = -1
_ROUNDING = 1e-4


@dataclass(frozen=True)
class ReplayBatch:
    """Remembered samples.

    Attributes:
        inputs: float32 (n, …) network inputs.
        labels: int64 (n,) classes, or float32 (n, classes) probabilities.
        tasks: int64 (n,) task labels; 0 where a stream has none.
        rows: int64 (n,), on the CPU: where they are in the memory.
    """

    inputs: Tensor
    labels: Tensor
    tasks: Tensor
    rows: Tensor

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, chosen: Tensor) -> ReplayBatch:
        return ReplayBatch(self.inputs[chosen], self.labels[chosen], self.tasks[chosen], self.rows[chosen.cpu()])


class TaskClasses:
    """Which class of a memory stands for which label of which task.

    A memory knows classes alone. A label of one task keeps its number there; where another task uses the same label,
    for something else or for the same in other looks, that is a class of its own, numbered after all others. So what is
    remembered never mixes tasks, and every remembered sample knows its own.

    Args:
        names: of the labels, as far as they are known.
    """

    def __init__(self, names: tuple[str, ...] = ()) -> None:
        self.names = list(names)
        self._tasks = [_NO_TASK] * len(names)
        self._labels = list(range(len(names)))
        self._width = len(names)

    def classes_of(self, labels: Tensor, tasks: Tensor) -> Tensor:
        """int64 (n,): the memory's classes of int64 (n,) ``labels`` of ``tasks``; those that are new get a number."""
        known = {pair: one for one, pair in enumerate(zip(self._tasks, self._labels, strict=True))}
        pairs, which = torch.unique(torch.stack([tasks, labels], dim=1), dim=0, return_inverse=True)
        numbers = [known[pair] if pair in known else self._added(*pair) for pair in map(tuple, pairs.tolist())]
        return torch.tensor(numbers, dtype=torch.int64)[which]

    def labels_of(self, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Labels and int64 (n,) tasks of classes, int64 (n,), or of probabilities, float32 (n, classes).

        Probabilities stay within the task that has most of them: no head answers for another one's classes.
        """
        labels, tasks = torch.tensor(self._labels), torch.tensor(self._tasks).clamp(min=0)
        if classes.ndim == 1:
            return labels[classes], tasks[classes]
        known = torch.unique(tasks)
        if len(known) == 1 and self._width == len(self.names):
            return classes, known.expand(len(classes))
        own = known[torch.stack([classes[:, tasks == task].sum(dim=1) for task in known], dim=1).argmax(dim=1)]
        inside = classes * (tasks == own[:, None])
        folded = classes.new_zeros(len(classes), self._width).index_add_(1, labels, inside)
        return folded / folded.sum(dim=1, keepdim=True), own

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return {"names": list(self.names), "tasks": self._tasks, "labels": self._labels, "width": self._width}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from another table's :meth:`state`."""
        self.names, self._width = list(state["names"]), state["width"]
        self._tasks, self._labels = list(state["tasks"]), list(state["labels"])

    def reserve(self, names: Sequence[str]) -> None:
        """Let there be labels of these ``names``, where no class had to be added for another task yet."""
        if self._width == len(self.names):
            for label in range(self._width, len(names)):
                self._append(_NO_TASK, label, names[label])
            self._width = len(self.names)

    def _added(self, task: int, label: int) -> int:
        self.reserve([str(one) for one in range(label + 1)])
        if label < self._width and self._tasks[label] == _NO_TASK:
            self._tasks[label] = task
            return label
        self._width = max(self._width, label + 1)
        return self._append(task, label, f"{label} of task {task}")

    def _append(self, task: int, label: int, name: str) -> int:
        self._tasks.append(task)
        self._labels.append(label)
        self.names.append(name)
        return len(self.names) - 1


class Logits:
    """The logits that remembered samples got when they were first remembered, in 8 bits over their range.

    A sample is found again among those held before by its values, up to what storing them again may change.

    Args:
        bits: in which the memory stores values.
    """

    def __init__(self, bits: int = 8) -> None:
        self._bits = bits
        self._codes = torch.zeros(0, 0, dtype=torch.uint8)
        self._span = (0.0, 0.0)

    @property
    def bytes_kept(self) -> int:
        return self._codes.numel() + RANGE_BYTES

    def at(self, rows: Tensor) -> Tensor:
        """float32 (n, classes): of the samples at ``rows``."""
        return torch.from_numpy(dequantise(self._codes[rows].numpy(), Range(*self._span), _LOGIT_BITS))

    def update(self, held: SyntheticSet, before: SyntheticSet | None, tasks: Tensor, logits_of: LogitsOf) -> None:
        """Follow the memory from ``before`` to ``held``; ``logits_of`` answers for samples that are new."""
        logits = logits_of(held.inputs(), tasks)
        if before is not None:
            now, then = found_again(held, before, self._bits)
            old = self.at(then)
            logits[now] = F.pad(old, (0, logits.shape[1] - old.shape[1]))  # a head may have grown
        if not torch.isfinite(logits).all():
            raise SettingsError("logits belong to the samples that they came with, but the memory makes its own")
        span = Range.of(logits.numpy())
        self._span = (span.low, span.high)
        self._codes = torch.from_numpy(quantise(logits.numpy(), span, _LOGIT_BITS))

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        return {"codes": self._codes, "span": list(self._span)}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from another's :meth:`state`."""
        self._codes, self._span = state["codes"], (state["span"][0], state["span"][1])


def found_again(held: SyntheticSet, before: SyntheticSet, bits: int) -> tuple[Tensor, Tensor]:
    """Positions of samples in ``held`` that ``before`` held too, and where it had them."""
    slack = sum(max(quantisation_error(one, bits).values()) for one in (held, before))
    now, then = held.inputs().flatten(1), before.inputs().flatten(1)
    pairs = []
    for label in before.class_counts.nonzero().flatten().tolist():
        rows = torch.nonzero(before.hard_labels == label).flatten()
        for row in torch.nonzero(held.hard_labels == label).flatten().tolist():
            distance = (then[rows] - now[row]).abs().amax(dim=1)
            if float(distance.min()) <= slack:
                pairs.append((row, int(rows[distance.argmin()])))
    found = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)
    return found[:, 0], found[:, 1]


class ReplayBuffer:
    """What a training loop needs of a memory: it takes tensors in and gives batches back, with the task of each sample.

    ``add_data`` and ``get_data`` are those of mammoth's buffers (Boschini et al. 2022), with a bound in bytes in place
    of one in samples; distilled memories are given whole experiences, not single batches.

    Args:
        memory: any.
        like: what the data look like (a spec, or data that carry one, whose samples do not count and are not kept).
            None reads them from what comes: values are kept as networks read them, in the range that they have.
        augmentation: of what is drawn, anew each time.
        soft: give soft labels where the memory has them; otherwise their most probable class.
        seed: fixes what is drawn.

    Example:
        >>> from strategies.continual import ReservoirMemory
        >>> buffer = ReplayBuffer(ReservoirMemory(4_000))
        >>> buffer.add_data(torch.randn(100, 1, 8, 8), torch.arange(100) % 2, task_labels=0)
        >>> buffer.add_data(torch.randn(100, 1, 8, 8), torch.arange(100) % 2, task_labels=1)
        >>> images, labels, tasks = buffer.get_data(32)
        >>> images.shape, sorted(set(tasks.tolist())), buffer.bytes_kept <= 4_000
        (torch.Size([32, 1, 8, 8]), [0, 1], True)
    """

    def __init__(
        self,
        memory: Memory,
        like: DataSpec | LabelledData | None = None,
        *,
        augmentation: Augmentation | None = None,
        soft: bool = True,
        seed: int = 0,
    ) -> None:
        self.memory = memory
        self.like = None if like is None else kind_without_samples(like)
        self.classes = TaskClasses(() if like is None else like.class_names)
        self._augmentation = augmentation or NoAugmentation()
        self._soft = soft
        self._seed = seed
        self._additions = 0
        self._logits: Logits | None = None
        self._held: SyntheticSet | None = None
        self._stale = True

    @property
    def bytes_kept(self) -> int:
        """Of the memory and of logits. Which task a class belongs to is bookkeeping and not counted."""
        return self.memory.bytes_kept + (0 if self._logits is None else self._logits.bytes_kept)

    def __len__(self) -> int:
        """Samples that can be drawn."""
        held = self._read()
        return 0 if held is None else len(held)

    def is_empty(self) -> bool:
        """Whether there is nothing to draw."""
        return len(self) == 0

    def add_data(
        self,
        examples: Tensor,
        labels: Tensor,
        logits: Tensor | None = None,
        task_labels: Tensor | int | None = None,
    ) -> None:
        """Take in samples, and draw from all that is held then.

        Args:
            examples: float (n, channels, height, width) or (n, features), as the network reads them.
            labels: int64 (n,).
            logits: float32 (n, classes), to be given back with the samples: from the first call on, or never.
            task_labels: int64 (n,), or one for all; None for a stream without tasks.

        Raises:
            SettingsError: the bytes hold no sample, or logits are given to a memory that makes samples of its own.
            DataError: shapes or types do not fit, or differ from those before.
        """
        tasks = torch.as_tensor(0 if task_labels is None else task_labels).cpu().long().expand(len(labels))
        data = self._described(examples.detach().cpu().float(), labels.detach().cpu().long())
        if (logits is None) != (self._logits is None) and self._additions:
            raise DataError("logits come with every sample or with none")
        if logits is None:
            self.add(data, tasks)
            return
        given = logits.detach().cpu().float()
        self.add(data, tasks, lambda inputs, _: self._given(inputs, data, given))

    def add(self, data: LabelledData, tasks: Tensor, logits_of: LogitsOf | None = None) -> None:
        """Take in ``data``, whose labels are those of int64 (n,) ``tasks``, and draw from all that is held then."""
        before = None if logits_of is None else self.memory.recall()
        self.memory.add(self.in_memory(data, tasks))
        self._additions += 1
        held = None if logits_of is None else self.memory.recall()
        if logits_of is not None and held is not None:
            known = before if self._logits is not None else None
            self._logits = self._logits or self._no_logits()
            self._logits.update(held, known, self.classes.labels_of(held.labels)[1], logits_of)
        self._stale = True

    def in_memory(self, data: LabelledData, tasks: Tensor) -> LabelledData:
        """``data`` with the memory's classes for labels."""
        self.classes.reserve(data.class_names)
        classes = self.classes.classes_of(data.labels, tasks)
        names = tuple(self.classes.names)
        if names == data.class_names and torch.equal(classes, data.labels):
            return data
        return replace(data, labels=classes, spec=replace(data.spec, class_names=names))

    def check(self, data: LabelledData, classes: int) -> None:
        """Return if data like ``data``, of so many classes, can be taken in.

        Raises:
            SettingsError: the bytes hold no sample.
            DataError: the data are of another kind than what is held.
        """
        names = (*data.class_names, *(str(label) for label in range(data.num_classes, classes)))
        held = self.memory.recall()
        if held is not None and held.sample_shape != data.sample_shape:
            raise DataError(f"the memory holds samples of shape {held.sample_shape}, the new ones: {data.sample_shape}")
        self.memory.check(data.with_spec(class_names=names))

    def open(self, generator: torch.Generator, device: Any = "cpu") -> None:
        """Read the memory once, to draw from it with ``generator`` and put samples on ``device``."""
        self._stale = False
        self._generator = generator
        self._held = self.memory.recall()
        if self._held is not None:
            self.classes.reserve(self._held.class_names)
            stored = self._held.labels if self._soft else self._held.hard_labels
            labels, tasks = self.classes.labels_of(stored)
            self._inputs, self._labels = self._held.inputs().to(device), labels.to(device)
            self._tasks = tasks.to(device)

    def everything(self) -> ReplayBatch | None:
        """All that is held, not augmented; None for nothing."""
        if self._read() is None:
            return None
        return ReplayBatch(self._inputs, self._labels, self._tasks, torch.arange(len(self)))

    def draw(self, count: int) -> ReplayBatch:
        """``count`` remembered samples, drawn with replacement and augmented."""
        return self._at(torch.randint(len(self), (count,), generator=self._generator))

    def draw_distinct(self, count: int) -> ReplayBatch:
        """``count`` different remembered samples, or all where there are fewer, in any order and augmented."""
        return self._at(torch.randperm(len(self), generator=self._generator)[:count])

    def get_data(self, size: int, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        """``size`` samples drawn with replacement: inputs, labels, then logits if there are any, and tasks.

        Args:
            size: how many; the same sample may come twice.
            generator: on the CPU; None draws on from the buffer's seed.

        Raises:
            DataError: nothing is remembered yet.
        """
        if self._read() is None:
            raise DataError("nothing is remembered yet")
        rows = torch.randint(len(self), (size,), generator=generator or self._generator)
        batch = self._at(rows)
        logits = () if self._logits is None else (self._logits.at(rows).to(batch.inputs.device),)
        return batch.inputs, batch.labels, *logits, batch.tasks

    def logits_of(self, rows: Tensor) -> Tensor:
        """float32 (n, classes): the stored logits of the samples at ``rows``."""
        if self._logits is None:
            raise DataError("no logits are kept")
        return self._logits.at(rows)

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        logits = None if self._logits is None else self._logits.state()
        own = {"classes": self.classes.state(), "additions": self._additions, "logits": logits}
        return own | {"memory": self.memory.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from another buffer's :meth:`state`, made with the same settings."""
        self.memory.restore(state["memory"])
        self.classes.restore(state["classes"])
        self._additions = state["additions"]
        if state["logits"] is not None:
            self._logits = self._no_logits()
            self._logits.restore(state["logits"])
        self._stale = True

    def _read(self) -> SyntheticSet | None:
        """What is held; read again where something was added since."""
        if self._stale:
            self.open(generator_for(self._seed, "replay", self._additions))
        return self._held

    def _at(self, rows: Tensor) -> ReplayBatch:
        held = self._read()
        if held is None:
            raise DataError("nothing is remembered yet")
        count = len(rows)
        augment = self._augmentation.draw(count, held.sample_shape, self._generator)
        inputs = augment(self._inputs[rows], torch.arange(count))
        return ReplayBatch(inputs, self._labels[rows], self._tasks[rows], rows)

    def _described(self, examples: Tensor, labels: Tensor) -> LabelledData:
        """Samples as they came, in unit values where it is known what these are."""
        if self.like is not None:
            samples, span = self.like.normalisation.invert(examples), self.like.value_range
            if self.like.samples.dtype == torch.uint8:
                samples = (samples * 255).round().clamp(0, 255).to(torch.uint8)
            elif len(samples):
                span = min(span[0], float(samples.min())), max(span[1], float(samples.max()))
            spec = replace(self.like.spec, value_range=span)
            return replace(self.like, samples=samples, labels=labels, spec=spec)
        channels = examples.shape[1] if examples.ndim > 1 else 0
        plain = Normalisation((0.0,) * channels, (1.0,) * channels)
        return LabelledData.from_tensors(examples, labels, class_names=up_to(labels), normalisation=plain)

    def _no_logits(self) -> Logits:
        return Logits(getattr(self.memory, "bits", 8))

    def _given(self, inputs: Tensor, data: LabelledData, logits: Tensor) -> Tensor:
        """The logits that came with those of ``data`` that ``inputs`` are; NaN for what is none of them."""
        held = self.memory.recall()
        assert held is not None
        slack = max(quantisation_error(held, getattr(self.memory, "bits", 8)).values())
        distance, nearest = torch.cdist(inputs.flatten(1), data.inputs().flatten(1), p=float("inf")).min(dim=1)
        found: Tensor = logits[nearest].masked_fill((distance > slack + _ROUNDING)[:, None], float("nan"))
        return found
