"""Replay from any memory as Avalanche plugins: uniform, MIR, GDumb, DER++, and fine-tuning on the memory."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from avalanche.core import SupervisedPlugin
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from fedcl_distill.augmentation import Augmentation, NoAugmentation
from fedcl_distill.data import LabelledData
from fedcl_distill.micro_batches import micro_batches
from fedcl_distill.seeding import derive_seed, generator_for
from fedcl_distill.synthetic import SyntheticSet, quantisation_error
from fedcl_distill.synthetic.quantise import Floats, Range, dequantise, quantise
from fedcl_distill.training import TrainConfig, fit
from strategies.continual.benchmarks import labelled_data
from strategies.continual.losses import balanced_weights
from strategies.continual.memory import Memory


@dataclass(frozen=True)
class ReplayBatch:
    """Remembered samples.

    Attributes:
        inputs: float32 (n, …) network inputs.
        labels: int64 (n,) classes, or float32 (n, classes) probabilities.
        rows: int64 (n,): where they are in the memory.
    """

    inputs: Tensor
    labels: Tensor
    rows: Tensor

    def __getitem__(self, chosen: Tensor) -> ReplayBatch:
        return ReplayBatch(self.inputs[chosen], self.labels[chosen], self.rows[chosen.cpu()])


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
    those of current samples are one-hot.

    Args:
        memory: any memory; distilled and reservoir replay differ in nothing else.
        like: data of the same kind as the benchmark's: classes, normalisation, value range.
        ratio: remembered samples for each current one.
        augmentation: of remembered samples, drawn anew each time.
        retrieval: chooses what is replayed.
        early: take in each experience before training on it instead of after, so that its classes are replayed too.
        soft: replay soft labels where the memory has them; otherwise their most probable class.
        seed: fixes what is drawn.

    Attributes:
        batch: what was added to the current batch, at its end, from before the forward pass to after the loss.
        replayed: samples added to batches so far.
        bytes_kept: of the memory, after each experience.
        seconds, cpu_seconds: that the memory took to take in each experience, by the wall and by the processor.
    """

    def __init__(
        self,
        memory: Memory,
        like: LabelledData,
        *,
        ratio: float = 1.0,
        augmentation: Augmentation | None = None,
        retrieval: Retrieval = uniform,
        early: bool = False,
        soft: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.memory = memory
        self.ratio = ratio
        self.batch: ReplayBatch | None = None
        self.replayed = 0
        self.bytes_kept: list[int] = []
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []
        self._like = like
        self._augmentation = augmentation or NoAugmentation()
        self._retrieval = retrieval
        self._early = early
        self._soft = soft
        self._seed = seed
        self._held: SyntheticSet | None = None
        self._generator = torch.Generator()

    @property
    def holds_samples(self) -> bool:
        """Whether there is something to draw, in the experience under way."""
        return self._held is not None

    def draw(self, count: int) -> ReplayBatch:
        """``count`` remembered samples, drawn with replacement and augmented."""
        return self._at(torch.randint(self._size, (count,), generator=self._generator))

    def draw_distinct(self, count: int) -> ReplayBatch:
        """``count`` different remembered samples, or all where there are fewer, in any order and augmented."""
        return self._at(torch.randperm(self._size, generator=self._generator)[:count])

    @property
    def _size(self) -> int:
        return 0 if self._held is None else len(self._held)

    def _at(self, rows: Tensor) -> ReplayBatch:
        if self._held is None:
            raise RuntimeError("nothing is remembered yet")
        count = len(rows)
        augment = self._augmentation.draw(count, self._held.sample_shape, self._generator)
        return ReplayBatch(augment(self._inputs[rows], torch.arange(count)), self._labels[rows], rows)

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Read the memory once for the whole experience."""
        if self._early:
            self._take_in(strategy)
        self._open(strategy.device)

    def before_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Append remembered samples to the current batch; other parts of it, such as tasks, repeat their first."""
        self.batch = None
        if not (self.holds_samples and strategy.is_training):
            return
        count = round(self.ratio * len(strategy.mbatch[0]))
        self.batch = self._retrieval(strategy, self, count)
        inputs, labels, *others = strategy.mbatch
        added = [part[:1].expand(count, *part.shape[1:]) for part in others]
        strategy.mbatch = [
            torch.cat([inputs, self.batch.inputs]),
            _labels_together(labels, self.batch.labels),
            *(torch.cat(pair) for pair in zip(others, added, strict=True)),
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
        return own | spent | {"memory": self.memory.state()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from another plugin's :meth:`state`."""
        self.memory.restore(state["memory"])
        self.replayed, self.bytes_kept = state["replayed"], state["bytes_kept"]
        self.seconds, self.cpu_seconds = state["seconds"], state["cpu_seconds"]

    def _open(self, device: Any) -> None:
        self._held = self.memory.recall()
        self._generator = generator_for(self._seed, "replay", len(self.bytes_kept))
        if self._held is not None:
            self._inputs = self._held.inputs().to(device)
            self._labels = (self._held.labels if self._soft else self._held.hard_labels).to(device)

    def _take_in(self, strategy: Any) -> None:
        started, by_processor = time.monotonic(), time.process_time()
        with torch.enable_grad():
            self._remember(labelled_data(strategy.experience.dataset, self._like), strategy.model)
        self.bytes_kept.append(self._bytes_now())
        self.seconds.append(time.monotonic() - started)
        self.cpu_seconds.append(time.process_time() - by_processor)

    def _remember(self, data: LabelledData, network: nn.Module) -> None:
        self.memory.add(data)

    def _bytes_now(self) -> int:
        return self.memory.bytes_kept


def _labels_together(current: Tensor, remembered: Tensor) -> Tensor:
    if remembered.ndim > current.ndim:
        current = F.one_hot(current, remembered.shape[1]).to(remembered.dtype)
    return torch.cat([current, remembered])


@dataclass(frozen=True)
class MIR:
    """Of more samples than needed, those whose loss a step on the current batch alone would raise most.

    Unlike Avalanche's plugin it leaves no class out, draws from any memory, soft labels too, and works however few
    samples are held. Candidates are distinct; where they are fewer than needed, all are replayed, the worst ones again.

    Attributes:
        candidates: samples looked at for each that is replayed (the paper: 50 for 10).
    """

    candidates: int = 5

    def __call__(self, strategy: Any, replay: Replay, count: int) -> ReplayBatch:
        drawn = replay.draw_distinct(self.candidates * count)
        gain = interference(
            strategy.model,
            strategy.mbatch[0],
            strategy.mbatch[1],
            drawn.inputs,
            drawn.labels,
            rate=strategy.optimizer.param_groups[0]["lr"],
        )
        order = gain.argsort(descending=True, stable=True)
        return drawn[order[torch.arange(count) % len(order)]]


def interference(
    network: nn.Module, inputs: Tensor, labels: Tensor, others: Tensor, other_labels: Tensor, *, rate: float
) -> Tensor:
    """float32 (m,): how much the cross entropy of each of ``others`` grows by a step of plain SGD on the batch.

    Args:
        network: unchanged afterwards.
        inputs, labels: the current batch.
        others, other_labels: (m, …) what might be replayed.
        rate: of the step.
    """
    weights = dict(network.named_parameters())
    loss = F.cross_entropy(network(inputs), labels)
    gradients = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    with torch.no_grad():
        moved = {
            name: one if gradient is None else one - rate * gradient
            for (name, one), gradient in zip(weights.items(), gradients, strict=True)
        }
        before = F.cross_entropy(network(others), other_labels, reduction="none")
        after = F.cross_entropy(functional_call(network, moved, (others,)), other_labels, reduction="none")
    return after - before


class GDumb(Replay):
    """Takes in each experience before training, resets the model, and replaces current batches by remembered ones.

    Thus a model takes as many steps as under any other strategy. With a distilled memory this is what the field of
    dataset distillation does: training from scratch on a synthetic set. Avalanche's plugin goes through its memory once
    an epoch instead, which for a small one is a handful of steps.

    Args:
        memory, like, settings: see :class:`Replay`; the ratio says how large batches are beside current ones.
        network: what is trained; its weights now are those that each experience starts from.
    """

    def __init__(self, memory: Memory, like: LabelledData, network: nn.Module, **settings: Any) -> None:
        super().__init__(memory, like, early=True, **settings)
        self._start = {name: tensor.clone() for name, tensor in network.state_dict().items()}

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        strategy.model.load_state_dict(self._start)
        strategy.optimizer.state.clear()
        super().before_training_exp(strategy)

    def before_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        count = len(strategy.mbatch[0])
        super().before_forward(strategy)
        if self.batch is not None:
            strategy.mbatch = [part[count:] for part in strategy.mbatch]


_SCORE_BITS = 8
RANGE_BYTES = 8


class DERpp(Replay):
    """Keeps the scores (logits) of every remembered sample beside any memory (Buzzega et al. 2020).

    A sample keeps the scores it got when it was first remembered: it is found again among those held before by its
    values, up to what storing them again may change. A sample that was distilled anew gets new scores. They are stored
    in 8 bits over their range, and count among the bytes kept: the memory's budget must leave room for them.

    Args:
        memory, like, settings: see :class:`Replay`.
        bits: in which the memory stores values.
    """

    def __init__(self, memory: Memory, like: LabelledData, *, bits: int = 8, **settings: Any) -> None:
        super().__init__(memory, like, **settings)
        self._bits = bits

    _codes: Tensor = torch.zeros(0, 0, dtype=torch.uint8)
    _span: tuple[float, float] = (0.0, 0.0)

    def scores_of(self, rows: Tensor) -> Tensor:
        """float32 (n, classes): the stored scores of the samples at ``rows``."""
        return torch.from_numpy(dequantise(self._codes[rows].numpy(), Range(*self._span), _SCORE_BITS))

    def state(self) -> dict[str, Any]:
        return super().state() | {"codes": self._codes, "span": list(self._span)}

    def restore(self, state: dict[str, Any]) -> None:
        super().restore(state)
        self._codes = state["codes"]
        self._span = (state["span"][0], state["span"][1])

    def _remember(self, data: LabelledData, network: nn.Module) -> None:
        before = self.memory.recall()
        self.memory.add(data)
        held = self.memory.recall()
        if held is None:
            return
        scores = _scores(network, held.inputs())
        if before is not None:
            old, rows = _found_again(held, before, self._bits)
            scores[old] = self.scores_of(rows)
        self._store(scores.numpy())

    def _store(self, scores: Floats) -> None:
        span = Range.of(scores)
        self._span = (span.low, span.high)
        self._codes = torch.from_numpy(quantise(scores, span, _SCORE_BITS))

    def _bytes_now(self) -> int:
        return super()._bytes_now() + self._codes.numel() + RANGE_BYTES


def _found_again(held: SyntheticSet, before: SyntheticSet, bits: int) -> tuple[Tensor, Tensor]:
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


@torch.no_grad()
def _scores(network: nn.Module, inputs: Tensor) -> Tensor:
    device, training = next(network.parameters()).device, network.training
    network.eval()
    scores = torch.cat([network(part.to(device)).cpu() for (part,) in micro_batches(inputs)])
    network.train(training)
    return scores


class FineTuning(SupervisedPlugin):  # type: ignore[misc]
    """Balanced fine-tuning (Castro et al. 2018, EEIL): at the end of an experience, some epochs on the memory alone.

    Whatever the stream did to the model, new and old classes then have the same say. It suits distilled memories: they
    teach more than as many real samples, to which a model was fitted long before (docs/continual.md).

    Args:
        replay: whose memory it is; it must come earlier among the plugins.
        train_config: of each fine-tuning.
        seed: fixes the order and the augmentation of samples.
    """

    def __init__(self, replay: Replay, train_config: TrainConfig, *, seed: int) -> None:
        super().__init__()
        self._replay = replay
        self._train_config = train_config
        self._seed = seed

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Fine-tune, where there is something to do it on."""
        held = self._replay.memory.recall()
        if held is None:
            return
        seed = derive_seed(self._seed, len(self._replay.bytes_kept))
        weights = balanced_weights(held.hard_labels, torch.float64)
        with torch.enable_grad():
            fit(strategy.model, held.inputs(), held.labels, self._train_config, seed=seed, weights=weights)
