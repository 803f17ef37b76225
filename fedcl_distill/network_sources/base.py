"""Which networks an objective looks through: the third of the engine's parts, and the sources that train nothing."""

from __future__ import annotations

import copy
import hashlib
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fedcl_distill.context import SetupContext, SyntheticBatch
from fedcl_distill.errors import SettingsError
from fedcl_distill.networks import (
    Architecture,
    ArchitectureLike,
    Network,
    adapted,
    architecture_for,
    as_architecture,
)
from fedcl_distill.seeding import derive_seed, generator_for, isolated_rng
from fedcl_distill.settings import Count, NonNegative, settings


@dataclass(frozen=True)
class DrawnNetwork:
    """The network of a view, and where it knows that: the same network after (more) training on the real data."""

    network: Network
    target_network: Network | None = None


class NetworkSampler:
    """Hands out the networks of one run. Every hook but :meth:`draw` does nothing unless overridden.

    To resume a run exactly, what :meth:`draw` returns must follow from its arguments, the problem and :meth:`state`
    alone, and asking again for the same view must give the same network as long as :meth:`update` was not called.
    """

    def draw(self, index: int, seed: int) -> DrawnNetwork:
        """The network of view number ``index``, whose random draws are named by ``seed``."""
        raise NotImplementedError

    def update(self, index: int, seed: int, synthetic: SyntheticBatch) -> None:
        """After the last step of view ``index``: let networks learn from the synthetic samples as they are now."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold: numbers, texts, tensors and containers of these."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what :meth:`state` returned."""


class NetworkSource(ABC):
    """Which networks; itself without state, so that :func:`~fedcl_distill.registry.describe` says all of it.

    Attributes:
        gives_target: what it draws has a target network.
    """

    gives_target: ClassVar[bool] = False

    @abstractmethod
    def prepare(self, problem: SetupContext) -> NetworkSampler:
        """The networks of one run."""


@settings
class NoNetwork(NetworkSource):
    """Hands out the identity, which objectives with a closed form do not look at."""

    def prepare(self, problem: SetupContext) -> NetworkSampler:
        return _NoSampler()


class _NoSampler(NetworkSampler):
    def draw(self, index: int, seed: int) -> DrawnNetwork:
        return DrawnNetwork(no_network())


def no_network() -> Network:
    """What a kernel in closed form does not look at; its weights are drawn without touching the global generator."""
    with isolated_rng(0):
        return Network([nn.Identity()], 1, 1)


@settings
class FreshRandom(NetworkSource):
    """A new randomly initialised network for every view (Zhao and Bilen 2023, section 3.2).

    Attributes:
        architecture: of the networks; None takes a ConvNet for images and an MLP for features.
    """

    architecture: ArchitectureLike | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "architecture", as_architecture(self.architecture))

    def prepare(self, problem: SetupContext) -> NetworkSampler:
        return _FreshSampler(problem, architecture_for(self.architecture, problem.real.sample_shape))


@dataclass
class _FreshSampler(NetworkSampler):
    problem: SetupContext
    architecture: Architecture

    def draw(self, index: int, seed: int) -> DrawnNetwork:
        real = self.problem.real
        network = self.architecture.build(
            real.sample_shape, real.num_classes, seed=derive_seed(seed, "network"), device=self.problem.device
        )
        return DrawnNetwork(network.requires_grad_(False))


@settings
class FreshEnsemble(NetworkSource):
    """New random networks for every view, whose embeddings side by side are one network's.

    Inner products of embeddings, divided by their size, are then means over the networks, which come the closer to the
    kernel of an infinitely wide network the more there are.

    Attributes:
        architecture: of each network; None takes a ConvNet for images and an MLP for features.
        count: networks in each view.
    """

    architecture: ArchitectureLike | None = None
    count: Count = 8

    def __post_init__(self) -> None:
        object.__setattr__(self, "architecture", as_architecture(self.architecture))

    def prepare(self, problem: SetupContext) -> NetworkSampler:
        return _EnsembleSampler(problem, architecture_for(self.architecture, problem.real.sample_shape), self.count)


