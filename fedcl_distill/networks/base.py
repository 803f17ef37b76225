"""What every network offers: stages, an embedding, a linear classifier; and how many samples pass it at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from fedcl_distill.errors import SettingsError
from fedcl_distill.registry import Registry
from fedcl_distill.seeding import generator_for, isolated_rng

_CPU_VALUES = 32 * 1024  # values of the input; what a network makes of them is some hundred times as large


def micro_batch_size(inputs: Tensor) -> int:
    """Samples of ``inputs`` (n, …) that one pass should take.

    On a CPU, activations that fit its caches make a pass up to twice as fast as those of a whole batch, which are
    written to memory and read back by every layer; about 32 images of 32×32 pixels are best (ConvNet-3, widths 32 to
    128). Other devices take everything at once. Results differ by rounding alone, for no layer here mixes samples;
    whoever trains networks that do (batch norm) asks for the ``whole`` batch.
    """
    if inputs.device.type != "cpu":
        return max(1, len(inputs))
    return max(16, _CPU_VALUES // math.prod(inputs.shape[1:]))


def micro_batches(*tensors: Tensor, whole: bool = False) -> list[tuple[Tensor, ...]]:
    """``tensors``, of equal length, cut alike into chunks that suit the first; a single one if it must be ``whole``."""
    if whole:
        return [tensors]
    size = micro_batch_size(tensors[0])
    return list(zip(*(torch.split(tensor, size) for tensor in tensors), strict=True))


def as_device(device: str | torch.device) -> torch.device:
    """The device that ``device`` names; "auto" is a GPU (CUDA, else MPS) where torch finds one, else the CPU.

    Raises:
        SettingsError: there is no such device, or not on this machine.

    Example:
        >>> as_device("cpu")
        device(type='cpu')
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise SettingsError(f"unknown device {device!r}; give 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'") from error
    count = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}.get(found.type)
    if count is not None and (found.index or 0) >= count:
        raise SettingsError(
            f"device {str(device)!r} is not there: torch finds {count} of type {found.type!r}; take 'auto' or 'cpu'"
        )
    return found


PRECISIONS = ("float32", "bfloat16")

B = TypeVar("B", bound=Callable[..., nn.Module])

NETWORKS: Registry[nn.Module] = Registry("network", "fedcl_distill.networks")
"""Builders of networks by name; packages add theirs by entry points of the group ``fedcl_distill.networks``."""


@dataclass(frozen=True)
class Points:
    """Where a module has what methods look at, by the dotted names of its submodules; see :func:`as_network`."""

    embedding: str | None = None
    head: str | None = None
    stages: tuple[str, ...] = ()


def register_network(
    name: str, *, embedding: str | None = None, head: str | None = None, stages: Sequence[str] = ()
) -> Callable[[B], B]:
    """A decorator that registers a network by name: in Python, on command lines, on clients and in memories.

    What it decorates is an ``nn.Module`` class, or a function that returns a module. It is given, by name, those of
    these that its signature has: ``num_classes`` (or ``n_classes``); ``sample_shape`` (or ``input_shape``), (channels,
    height, width) or (features,); ``in_channels`` (or ``num_channels``, ``in_chans``); ``in_features``, the number of
    all values of a sample. Its other parameters are options: ``"mine:width=8"``.

    Args:
        name: without blanks and none of ``: , = [ ]``.
        embedding, head, stages: submodules, where they cannot be found; see :func:`as_network`.

    Example:
        >>> from torch import nn
        >>> @register_network("tiny")
        ... class Tiny(nn.Sequential):
        ...     def __init__(self, in_features: int, num_classes: int, width: int = 16) -> None:
        ...         super().__init__(
        ...             nn.Flatten(), nn.Linear(in_features, width), nn.ReLU(), nn.Linear(width, num_classes)
        ...         )
        >>> from fedcl_distill import Architecture
        >>> Architecture.of("tiny:width=4").build((1, 8, 8), 10, seed=0).embedding_size
        4
    """
    return NETWORKS.register(name, points=Points(embedding, head, tuple(stages)))


