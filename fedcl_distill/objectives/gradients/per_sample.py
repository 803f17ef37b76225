"""The gradient of each sample by itself, which clipping needs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from fedcl_distill.errors import SettingsError
from fedcl_distill.networks.base import Network

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