class SideBySide(nn.Module):
    """float (n, sum of embedding sizes): embeddings of all networks."""

    def __init__(self, networks: list[Network]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.cat([network.embed(inputs) for network in self.networks if isinstance(network, Network)], dim=1)


@dataclass
class _EnsembleSampler(NetworkSampler):
    problem: SetupContext
    architecture: Architecture
    count: int

    def draw(self, index: int, seed: int) -> DrawnNetwork:
        real, device = self.problem.real, self.problem.device
        members = [
            self.architecture.build(
                real.sample_shape, real.num_classes, seed=derive_seed(seed, "network", place), device=device
            )
            for place in range(self.count)
        ]
        with isolated_rng(derive_seed(seed, "classifier")):
            size = sum(member.embedding_size for member in members)
            whole = Network([SideBySide(members)], size, real.num_classes)
        return DrawnNetwork(whole.to(device).requires_grad_(False))


_DIRECTIONS = 2


def perturbed(network: Network, least: float, most: float, *, seed: int) -> Network:
    """A copy of ``network`` moved along two random directions, by a coefficient of random sign and size each.

    A direction is Gaussian with every filter (or row of a matrix) rescaled to the norm of the network's own filter; it
    leaves parameters of one dimension alone (Li et al. 2018).

    Args:
        least, most: between which sizes of the coefficients are uniformly distributed.
        seed: names directions and coefficients.
    """
    moved = copy.deepcopy(network)
    for number in range(_DIRECTIONS):
        generator = generator_for(seed, "direction", number)
        size, sign = torch.rand(2, generator=generator).tolist()
        coefficient = (least + (most - least) * size) * (1 if sign < 0.5 else -1)
        with torch.no_grad():
            for target, weight in zip(moved.parameters(), network.parameters(), strict=True):
                if weight.ndim > 1:
                    target.add_(_direction(weight, generator), alpha=coefficient)
    return moved


def at_distance(network: Network, radius: float, *, seed: int) -> Network:
    """A copy of ``network`` moved by ``radius``, in the Euclidean norm of all parameters, in a random direction.

    The direction is that of a Gaussian vector, uniform on the sphere.
    """
    moved = copy.deepcopy(network)
    generator = generator_for(seed, "direction")
    noise = [torch.randn(weight.shape, generator=generator) for weight in network.parameters()]
    length = torch.stack([one.double().square().sum() for one in noise]).sum().sqrt()
    with torch.no_grad():
        for weight, one in zip(moved.parameters(), noise, strict=True):
            weight.add_(one.to(weight), alpha=radius / float(length))
    return moved


def _direction(weight: Tensor, generator: torch.Generator) -> Tensor:
    """Gaussian, of the shape of ``weight`` (outputs, …) and with the norms of its filters."""
    noise = torch.randn(weight.shape, generator=generator).to(weight)
    across = tuple(range(1, weight.ndim))
    lengths: Tensor = torch.linalg.vector_norm(weight, dim=across, keepdim=True)
    own: Tensor = torch.linalg.vector_norm(noise, dim=across, keepdim=True)
    return noise * lengths / own.clamp(min=1e-10)


@settings
class AroundNetwork(NetworkSource):
    """Each view moves the same network by a fixed distance in a new random direction.

    FedDM (Xiong et al. 2023) draws weights from a truncated Gaussian inside a ball around the global model. In as many
    dimensions as a network has, nearly all of a Gaussian lies close to one sphere: here, all of it lies on that of the
    ball.

    Attributes:
        network: in the middle: any module.
        radius: the distance, in the Euclidean norm of all parameters; 0 leaves the network as it is, 5 in the paper.

    Raises:
        SettingsError: on construction, if the radius is negative or not finite.
    """

    network: nn.Module = field(compare=False)
    radius: NonNegative = 5.0

    def prepare(self, problem: SetupContext) -> NetworkSampler:
        """SettingsError if the network tells another number of classes apart than the data have."""
        real = problem.real
        network = adapted(self.network, real.sample_shape, real.num_classes)
        if network.num_classes != real.num_classes:
            raise SettingsError(f"the network knows {network.num_classes} classes, {real.name} has {real.num_classes}")
        return _Sampler(problem, network, self.radius)

    def describe(self) -> dict[str, Any]:
        """The plain form; weights are named by a digest."""
        return {"name": type(self).__name__, "radius": self.radius, "network": digest_of(self.network)}


@dataclass
class _Sampler(NetworkSampler):
    problem: SetupContext
    network: Network
    radius: float

    def draw(self, index: int, seed: int) -> DrawnNetwork:
        network = at_distance(self.network, self.radius, seed=seed)
        return DrawnNetwork(network.to(self.problem.device).requires_grad_(False))


def digest_of(network: nn.Module) -> str:
    """16 hexadecimal digits that name the weights."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
