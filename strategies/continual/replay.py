"""Replay from any memory as Avalanche plugins: uniform, MIR, GDumb, DER++, and fine-tuning on the memory."""

from __future__ import annotations

import time
from typing import Any, Protocol

import torch
from avalanche.core import SupervisedPlugin
from avalanche.models import avalanche_forward
from avalanche.models.utils import is_multi_task_module
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from fedcl_distill.augmentation import Augmentation
from fedcl_distill.data import DataSpec, LabelledData
from fedcl_distill.errors import SettingsError
from fedcl_distill.networks.base import micro_batches
from fedcl_distill.seeding import derive_seed, generator_for
from fedcl_distill.settings import Count, settings
from fedcl_distill.training import TrainConfig, fit
from strategies.continual.benchmarks import labelled_data, num_classes_of, tasks_of
from strategies.continual.buffer import LogitsOf, ReplayBatch, ReplayBuffer
from strategies.continual.losses import UNUSED, balanced_weights
from strategies.continual.memory import Memory

_INPUT_LABEL_TASK = 3


class Retrieval(Protocol):
    """Chooses what is replayed beside the current batch."""

    def __call__(self, strategy: Any, replay: Replay, count: int) -> ReplayBatch:
        """``count`` samples from ``replay``; the current batch, and nothing else, is in ``strategy.mbatch``."""
        ...


def uniform(strategy: Any, replay: Replay, count: int) -> ReplayBatch:
    """Any samples, drawn with replacement."""
    return replay.draw(count)


