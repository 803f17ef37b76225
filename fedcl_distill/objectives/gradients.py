"""Gradient matching, and its distances."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.func import functional_call
from torch.linalg import vector_norm
from torch.nn import functional as F

from fedcl_distill.context import RealSampler, SyntheticBatch
from fedcl_distill.errors import SettingsError
from fedcl_distill.networks.base import Network, micro_batch_size, micro_batches
from fedcl_distill.objectives.base import MatchContext, Objective, register_objective
from fedcl_distill.registry import Registry, name_of
from fedcl_distill.settings import Count, settings


@runtime_checkable
class Layers(Protocol):
    """Chooses parameters of any network."""

    def of(self, network: Network) -> dict[str, Tensor]:
        """The chosen parameters by name, detached; each has at least two dimensions."""
        ...


LAYERS: Registry[Layers] = Registry("layers", "fedcl_distill.layers", Layers)


@LAYERS.register("all")
@settings
class AllWeights:
    """Every weight, but neither biases nor scales and shifts of norms (Zhao et al. 2021, their code)."""

    def of(self, network: Network) -> dict[str, Tensor]:
        return {name: one.detach() for name, one in network.named_parameters() if one.ndim > 1}


@LAYERS.register("hidden")
@settings
class HiddenWeights:
    """The weights below the classifier: the convolutions of a ConvNet (Kim et al. 2022, their code)."""

    def of(self, network: Network) -> dict[str, Tensor]:
        known = {id(one) for one in network.classifier.parameters()}
        above = {name for name, one in network.named_parameters() if id(one) in known}
        return {name: one for name, one in AllWeights().of(network).items() if name not in above}


@runtime_checkable
class Distance(Protocol):
    """Compares the gradients of one layer; an objective sums over layers."""

    def __call__(self, real: Tensor, synthetic: Tensor) -> Tensor:
        """Scalar, differentiable twice in ``synthetic``; both float (outputs, …) of the layer's shape."""
        ...


DISTANCES: Registry[Distance] = Registry("distance", "fedcl_distill.distances", Distance)


@DISTANCES.register("cosine")
@settings
class CosineDistance:
    """Σ over output rows of 1 − cosine (Zhao et al. 2021): of directions alone, so of any scale.

    A row without a gradient counts 1; the 1e-6 of the authors' code keeps it finite.
    """

    def __call__(self, real: Tensor, synthetic: Tensor) -> Tensor:
        real, synthetic = real.flatten(1), synthetic.flatten(1)
        lengths: Tensor = vector_norm(real, dim=1) * vector_norm(synthetic, dim=1)
        cosines = (real * synthetic).sum(dim=1) / (lengths + 1e-6)
        return (1 - cosines).sum()


@DISTANCES.register("squared")
@settings
class SquaredDistance:
    """Σ of squared differences (Kim et al. 2022, for colour images)."""

    def __call__(self, real: Tensor, synthetic: Tensor) -> Tensor:
        return (real - synthetic).square().sum()


@DISTANCES.register("absolute")
@settings
class AbsoluteDistance:
    """Σ of absolute differences (Kim et al. 2022, for grey images)."""

    def __call__(self, real: Tensor, synthetic: Tensor) -> Tensor:
        return (real - synthetic).abs().sum()


Gradient = Sequence[Tensor]
"""Of the mean cross entropy of some samples, in the chosen weights, in their order."""


