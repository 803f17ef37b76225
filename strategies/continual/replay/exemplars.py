"""What iCaRL adds to replay (Rebuffi et al. 2017): herding in the model's embedding, its loss, nearest means."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from avalanche.training.losses import ICaRLLossPlugin
from torch import Tensor, nn
from torch.nn import functional as F

from fedcl_distill.data import LabelledData
from fedcl_distill.micro_batches import micro_batches
from fedcl_distill.networks import Network
from fedcl_distill.synthetic import SyntheticSet
from strategies.continual.replay.regularised import bytes_of_model


@dataclass(frozen=True)
class NetworkEmbedding:
    """The embedding of a network as it is when asked, scaled to length 1: where iCaRL herds and classifies.

    Attributes:
        network: the model in training.
    """

    network: Network

    def embed(self, real: LabelledData, seed: int) -> Tensor:
        """float32 (n, d)."""
        return directions(self.network, real.inputs())


@torch.no_grad()
def directions(network: Network, inputs: Tensor) -> Tensor:
    """float32 (n, d): embeddings of ``inputs`` scaled to length 1, on the CPU."""
    device, training = next(network.parameters()).device, network.training
    network.eval()
    embedded = torch.cat([network.embed(part.to(device)).cpu() for (part,) in micro_batches(inputs)])
    network.train(training)
    return F.normalize(embedded, dim=1)


class NearestMean(nn.Module):
    """Classifies by the nearest mean of remembered samples in the model's embedding.

    Avalanche's classifier gives classes without exemplars a mean of zero, which may well be the nearest; here they are
    never chosen.

    Args:
        network: whose embedding counts.
        exemplars: what is remembered.
    """

    means: Tensor
    known: Tensor

    def __init__(self, network: Network, exemplars: SyntheticSet) -> None:
        super().__init__()
        self.network = network
        embedded, labels = directions(network, exemplars.inputs()), exemplars.hard_labels
        sums = torch.zeros(exemplars.num_classes, embedded.shape[1]).index_add_(0, labels, embedded)
        self.register_buffer("means", F.normalize(sums, dim=1))
        self.register_buffer("known", exemplars.class_counts > 0)
        self.to(next(network.parameters()).device)

    def forward(self, inputs: Tensor) -> Tensor:
        """float32 (n, classes): on unit vectors, the largest product belongs to the nearest mean."""
        products = F.normalize(self.network.embed(inputs), dim=1) @ self.means.T
        return products.masked_fill(~self.known, float("-inf"))


class ICaRLLoss(ICaRLLossPlugin):  # type: ignore[misc]
    """Avalanche's loss, summed over classes as in the paper instead of averaged; and able to go on from a checkpoint.

    The replay plugin must come before it, so that the old model sees the whole batch.
    """

    def __call__(self, logits: Tensor, targets: Tensor) -> Tensor:
        loss: Tensor = super().__call__(logits, targets) * logits.shape[1]
        return loss

    @property
    def bytes_kept(self) -> int:
        """Of the old model."""
        return bytes_of_model(self.old_model)

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold."""
        old = {} if self.old_model is None else self.old_model.state_dict()
        return {"old": old, "classes": list(map(int, self.old_classes))}

    def restore(self, state: dict[str, Any], network: nn.Module) -> None:
        """Go on from another loss's :meth:`state`; ``network`` gives the architecture."""
        if state["old"]:
            self.old_model = deepcopy(network)
            self.old_model.load_state_dict(state["old"])
        self.old_classes = state["classes"]
