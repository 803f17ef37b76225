"""Gradient matching on clipped and noised gradients of single samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from typing import Annotated, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from fedcl_distill.context import RealSampler, SyntheticBatch
from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.errors import SettingsError
from fedcl_distill.networks.base import Network, micro_batches
from fedcl_distill.objectives.base import MatchContext, Objective
from fedcl_distill.objectives.gradients import Gradient, GradientMatching
from fedcl_distill.privacy.noise import NoiseSource
from fedcl_distill.settings import NonNegative, Positive, Range, settings

Layer = nn.Conv2d | nn.Linear
Caught = tuple[Layer, Tensor, Tensor]


def check_per_sample(network: Network) -> None:
    """Return if each sample of a batch has a gradient of its own in this network.

    Raises:
        SettingsError: batch norm mixes samples, or a weight belongs to another layer than convolutions and linear maps.
    """
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            raise SettingsError("batch norm mixes the samples of a batch: single ones have no gradient to clip")
        own = [name for name, one in module.named_parameters(recurse=False) if one.ndim > 1]
        grouped = isinstance(module, nn.Conv2d) and module.groups != 1
        if own and (grouped or not isinstance(module, nn.Conv2d | nn.Linear)):
            raise SettingsError(f"gradients of single samples are not known of {type(module).__name__}")


def per_sample_gradients(network: Network, inputs: Tensor, labels: Tensor) -> list[Tensor]:
    """Of cross entropy in every weight of convolutions and linear maps (:class:`AllWeights`, in their order).

    From what goes into each layer and the gradient of what comes out of it, as the chain rule has them (Goodfellow
    2015; Rochette et al. 2019 for convolutions). That takes about twice as long as the gradient of the batch;
    ``torch.func.vmap`` cannot look into the fused layers of our ConvNets.

    Args:
        network: of which :func:`check_per_sample` approves.
        inputs: float32 (n, …); labels: int64 (n,).

    Returns:
        float32 (n, *shape of the weight) for each weight, without a graph.
    """
    caught: list[Caught] = []
    layers = [one for one in network.modules() if isinstance(one, nn.Conv2d | nn.Linear)]
    hooks = [
        layer.register_forward_hook(lambda one, given, out: caught.append((one, given[0].detach(), out)))
        for layer in layers
    ]
    try:
        with torch.enable_grad():
            # A leaf, for the graph must reach every layer though no weight asks for a gradient.
            loss = F.cross_entropy(network(inputs.detach().requires_grad_()), labels, reduction="sum")
    finally:
        for hook in hooks:
            hook.remove()
    if sorted(layers.index(one) for one, _, _ in caught) != list(range(len(layers))):
        raise SettingsError("gradients of single samples need layers that are used once each")
    caught.sort(key=lambda one: layers.index(one[0]))  # a shortcut is built after what it passes by
    slopes = torch.autograd.grad(loss, [out for _, _, out in caught])
    return [_of_weight(layer, given, slope) for (layer, given, _), slope in zip(caught, slopes, strict=True)]


def clipped_sum(gradients: Sequence[Tensor], labels: Tensor, num_classes: int, clip: float) -> list[Tensor]:
    """Σ over the samples of each class of gradients scaled down to a norm of ``clip``, all weights together.

    Args:
        gradients: float32 (n, …) for each weight.
        labels: int64 (n,).
        num_classes: how many.
        clip: largest L2 norm of one sample's gradient.

    Returns:
        float32 (classes, …) for each weight; one sample more or less changes them all by at most ``clip`` in L2.
    """
    norms = torch.stack([one.flatten(1).norm(dim=1) for one in gradients]).norm(dim=0)
    scale = (clip / norms.clamp(min=torch.finfo(norms.dtype).tiny)).clamp(max=1)
    sums = []
    for one in gradients:
        total = one.new_zeros(num_classes, *one.shape[1:])
        sums.append(total.index_add_(0, labels, one * scale.view(-1, *(1,) * (one.ndim - 1))))
    return sums


def _of_weight(layer: Layer, given: Tensor, slope: Tensor) -> Tensor:
    if isinstance(layer, nn.Linear):
        return torch.einsum("no,ni->noi", slope, given)
    assert not isinstance(layer.padding, str)
    patches = F.unfold(given, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    product: Tensor = slope.flatten(2) @ patches.transpose(1, 2)
    return product.view(len(given), *layer.weight.shape)


@settings(eq=False)
class PrivateGradientMatching(Objective[Mapping[int, Gradient]]):
    """The distance of the synthetic samples' gradient from a noisy sum of clipped gradients of real ones.

    Each view is one query of a Poisson sampled Gaussian mechanism (Abadi et al. 2016, algorithm 1): every record is
    in it with chance ``sampling_rate``, by itself; its gradient is scaled down to the norm ``clip``; noise of deviation
    ``noise_multiplier`` · ``clip`` goes onto every number of the sum, once. One record more or less changes the sum by
    at most ``clip``. With ``matching.over`` "class" there is a sum for every class, of its records alone: one record
    is in one of them, so that the sensitivity is the same, but each sum is of fewer records. Several synthetic steps
    in one view look at the same noisy sum, which costs nothing more.

    The real data are here and nowhere else: what an engine runs on is blank.

    Attributes:
        matching: how gradients are compared.
        data: the private records, publicly scaled.
        sampling_rate: in (0, 1].
        clip: L2 norm of one record's gradient, at most.
        noise_multiplier: 0 for no noise.
        noise: where noise and samples come from.

    Raises:
        SettingsError: on construction, if a value is out of range.
    """

    name: ClassVar[str] = "private-gradient-matching"
    reads_labels: ClassVar[bool] = True
    matching: GradientMatching
    data: LabelledData = field(repr=False)  # which nobody is told of
    sampling_rate: Annotated[float, Range(gt=0, le=1)]
    clip: Positive
    noise_multiplier: NonNegative
    noise: NoiseSource = field(repr=False)

    def target(self, view: MatchContext, real: RealSampler) -> Mapping[int, Gradient]:
        check_per_sample(view.network)
        classes = self.data.num_classes
        expected = self.sampling_rate * len(self.data)  # public, unlike the number of records that are drawn
        sums = self._clipped(view, self.sample(view.index), real.device)
        if self.matching.over == "all":
            whole = [self._noisy(one.sum(dim=0), view.index, layer) / expected for layer, one in enumerate(sums)]
            return dict.fromkeys(range(classes), whole)
        noisy = [self._noisy(one, view.index, layer) * classes / expected for layer, one in enumerate(sums)]
        return {label: [one[label] for one in noisy] for label in range(classes)}

    def losses(self, view: MatchContext, target: Mapping[int, Gradient], synthetic: SyntheticBatch) -> Iterator[Tensor]:
        yield from self.matching.losses(view, target, synthetic)

    def sample(self, index: int) -> Tensor:
        """int64 (m,): the records that the view of this number looks at."""
        return (self.noise.uniform(len(self.data), "records", index) < self.sampling_rate).nonzero().flatten()

    def _clipped(self, view: MatchContext, rows: Tensor, device: torch.device) -> list[Tensor]:
        """float32 (classes, …) for each weight."""
        sums = [one.new_zeros(self.data.num_classes, *one.shape) for one in self._weights(view.network)]
        if len(rows) == 0:
            return sums
        labels = self.data.labels[rows].to(device)
        inputs = view.augment(self.data.inputs(rows).to(device), labels)
        for part, wanted in micro_batches(inputs, labels):
            gradients = per_sample_gradients(view.network, part, wanted)
            found = clipped_sum(gradients, wanted, self.data.num_classes, self.clip)
            sums = [one + other for one, other in zip(sums, found, strict=True)]
        return sums

    def _weights(self, network: Network) -> Gradient:
        return list(self.matching.layers.of(network).values())

    def _noisy(self, values: Tensor, index: int, layer: int) -> Tensor:
        if self.noise_multiplier == 0:
            return values
        origin = repr((self.noise_multiplier, self.clip, self.sampling_rate, self.matching.over))
        drawn = self.noise.bound_to(origin, [values]).normal(values.shape, "gradients", index, layer)
        return (values.double() + self.noise_multiplier * self.clip * drawn.to(values.device)).float()
