"""Training one network on labelled inputs: shared by evaluation, servers, clients and experts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedcl_distill.augmentation import Augmentation, NoAugmentation, Transform, as_augmentation, augmentation_for
from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.errors import DivergenceError, SettingsError
from fedcl_distill.networks import Architecture, default_architecture
from fedcl_distill.networks.base import Learning, micro_batch_size, micro_batches
from fedcl_distill.optimisers import Optimiser, Schedule, Scheduled, as_schedule, build_optimiser, check_optimiser
from fedcl_distill.registry import Plain
from fedcl_distill.seeding import derive_seed, generator_for
from fedcl_distill.settings import Count, Momentum, Natural, NonNegative, Positive, settings

_MARGIN = 1e-6  # rounding of the sums must not move a point to a neighbour


def check_weights(weights: Tensor, count: int) -> None:
    """Return if ``weights`` are ``count`` finite numbers above 0.

    Raises:
        SettingsError: they are not.
    """
    if weights.shape != (count,) or not weights.is_floating_point():
        raise SettingsError(
            f"{count} samples need float weights of shape ({count},), got {weights.dtype} {tuple(weights.shape)}"
        )
    if not (torch.isfinite(weights).all() and (weights > 0).all()):
        raise SettingsError("weights must be finite and positive")


def systematic_resample(weights: Tensor, generator: torch.Generator) -> Tensor:
    """int64 (n,), ascending: as many positions as there are weights, each as often as its weight says.

    Systematic resampling (Madow 1949): n evenly spaced points from one random start on the line of summed weights. A
    position of share p comes ⌊n·p⌋ or ⌈n·p⌉ times, n·p times in the mean; equal weights give every position once.

    Args:
        weights: float (n,), positive; only ratios count.
    """
    count = len(weights)
    ends = weights.double().cumsum(dim=0)
    start = torch.rand((), generator=generator, dtype=torch.float64).clamp(_MARGIN, 1 - _MARGIN)
    points = (torch.arange(count, dtype=torch.float64) + start) * (ends[-1] / count)
    return torch.searchsorted(ends, points, right=True).clamp(max=count - 1)


_FUSED = ("cpu", "cuda")
"""Devices where one pass over each weight does a step of SGD, three times as fast where networks are small."""


@settings
class TrainConfig:
    """How to train: by default plain SGD with momentum, as the field does.

    Attributes:
        epochs: passes over the training samples; 0 leaves a network as it is.
        learning_rate, momentum, weight_decay: of SGD; where an ``optimiser`` is given, they stay at their defaults and
            mean nothing.
        batch_size: samples a step; the last batch of a pass may be smaller.
        schedule: what multiplies the learning rate: "constant", "halfway" (×0.1 after half of the epochs), "cosine" (to
            0, step by step), a registered one, any function of the fraction of the training in [0, 1), or a class of
            ``torch.optim.lr_scheduler`` (a ``partial`` of one), which is told the end of each epoch.
        augmentation: drawn anew for every sample of every batch: an augmentation, any callable on a batch (see
            :class:`~fedcl_distill.augmentation.CallableAugmentation`), or the name of one.
        optimiser: in place of SGD: any callable that takes parameters, such as ``partial(torch.optim.AdamW, lr=1e-3)``,
            or a text such as "adam:learning_rate=0.001".

    Raises:
        SettingsError: on construction, if a value does not fit, or an optimiser is given and settings of SGD as well.

    Example:
        >>> TrainConfig(epochs=3, optimiser="adam", learning_rate=0.1)
        Traceback (most recent call last):
        fedcl_distill.errors.SettingsError: TrainConfig: give optimiser or learning_rate, not both
    """

    epochs: Natural
    learning_rate: Positive = 0.01
    momentum: Momentum = 0.9
    weight_decay: NonNegative = 5e-4
    batch_size: Count = 256
    schedule: Schedule | Plain = "halfway"
    augmentation: Augmentation | Transform | Plain = field(default_factory=NoAugmentation)
    optimiser: Optimiser | Plain | None = None

    def __post_init__(self) -> None:
        as_schedule(self.schedule)
        as_augmentation(self.augmentation)
        check_optimiser(self, *_OF_SGD)

    @classmethod
    def of(cls, optimiser: Optimiser | Plain | None, **settings: Any) -> TrainConfig:
        """A config with ``optimiser``, or with the settings of SGD among ``settings`` where that is None."""
        if optimiser is not None:
            settings = {name: value for name, value in settings.items() if name not in _OF_SGD}
        return cls(optimiser=optimiser, **settings)

    def steps(self, samples: int) -> int:
        """Steps of training on so many samples."""
        return self.epochs * -(-samples // self.batch_size)

    def build_optimiser(self, network: nn.Module) -> torch.optim.Optimizer:
        """The optimiser of all of ``network``'s weights.

        Raises:
            SettingsError: the callable fails, or gives no optimiser of them.
        """
        parameters = list(network.parameters())
        if self.optimiser is not None:
            return build_optimiser(self.optimiser, parameters)
        return torch.optim.SGD(
            parameters,
            lr=self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            fused=parameters[0].device.type in _FUSED,
        )


_OF_SGD = ("learning_rate", "momentum", "weight_decay")


def fit(
    network: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    train_config: TrainConfig,
    *,
    seed: int,
    weights: Tensor | None = None,
    keep_going: Callable[[], bool] | None = None,
    correct: Callable[[], None] | None = None,
) -> float:
    """Train ``network`` in place and return the mean loss of the last epoch.

    Args:
        network: any module that gives logits; batch norm sees whole batches, dropout draws from ``seed``.
        inputs: float32 (n, …) network inputs, on any device; batches move to the network's.
        labels: int64 (n,) classes, or float32 (n, classes) probabilities.
        seed: names every draw: batch order, augmentation, dropout.
        weights: float (n,), positive: how often a sample is seen, in relation to others; once an epoch in the mean.
            None counts all alike, as equal weights do.
        keep_going: asked after every step; training ends early where it says no.
        correct: called in every step once gradients are there: it may change them before the optimiser uses them.

    Raises:
        SettingsError: there is nothing to train on, or weights are not as above.
        DivergenceError: the loss stopped being finite.
    """
    if len(inputs) == 0:
        raise SettingsError("cannot train on an empty set")
    if weights is not None:
        check_weights(weights, len(inputs))
    device = next(network.parameters()).device
    inputs, labels = inputs.to(device), labels.to(device)
    optimiser = train_config.build_optimiser(network)
    schedule = Scheduled(optimiser, train_config.schedule)
    augmentation = as_augmentation(train_config.augmentation)
    learning = Learning(network)
    mean_loss = float("nan")
    steps_per_epoch = -(-len(inputs) // train_config.batch_size)
    for epoch in range(train_config.epochs):
        generator = generator_for(seed, "epoch", epoch)
        total, seen = 0.0, 0
        for position, batch in enumerate(_batches(len(inputs), train_config.batch_size, generator, weights)):
            schedule.at((epoch + position / steps_per_epoch) / train_config.epochs)
            with learning.step(len(batch), derive_seed(seed, "epoch", epoch, "network", position)):
                loss = _step(
                    network, optimiser, inputs[batch], labels[batch], augmentation, generator, correct, learning.whole
                )
            total += loss * len(batch)
            seen += len(batch)
            if keep_going is not None and not keep_going():
                return total / seen
        schedule.end_epoch()
        mean_loss = total / len(inputs)
        if not mean_loss < float("inf"):
            raise DivergenceError(f"training diverged: loss {mean_loss} in epoch {epoch + 1} of {train_config.epochs}")
    return mean_loss


@torch.no_grad()
def class_logits(network: nn.Module, data: LabelledData) -> Tensor:
    """float32 (n, classes), on the CPU: what ``network`` says of each sample of ``data``, before the softmax."""
    device = next(network.parameters()).device
    network.eval()
    if len(data) == 0:
        return torch.zeros(0, data.num_classes)
    size = micro_batch_size(data.samples[:1]) if device.type == "cpu" else 1024
    parts = [slice(start, start + size) for start in range(0, len(data), size)]
    return torch.cat([network(data.inputs(part).to(device)).cpu() for part in parts])


def predict(network: nn.Module, data: LabelledData) -> Tensor:
    """int64 (n,): the class that ``network`` gives to each sample of ``data``."""
    return class_logits(network, data).argmax(dim=1)


def accuracy(network: nn.Module, data: LabelledData) -> float:
    """Fraction of ``data`` classified correctly, in [0, 1]; NaN where there is no sample."""
    if len(data) == 0:
        return float("nan")
    return float((predict(network, data) == data.labels).double().mean())


def class_accuracies(predicted: Tensor, data: LabelledData) -> Tensor:
    """float64 (classes,): fraction of each class that ``predicted``, int64 (n,), has right; NaN for absent classes."""
    correct = (predicted == data.labels).double()
    return torch.bincount(data.labels, weights=correct, minlength=data.num_classes) / data.class_counts


def _batches(count: int, batch_size: int, generator: torch.Generator, weights: Tensor | None) -> Iterator[Tensor]:
    order = torch.randperm(count, generator=generator)
    if weights is not None:
        order = systematic_resample(weights.cpu(), generator)[order]
    yield from torch.split(order, batch_size)


def _step(
    network: nn.Module,
    optimiser: torch.optim.Optimizer,
    inputs: Tensor,
    labels: Tensor,
    augmentation: Augmentation,
    generator: torch.Generator,
    correct: Callable[[], None] | None,
    whole: bool,
) -> float:
    rows = torch.arange(len(inputs))
    draw = augmentation.draw(len(inputs), tuple(inputs.shape[1:]), generator)
    optimiser.zero_grad(set_to_none=True)
    total = 0.0
    for part, targets in micro_batches(draw(inputs, rows), labels, whole=whole):
        loss = F.cross_entropy(network(part), targets, reduction="sum") / len(inputs)
        loss.backward()  # type: ignore[no-untyped-call]
        total += loss.item()
    if correct is not None:
        correct()
    optimiser.step()
    return total


_MAX_SAMPLES = 200_000  # passes multiplied: four over 50,000 images, a few minutes on a small machine
_MAX_EPOCHS = 50
_MANY_SAMPLES = 2_000


def train_config_for(data: LabelledData) -> TrainConfig:
    """A train_config for ``data``: passes so that about 200,000 samples are seen, at most 50, and at least one.

    SGD with rate 0.02 falling to 0 along a half cosine, and the augmentation that suits the data; batches of 256, of 32
    where there are fewer than 2,000 samples, so that small data give enough steps.
    """
    epochs = max(1, min(_MAX_EPOCHS, _MAX_SAMPLES // max(len(data), 1)))
    batch_size = 256 if len(data) >= _MANY_SAMPLES else 32
    return TrainConfig(
        epochs=epochs,
        learning_rate=0.02,
        batch_size=batch_size,
        schedule="cosine",
        augmentation=augmentation_for(data),
    )


@settings
class Protocol:
    """A way of judging.

    Attributes:
        name: what results carry.
        train_config: how each network is trained on the synthetic set, by any optimiser, schedule and augmentation.
        networks: how many networks are trained, each from its own seed.
        width: of the ConvNet (or MLP), where no architecture is given.
        augment: train with the augmentation that suits the data (DSA for images), where ``train_config`` has none.
        max_samples: a network sees at most so many samples, passes multiplied, so that a large set does not take
            hours: it gets fewer epochs, yet as many steps. None: no bound.
    """

    name: str
    train_config: TrainConfig
    networks: Count
    width: Count
    augment: bool = True
    max_samples: Count | None = None

    def train_config_for(self, data: LabelledData, samples: int = 1) -> TrainConfig:
        """The train_config for a set of so many samples, with the augmentation that suits ``data``."""
        epochs = self.train_config.epochs
        if self.max_samples is not None:
            epochs = max(1, min(epochs, self.max_samples // max(samples, 1)))
        own = self.train_config.augmentation
        augmentation = augmentation_for(data, None if self.augment and own == NoAugmentation() else own)
        return replace(self.train_config, epochs=epochs, augmentation=augmentation)

    def architecture_for(self, data: LabelledData) -> Architecture:
        """The network to train where the caller names none."""
        return default_architecture(data.sample_shape, self.width)


FIELD = Protocol("field", TrainConfig(epochs=1000, schedule="halfway"), networks=5, width=128)
"""The field's own (Zhao et al. 2021 and code of their successors): 1000 epochs with DSA, SGD 0.01, ×0.1 half way."""

_FAST_TRAINING = TrainConfig(epochs=300, learning_rate=0.02, schedule="cosine")
FAST = Protocol("fast", _FAST_TRAINING, networks=3, width=64)
"""For small machines: a narrower network, a third of the epochs, a cosine schedule."""

QUICK = Protocol("quick", _FAST_TRAINING, networks=3, width=64, max_samples=60_000)
"""As fast, but sets of more than 200 samples get fewer epochs: for tables of many cells."""

BRIEF = Protocol("brief", _FAST_TRAINING, networks=1, width=32, augment=False, max_samples=15_000)
"""A quarter of the steps, without augmentation: where only large differences matter, as under attack."""

PROTOCOLS = {protocol.name: protocol for protocol in (FIELD, FAST, QUICK, BRIEF)}


def find_protocol(name: str) -> Protocol:
    """The protocol called ``name``.

    Raises:
        SettingsError: there is none.
    """
    if name not in PROTOCOLS:
        raise SettingsError(f"unknown protocol {name!r}; known: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