class Replay(SupervisedPlugin):  # type: ignore[misc]
    """Adds remembered samples to every training batch, and each experience to the memory when it is finished.

    Samples are drawn with replacement and in a fixed ratio to the current batch. Thus the weight of replay does not
    grow with the memory, and memories of different sizes can be compared (Avalanche's own loader goes through a
    memory once an epoch, and gives a large one more weight). Where the memory has soft labels, so has the whole batch:
    those of current samples are one-hot. Each remembered sample comes with its own task, so that a multi-head model
    sends it through its own head, also where every task numbers its classes from zero.

    Args:
        memory: any memory; distilled and reservoir replay differ in nothing else.
        like: what the benchmark's data look like: a spec, or data that carry one, of which no sample is kept. None
            reads classes, normalisation and range of values from the benchmark (see
            :func:`~strategies.continual.labelled_data`).
        ratio: remembered samples for each current one; at least one sample comes with each batch.
        augmentation: of remembered samples, drawn anew each time.
        retrieval: chooses what is replayed.
        early: take in each experience before training on it instead of after, so that its classes are replayed too.
        soft: replay soft labels where the memory has them; otherwise their most probable class.
        seed: fixes what is drawn.

    Attributes:
        memory, buffer: where samples are, and how they are drawn.
        batch: what was added to the current batch, at its end, from before the forward pass to after the loss.
        replayed: samples added to batches so far.
        bytes_kept: of the memory, after each experience.
        seconds, cpu_seconds: that the memory took to take in each experience, by the wall and by the processor.

    Raises:
        SettingsError, DataError: before an experience is trained on, if the memory cannot take it in, or if the model
            has several heads and the memory soft labels.
    """

    def __init__(
        self,
        memory: Memory,
        like: DataSpec | LabelledData | None = None,
        *,
        ratio: float = 1.0,
        augmentation: Augmentation | None = None,
        retrieval: Retrieval = uniform,
        early: bool = False,
        soft: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0 < ratio < float("inf"):
            raise SettingsError(f"ratio must be positive and finite, got {ratio}")
        self.buffer = ReplayBuffer(memory, like, augmentation=augmentation, soft=soft, seed=seed)
        self.memory = memory
        self.ratio = ratio
        self.batch: ReplayBatch | None = None
        self.replayed = 0
        self.bytes_kept: list[int] = []
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []
        self._retrieval = retrieval
        self._early = early
        self._soft = soft
        self._seed = seed
        self._drawing = False

    @property
    def holds_samples(self) -> bool:
        """Whether there is something to draw, in the experience under way."""
        return self._drawing and not self.buffer.is_empty()

    def draw(self, count: int) -> ReplayBatch:
        """``count`` remembered samples, drawn with replacement and augmented."""
        return self.buffer.draw(count)

    def draw_distinct(self, count: int) -> ReplayBatch:
        """``count`` different remembered samples, or all where there are fewer, in any order and augmented."""
        return self.buffer.draw_distinct(count)

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Look whether the experience can be taken in, and read the memory once for the whole of it."""
        self._check(strategy)
        if self._early:
            self._take_in(strategy)
        self._open(strategy.device)

    def before_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Append remembered samples, each with its own task, to the current batch."""
        self.batch = None
        if not (self.holds_samples and strategy.is_training):
            return
        count = max(1, round(self.ratio * len(strategy.mbatch[0])))
        self.batch = self._retrieval(strategy, self, count)
        inputs, labels, *tasks = strategy.mbatch
        strategy.mbatch = [
            torch.cat([inputs, self.batch.inputs]),
            _labels_together(labels, self.batch.labels),
            *(torch.cat([one, self.batch.tasks.to(one)]) for one in tasks),
        ]
        self.replayed += count

    def before_backward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """The loss is there, and the batch served its purpose."""
        self.batch = None

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Take in the experience."""
        if not self._early:
            self._take_in(strategy)

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        own = {"replayed": self.replayed, "bytes_kept": self.bytes_kept}
        spent = {"seconds": self.seconds, "cpu_seconds": self.cpu_seconds}
        return own | spent | {"buffer": self.buffer.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from another plugin's :meth:`state`."""
        self.buffer.restore(state["buffer"])
        self.replayed, self.bytes_kept = state["replayed"], state["bytes_kept"]
        self.seconds, self.cpu_seconds = state["seconds"], state["cpu_seconds"]

    def _check(self, strategy: Any) -> None:
        experience = strategy.experience
        if not len(experience.dataset):
            return
        if len(experience.dataset[0]) > _INPUT_LABEL_TASK:
            raise SettingsError("replay knows inputs, labels and tasks; items of the benchmark have further parts")
        if self._soft and self.memory.soft_labels and is_multi_task_module(strategy.model):
            raise SettingsError("soft labels do not fit several heads of different classes; pass soft=False")
        one = labelled_data(experience.dataset.subset([0]), self.buffer.like, widen=True)
        if not self.bytes_kept:
            self.buffer.check(one, num_classes_of(experience))

    def _open(self, device: Any) -> None:
        self.buffer.open(generator_for(self._seed, "replay", len(self.bytes_kept)), device)
        self._drawing = True

    def _take_in(self, strategy: Any) -> None:
        started, by_processor = time.monotonic(), time.process_time()
        experience = strategy.experience
        with torch.enable_grad():
            data = labelled_data(experience.dataset, self.buffer.like, widen=True)
            self.buffer.classes.reserve([str(label) for label in range(num_classes_of(experience))])
            self.buffer.add(data, tasks_of(experience.dataset), self._logits_of(strategy.model))
        self._drawing = False
        self.bytes_kept.append(self.buffer.bytes_kept)
        self.seconds.append(time.monotonic() - started)
        self.cpu_seconds.append(time.process_time() - by_processor)

    def _logits_of(self, network: nn.Module) -> LogitsOf | None:
        return None


def _labels_together(current: Tensor, remembered: Tensor) -> Tensor:
    if remembered.ndim > current.ndim:
        current = F.one_hot(current, remembered.shape[1]).to(remembered.dtype)
    return torch.cat([current, remembered])


@settings
class MIR:
    """Maximally interfered retrieval (Aljundi et al. 2019): replay what the current batch is about to spoil.

    Of more samples than needed, those whose loss a step on the current batch alone would raise most. Unlike Avalanche's
    plugin it leaves no class out, draws from any memory, soft labels too, and works however few samples are held.
    Candidates are distinct; where they are fewer than needed, all are replayed, the worst ones again.

    Attributes:
        candidates: samples looked at for each that is replayed (the paper: 50 for 10).

    Raises:
        SettingsError: on construction, if there are no candidates.
    """

    candidates: Count = 5

    def __call__(self, strategy: Any, replay: Replay, count: int) -> ReplayBatch:
        drawn = replay.draw_distinct(self.candidates * count)
        inputs, labels, *tasks = strategy.mbatch
        gain = interference(
            strategy.model,
            inputs,
            labels,
            drawn.inputs,
            drawn.labels,
            rate=strategy.optimizer.param_groups[0]["lr"],
            tasks=(tasks[0], drawn.tasks) if tasks else None,
        )
        order = gain.argsort(descending=True, stable=True)
        return drawn[order[torch.arange(count) % len(order)]]


def interference(
    network: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    others: Tensor,
    other_labels: Tensor,
    *,
    rate: float,
    tasks: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """float32 (m,): how much the cross entropy of each of ``others`` grows by a step of plain SGD on the batch.

    Args:
        network: unchanged afterwards.
        inputs, labels: the current batch.
        others, other_labels: (m, …) what might be replayed.
        rate: of the step.
        tasks: of the batch and of the others, where the network has several heads.
    """
    now, then = tasks if tasks is not None else (None, None)
    weights = dict(network.named_parameters())
    loss = F.cross_entropy(avalanche_forward(network, inputs, now), labels)
    gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    with torch.no_grad():
        moved = {
            name: one if gradient is None else one - rate * gradient
            for (name, one), gradient in zip(weights.items(), gradients, strict=True)
        }
        before = F.cross_entropy(avalanche_forward(network, others, then), other_labels, reduction="none")
        given = (others, then) if is_multi_task_module(network) else (others,)
        after = F.cross_entropy(functional_call(network, moved, given), other_labels, reduction="none")
    return after - before


class GDumb(Replay):
    """GDumb (Prabhu et al. 2020): the model learns from the memory alone, each time from the start.

    Takes in each experience before training, resets the model, and replaces current batches by remembered ones. Thus a
    model takes as many steps as under any other strategy. With a distilled memory this is what the field of dataset
    distillation does: training from scratch on a synthetic set. Avalanche's plugin goes through its memory once an
    epoch instead, which for a small one is a handful of steps.

    Args:
        memory, like, settings: see :class:`Replay`; the ratio says how large batches are beside current ones.
        network: what is trained; its weights now are those that each experience starts from. Heads that are added
            later start as they were when they came.
    """

    def __init__(
        self, memory: Memory, network: nn.Module, like: DataSpec | LabelledData | None = None, **settings: Any
    ) -> None:
        super().__init__(memory, like, early=True, **settings)
        self._start = _copied(network)

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        now = strategy.model.state_dict()
        grown = {name: one for name, one in _copied(strategy.model).items() if name not in self._start}
        self._start |= grown
        for name, start in self._start.items():
            if start.shape != now[name].shape:  # a head with more classes: those that it had, as they were
                start = _grown(start, now[name])
                self._start[name] = start
        strategy.model.load_state_dict(self._start, strict=False)
        strategy.optimizer.state.clear()
        super().before_training_exp(strategy)

    def before_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        count = len(strategy.mbatch[0])
        super().before_forward(strategy)
        if self.batch is not None:
            strategy.mbatch = [part[count:] for part in strategy.mbatch]


def _copied(network: nn.Module) -> dict[str, Tensor]:
    """Weights and running statistics, but not which outputs of a head are in use."""
    held = network.state_dict()
    return {name: one.clone() for name, one in held.items() if one.dtype != torch.int8}


def _grown(start: Tensor, now: Tensor) -> Tensor:
    whole = now.clone()
    whole[tuple(slice(size) for size in start.shape)] = start
    return whole


class DERpp(Replay):
    """DER++ (Buzzega et al. 2020): keeps the logits of every remembered sample beside any memory.

    A sample keeps the logits it got when it was first remembered. A sample that was distilled anew gets new ones. They
    are stored in 8 bits over their range, and count among the bytes kept: the memory's budget must leave room for them.
    Train with the loss :class:`~strategies.continual.DERppLoss`. Of a model with several heads the logits of the
    sample's own head are kept and compared, and no others.

    Args:
        memory, like, settings: see :class:`Replay`.
    """

    several_heads = False

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        self.several_heads = is_multi_task_module(strategy.model)
        super().before_training_exp(strategy)

    def logits_of(self, rows: Tensor) -> Tensor:
        """float32 (n, classes): the stored logits of the samples at ``rows``."""
        return self.buffer.logits_of(rows)

    def _logits_of(self, network: nn.Module) -> LogitsOf:
        return lambda inputs, tasks: _logits(network, inputs, tasks)


@torch.no_grad()
def _logits(network: nn.Module, inputs: Tensor, tasks: Tensor) -> Tensor:
    device, training = next(network.parameters()).device, network.training
    network.eval()
    parts = micro_batches(inputs, tasks)
    logits = torch.cat([avalanche_forward(network, part.to(device), task.to(device)).cpu() for part, task in parts])
    network.train(training)
    return logits.masked_fill(logits < UNUSED, 0.0) if is_multi_task_module(network) else logits


class FineTuning(SupervisedPlugin):  # type: ignore[misc]
    """Balanced fine-tuning (Castro et al. 2018, EEIL): at the end of an experience, some epochs on the memory alone.

    Whatever the stream did to the model, new and old classes then have the same say. It suits distilled memories: they
    teach more than as many real samples, to which a model was fitted long before (docs/continual.md).

    Args:
        replay: whose memory it is; it must come earlier among the plugins.
        train_config: of each fine-tuning.
        seed: fixes the order and the augmentation of samples.

    Raises:
        SettingsError: before training, if the model has several heads.
    """

    def __init__(self, replay: Replay, train_config: TrainConfig, *, seed: int = 0) -> None:
        super().__init__()
        self._replay = replay
        self._train_config = train_config
        self._seed = seed

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Refuse what cannot be fine-tuned."""
        if is_multi_task_module(strategy.model):
            raise SettingsError("fine-tuning on the memory trains one head, but the model has one for each task")

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Fine-tune, where there is something to do it on."""
        held = self._replay.buffer.everything()
        if held is None:
            return
        seed = derive_seed(self._seed, len(self._replay.bytes_kept))
        classes = held.labels if held.labels.ndim == 1 else held.labels.argmax(dim=1)
        weights = balanced_weights(classes, torch.float64)
        with torch.enable_grad():
            fit(strategy.model, held.inputs, held.labels, self._train_config, seed=seed, weights=weights)