class Network(nn.Module):
    """Stages whose last output, flattened, is the embedding; then a linear classifier.

    Attributes:
        body: the stages, one after the other: maps inputs (n, channels, height, width) or (n, features) to the last
            stage's output.
        embedding_size, num_classes: numbers that an embedding and the logits of a sample have.
        classifier: linear map of embeddings to logits.
        precision: "float32", or "bfloat16" for convolutions and products of the stages with 8 bits of mantissa, from
            and to float32: weights, embeddings, logits and all gradients of weights stay float32. Processors that
            have such instructions (AVX512-BF16, AMX, GPUs) then pass ConvNets half again as fast; others are slower.
            For first derivatives: those of gradient and trajectory matching are differences that 8 bits make coarse.
        draws_at_random: in training mode it draws random numbers, as dropout does.
    """

    precision: str = "float32"
    draws_at_random: bool = False

    def __init__(self, stages: Sequence[nn.Module], embedding_size: int, num_classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*stages)
        self.embedding_size = embedding_size
        self.num_classes = num_classes
        self.classifier: nn.Module = nn.Linear(embedding_size, num_classes)

    def embed(self, inputs: Tensor) -> Tensor:
        """float32 (n, embedding_size): what the classifier sees (the penultimate layer)."""
        with self._computing(inputs):
            embedding: Tensor = self.body(inputs).flatten(1)
        return embedding.to(inputs.dtype)

    def embed_and_classify(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """float32 (n, embedding_size) embeddings and (n, classes) logits, in one pass."""
        embedding = self.embed(inputs)
        return embedding, self.classifier(embedding)

    def stages(self, inputs: Tensor) -> list[Tensor]:
        """float32 (n, …) output of every stage, not flattened; the last, flattened, is the embedding."""
        outputs: list[Tensor] = []
        reached = inputs
        with self._computing(inputs):
            for stage in self.body:
                reached = stage(reached)
                outputs.append(reached.to(inputs.dtype))
        return outputs

    def forward(self, inputs: Tensor) -> Tensor:
        """float32 (n, classes): logits."""
        logits: Tensor = self.classifier(self.embed(inputs))
        return logits

    def _computing(self, inputs: Tensor) -> AbstractContextManager[object]:
        if self.precision == "float32":
            return nullcontext()
        # Without the cache: it would keep the first cast of a weight while the weight goes on learning.
        return torch.autocast(inputs.device.type, torch.bfloat16, cache_enabled=False)


class Learning:
    """How any module takes training steps; it is in training mode from here on.

    Attributes:
        whole: a batch must not be cut into parts: batch norm makes a sample see all others.
    """

    def __init__(self, network: nn.Module) -> None:
        self._network = network.train()
        modules = list(network.modules())
        self.whole = any(isinstance(module, _BatchNorm) for module in modules)
        self._norms = [module for module in modules if _keeps(module)]
        self._random = getattr(network, "draws_at_random", False) or any(isinstance(m, _DropoutNd) for m in modules)

    def step(self, samples: int, seed: int) -> AbstractContextManager[object]:
        """One step on so many samples.

        Dropout draws from ``seed``, and the global generators are left as they were. A batch of a single sample has no
        statistics: there, batch norm takes its running ones.
        """
        if self._norms:
            self._network.train()
            for module in self._norms if samples == 1 else ():
                module.eval()
        return isolated_rng(seed) if self._random else nullcontext()


def keeps_statistics(network: nn.Module) -> bool:
    """Whether it has running statistics beside its weights, as batch norm does."""
    return any(_keeps(module) for module in network.modules())


def check_weights_alone(network: nn.Module, what: str) -> None:
    """Return if training ``network`` changes its weights and nothing else, which ``what`` follows.

    Raises:
        SettingsError: it has batch norm, whose running statistics training changes as well.
    """
    if keeps_statistics(network):
        raise SettingsError(
            f"{what} follows weights alone, and batch norm keeps running statistics beside them; use instance norm or "
            "group norm, or another method"
        )


@torch.no_grad()
def calibrate(network: nn.Module, inputs: Tensor) -> None:
    """Evaluation mode, with running statistics of batch norm as they are over ``inputs`` (n, …), in place.

    So gradient matching has it (Zhao et al. 2021, their code): norms are fixed maps, each sample is seen by itself, and
    both sides are seen alike. Fewer than two samples leave the statistics as they are.
    """
    network.eval()
    norms: list[Any] = [module for module in network.modules() if _keeps(module)]
    if not norms or len(inputs) < 2:
        return
    with _whole_batches(norms):
        network(inputs)


@contextmanager
def _whole_batches(norms: Sequence[Any]) -> Iterator[None]:
    """Norms forget their statistics and then keep those of the next batch."""
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = 1.0
        norm.train()
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()


def _keeps(module: nn.Module) -> bool:
    return getattr(module, "running_mean", None) is not None


def materialise(module: nn.Module, sample_shape: tuple[int, ...]) -> None:
    """Let lazy layers find out their shapes and draw their weights, from the global generators."""
    if any(isinstance(one, UninitializedParameter | UninitializedBuffer) for one in tensors_of(module)):
        with torch.no_grad():
            module.eval()(trial_inputs(sample_shape, next(tensors_of(module)).device))
        module.train()


def tensors_of(module: nn.Module) -> Iterator[Tensor]:
    """Its parameters and buffers."""
    yield from module.parameters()
    yield from module.buffers()


def trial_inputs(sample_shape: tuple[int, ...], device: torch.device) -> Tensor:
    """float32 (2, …): standard normal, the same every time."""
    return torch.randn(2, *sample_shape, generator=generator_for(0, "trial"), device="cpu").to(device)
