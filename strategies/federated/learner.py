"""The server's own network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from flwr.app import ArrayRecord
from torch import Tensor

from fedcl_distill.data import LabelledData
from fedcl_distill.errors import SettingsError
from fedcl_distill.networks import Architecture, Network
from fedcl_distill.networks.base import micro_batches
from fedcl_distill.seeding import derive_seed
from fedcl_distill.synthetic import SyntheticSet
from fedcl_distill.training import TrainConfig, class_accuracies, fit, predict
from strategies.federated.answers import put_weights, weights_of


class L2Projection:
    """All weights within ``radius`` of those that ``network`` has now, in the Euclidean norm of all parameters."""

    def __init__(self, network: Network, radius: float) -> None:
        self._network, self._radius = network, radius
        self._middle = [parameter.detach().clone() for parameter in network.parameters()]

    @torch.no_grad()
    def project(self) -> bool:
        """Move the network's weights to the nearest ones inside; always True, so that training goes on."""
        ways = [p - middle for p, middle in zip(self._network.parameters(), self._middle, strict=True)]
        distance = float(torch.stack([way.double().square().sum() for way in ways]).sum().sqrt())
        if distance > self._radius:
            for p, middle, way in zip(self._network.parameters(), self._middle, ways, strict=True):
                p.copy_(middle + way * (self._radius / distance))
        return True


@dataclass(frozen=True)
class Learner:
    """What the server trains, and how.

    Attributes:
        architecture: of the global model.
        training: how to train on a synthetic set of so many samples.
        sample_shape, num_classes: of the data.
        seed: of the run; fixes fresh weights, batch order and augmentation.
        device: where to compute.
    """

    architecture: Architecture
    training: Callable[[int], TrainConfig]
    sample_shape: tuple[int, ...]
    num_classes: int
    seed: int
    device: str = "cpu"

    @property
    def architecture_text(self) -> str:
        """The architecture as requests name it: nodes build networks that are registered with them, by name.

        Raises:
            SettingsError: it has no such name.
        """
        return self.architecture.text

    def fresh(self) -> Network:
        """The global model before the first round: the same for every strategy of this seed."""
        seed = derive_seed(self.seed, "model")
        return self.architecture.build(self.sample_shape, self.num_classes, seed=seed, device=self.device)

    def with_weights(self, weights: ArrayRecord) -> Network:
        """The global model with ``weights``; PayloadError if they are another model's."""
        network = self.fresh()
        put_weights(network, weights)
        return network

    def learn(
        self,
        synthetic: SyntheticSet,
        server_round: int,
        *,
        sample_weights: Tensor | None = None,
        start: ArrayRecord | None = None,
        radius: float | None = None,
    ) -> ArrayRecord:
        """Weights of the global model after training on ``synthetic``.

        Args:
            synthetic: what to learn from.
            server_round: names the draws.
            sample_weights: float (n,), positive: how often each sample is seen; None: all alike.
            start: weights to begin with; fresh ones where None.
            radius: the farthest, in the Euclidean norm of all parameters, that training may go from there: after every
                step, weights outside are put back onto the sphere. None for no bound.

        Raises:
            DivergenceError: the loss stopped being finite.
            PayloadError: ``start`` holds another model's weights.
        """
        network = self.fresh() if start is None else self.with_weights(start)
        fit(
            network,
            synthetic.inputs(),
            synthetic.labels,
            self.training(len(synthetic)),
            seed=derive_seed(self.seed, "server", server_round),
            weights=sample_weights,
            keep_going=None if radius is None else L2Projection(network, radius).project,
        )
        return weights_of(network)

    def class_accuracies(self, weights: ArrayRecord, test: LabelledData) -> tuple[float, tuple[float, ...]]:
        """Accuracy on ``test``, and on each of its classes, in [0, 1]; NaN for a class without test samples."""
        predicted = predict(self.with_weights(weights), test)
        correct = (predicted == test.labels).double()
        return float(correct.mean()), tuple(class_accuracies(predicted, test).tolist())


WEIGHTINGS = ("classes", "samples", "uniform")
_SMALLEST = 1e-12  # probability


@dataclass(frozen=True)
class Ensemble:
    """Networks and how much each counts for each class.

    Attributes:
        members: at least one.
        weights: float32 (members, classes), not negative; each member has a positive one.
    """

    members: Sequence[Network]
    weights: Tensor

    @torch.no_grad()
    def probabilities(self, inputs: Tensor) -> Tensor:
        """float32 (n, classes) on the CPU: the members' weighted probabilities of ``inputs`` (n, …), scaled to 1.

        A member whose scores are not finite has no say there; without any say, all classes are equally probable.
        """
        total = torch.zeros(len(inputs), self.weights.shape[1])
        for member, weights in zip(self.members, self.weights, strict=True):
            total += weights * scores(member, inputs).softmax(dim=1).nan_to_num(0.0)
        total = total.clamp(min=_SMALLEST)
        return total / total.sum(dim=1, keepdim=True)


def ensemble_weights(class_counts: Tensor, weighting: str) -> Tensor:
    """float32 (members, classes) for int64 (members, classes) numbers of samples, each member having one at least.

    "classes": a member counts for a class by its share of all samples of that class, so that those decide who have
    seen it; "samples": for all classes alike by its share of all samples; "uniform": all members count alike.

    Raises:
        SettingsError: the weighting is unknown.
    """
    counts = class_counts.double()
    if weighting == "classes":
        return (counts / counts.sum(dim=0).clamp(min=1)).float()
    if weighting == "samples":
        return (counts.sum(dim=1, keepdim=True) / counts.sum()).expand_as(counts).float()
    if weighting == "uniform":
        return torch.full_like(counts, 1 / len(counts)).float()
    raise SettingsError(f"unknown weighting {weighting!r}; known: {', '.join(WEIGHTINGS)}")


@torch.no_grad()
def scores(network: Network, inputs: Tensor) -> Tensor:
    """float32 (n, classes) on the CPU: what ``network`` says about ``inputs`` (n, …)."""
    device = next(network.parameters()).device
    network.eval()
    return torch.cat([network(part.to(device)).cpu() for (part,) in micro_batches(inputs)])