@register_objective("gradient-matching")
@settings
class GradientMatching(Objective[Mapping[int, Gradient]]):
    """Distance between the gradients of cross entropy on real and on synthetic samples, in a network's weights.

    With ``over="class"`` it is summed over classes, each compared by itself (Zhao et al. 2021). With
    ``over="all"``, the gradients of all classes are averaged first, so that what they have in common cannot drown
    what tells them apart (Lee et al. 2022). Classes without samples on either side take no part. The target
    is the gradient of each class with real samples.

    Labels may be soft and learned: they enter the synthetic side's cross entropy.

    Attributes:
        distance: of one layer's gradients.
        over: which samples are averaged before the comparison.
        real_batch_per_class: real samples a class in each view.
        layers: which weights are compared.
        full_rate_at: a class counts in proportion to its synthetic samples, and once at this many (with
            ``over="all"``, the mean over classes); so that a step moves each sample alike, however many there are,
            and one learning rate suits all sizes (Kim et al. 2022, their code). None counts every class once.

    Raises:
        SettingsError: on construction, if a number is not positive or ``over`` is unknown.
    """

    reads_labels: ClassVar[bool] = True
    distance: Annotated[Distance, DISTANCES] = field(default_factory=CosineDistance)
    over: Literal["class", "all"] = "class"
    real_batch_per_class: Count = 256
    layers: Annotated[Layers, LAYERS] = field(default_factory=AllWeights)
    full_rate_at: Count | None = None

    def target(self, view: MatchContext, real: RealSampler) -> Mapping[int, Gradient]:
        inputs, labels = real.draw(self.real_batch_per_class, view.seed)
        inputs = view.augment(inputs, labels)
        weights = _Weights(view.network, self.layers)
        return {
            label: weights.constant_gradient(inputs[rows], labels[rows], inputs.new_full(rows.shape, 1 / len(rows)))
            for label, rows in _rows_by_class(labels).items()
        }

    def losses(self, view: MatchContext, target: Mapping[int, Gradient], synthetic: SyntheticBatch) -> Iterator[Tensor]:
        weights = _Weights(view.network, self.layers)
        rows = {label: rows for label, rows in _rows_by_class(synthetic.classes).items() if label in target}
        groups = [[label] for label in rows] if self.over == "class" or not rows else [list(rows)]
        for labels in groups:
            group = _Group.of([rows[label] for label in labels], synthetic, view)
            wanted = [torch.stack(layer).mean(dim=0) for layer in zip(*(target[c] for c in labels), strict=True)]
            rate = 1.0 if self.full_rate_at is None else len(group.rows) / len(labels) / self.full_rate_at
            yield from self._addends(weights, wanted, group, rate)

    def _addends(self, weights: _Weights, wanted: Gradient, group: _Group, rate: float) -> Iterator[Tensor]:
        """Scalars that add up to ``rate`` times the distance of the group's gradient from ``wanted``."""
        parts = torch.split(torch.arange(len(group.rows)), micro_batch_size(group.synthetic.inputs))
        if len(parts) == 1:
            yield rate * self._apart(wanted, weights.gradient(*group.samples(parts[0]), create_graph=True))
            return
        # The distance is not a sum over samples, but its derivative is once the gradient of all of them is known:
        # that costs another first-order pass, and no graph has to hold more than a part.
        with torch.no_grad():
            everything = group.samples(torch.arange(len(group.rows)))
        given = [layer.requires_grad_() for layer in weights.constant_gradient(*everything)]
        distance = rate * self._apart(wanted, given)
        slopes = torch.autograd.grad(distance, given)
        value = distance.detach()
        for part in parts:
            of_part = weights.gradient(*group.samples(part), create_graph=True)
            change = torch.stack([(slope * one).sum() for slope, one in zip(slopes, of_part, strict=True)]).sum()
            yield value + (change - change.detach())
            value = torch.zeros_like(value)

    def _apart(self, real: Gradient, synthetic: Gradient) -> Tensor:
        return torch.stack([self.distance(one, other) for one, other in zip(real, synthetic, strict=True)]).sum()


@dataclass(frozen=True)
class _Group:
    """Synthetic samples whose gradients are averaged: int64 (n,) rows, float (n,) shares in the mean."""

    rows: Tensor
    shares: Tensor
    synthetic: SyntheticBatch
    view: MatchContext

    @classmethod
    def of(cls, rows: Sequence[Tensor], synthetic: SyntheticBatch, view: MatchContext) -> _Group:
        """The mean over classes, given the rows of each, of the mean over samples."""
        shares = [synthetic.inputs.new_full((len(one),), 1 / len(one) / len(rows)) for one in rows]
        return cls(torch.cat(list(rows)), torch.cat(shares), synthetic, view)

    def samples(self, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Augmented inputs, labels and shares of the samples at ``positions`` of the group, with their graph."""
        rows = self.rows[positions.to(self.rows.device)]
        inputs = self.view.augment(self.synthetic.inputs[rows], self.synthetic.classes[rows])
        return inputs, self.synthetic.labels[rows], self.shares[positions.to(self.rows.device)]


class _Weights:
    """The chosen weights of a network as leaves of their own, so that the network itself is left alone."""

    def __init__(self, network: Network, layers: Layers) -> None:
        self._network = network
        self._leaves = {name: one.requires_grad_() for name, one in layers.of(network).items()}
        if not self._leaves:
            raise SettingsError(
                f"this network has no weights among {name_of(layers)!r} layers whose gradients could be matched"
            )
        self._all = {name: one.detach() for name, one in network.named_parameters()} | self._leaves

    def gradient(self, inputs: Tensor, labels: Tensor, shares: Tensor, create_graph: bool = False) -> Gradient:
        """Of the cross entropy, each sample weighted by its share; with the graph of all samples if asked for."""
        with torch.enable_grad():
            scores = functional_call(self._network, self._all, (inputs,))
            loss = (F.cross_entropy(scores, labels, reduction="none") * shares).sum()
            return torch.autograd.grad(loss, list(self._leaves.values()), create_graph=create_graph)

    def constant_gradient(self, inputs: Tensor, labels: Tensor, shares: Tensor) -> Gradient:
        """The same without a graph, part by part."""
        parts = [self.gradient(part, wanted, share) for part, wanted, share in micro_batches(inputs, labels, shares)]
        return [torch.stack(layer).sum(dim=0) for layer in zip(*parts, strict=True)]


def _rows_by_class(classes: Tensor) -> dict[int, Tensor]:
    """int64 positions of each class that ``classes``, int64 (n,), holds."""
    present = torch.bincount(classes).nonzero().flatten().tolist()
    return {label: (classes == label).nonzero().flatten() for label in present}
