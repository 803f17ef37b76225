"""The loops of DM (Zhao and Bilen 2023) and of DSA (Zhao and Bilen 2021), class by class."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fedcl_distill.augmentation import Draw, SiameseAugmentation
from fedcl_distill.data import LabelledData
from fedcl_distill.parameterizations import Pixels
from fedcl_distill.seeding import derive_seed, generator_for
from fedcl_distill.synthetic import SyntheticSet
from simulations.plain.network import PlainConvNet


class PlainMatching(ABC):
    """Synthetic images of every class, moved a step at a time towards the real ones.

    Args:
        real: images and labels; every class has samples.
        per_class: synthetic images of each class; they start as random real ones.
        width: of the networks.
        learning_rate: of SGD with momentum 0.5.
        real_batch_per_class: real images of a class in each step.
        seed: fixes everything that is drawn.
    """

    def __init__(
        self,
        real: LabelledData,
        per_class: int,
        *,
        width: int = 128,
        learning_rate: float = 1.0,
        real_batch_per_class: int = 256,
        seed: int = 0,
    ) -> None:
        self.real, self.per_class, self.width, self.real_batch_per_class, self.seed = (
            real,
            per_class,
            width,
            real_batch_per_class,
            seed,
        )
        self.augmentation = SiameseAugmentation()
        self.rows = [real.indices_of(label) for label in range(real.num_classes)]
        self.steps = 0
        generator = generator_for(seed, "plain start")
        starts = [rows[torch.randperm(len(rows), generator=generator)[:per_class]] for rows in self.rows]
        self.images = real.inputs(torch.cat(starts)).requires_grad_()
        self.labels = torch.arange(real.num_classes).repeat_interleave(per_class)
        self.optimiser = torch.optim.SGD([self.images], lr=learning_rate, momentum=0.5)

    def step(self) -> float:
        """One step of all images; returns the loss."""
        generator = generator_for(self.seed, "plain step", self.steps)
        network = self._network()
        loss = torch.zeros(())
        for label in range(self.real.num_classes):
            rows = self.rows[label]
            chosen = rows[torch.randperm(len(rows), generator=generator)[: self.real_batch_per_class]]
            draw = self.augmentation.draw(1, self.real.sample_shape, generator)
            synthetic = self.images[label * self.per_class : (label + 1) * self.per_class]
            both = (_augmented(draw, self.real.inputs(chosen)), _augmented(draw, synthetic))
            loss = loss + self._distance(network, *both, label)
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.steps += 1
        return loss.item()

    def synthetic(self) -> SyntheticSet:
        """The images as they are now."""
        real = self.real
        return SyntheticSet(
            arrays={"pixels": self.images.detach().clone()},
            parameterization=Pixels(),
            labels=self.labels,
            spec=real.spec,
            provenance={"method": type(self).__name__, "steps": self.steps},
        )

    @abstractmethod
    def _distance(self, network: PlainConvNet, real: Tensor, synthetic: Tensor, label: int) -> Tensor: ...

    def _network(self) -> PlainConvNet:
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(self.seed, "plain network", self.steps))
            return PlainConvNet(self.real.sample_shape, self.real.num_classes, self.width)


class PlainDM(PlainMatching):
    """Squared distance of the class means of embeddings, summed over classes; the networks are not trained."""

    def _network(self) -> PlainConvNet:
        return super()._network().requires_grad_(False)

    def _distance(self, network: PlainConvNet, real: Tensor, synthetic: Tensor, label: int) -> Tensor:
        wanted = network.embed(real).detach().mean(dim=0)
        return (wanted - network.embed(synthetic).mean(dim=0)).square().sum()


class PlainDSA(PlainMatching):
    """1 − cosine of the gradients of cross entropy, summed over output rows, layers and classes.

    A step is one matching of all classes by one network; the training of the network between steps is left out.
    """

    def __init__(self, real: LabelledData, per_class: int, **options: Any) -> None:
        super().__init__(real, per_class, **{"learning_rate": 0.1, **options})

    def _distance(self, network: PlainConvNet, real: Tensor, synthetic: Tensor, label: int) -> Tensor:
        wanted = [one.detach() for one in _gradient(network, real, label, create_graph=False)]
        found = _gradient(network, synthetic, label, create_graph=True)
        return torch.stack([_cosine_distance(one, other) for one, other in zip(wanted, found, strict=True)]).sum()


def _augmented(draw: Draw, images: Tensor) -> Tensor:
    return draw(images, torch.zeros(len(images), dtype=torch.int64))


def _gradient(network: PlainConvNet, images: Tensor, label: int, *, create_graph: bool) -> tuple[Tensor, ...]:
    loss = F.cross_entropy(network(images), torch.full((len(images),), label))
    return torch.autograd.grad(loss, list(network.parameters()), create_graph=create_graph)


def _cosine_distance(real: Tensor, synthetic: Tensor) -> Tensor:
    if real.ndim == 1:  # the authors compare weights, not biases nor the parameters of norms
        return synthetic.sum() * 0
    real, synthetic = real.flatten(1), synthetic.flatten(1)
    cosines = (real * synthetic).sum(dim=1) / (real.norm(dim=1) * synthetic.norm(dim=1) + 1e-6)
    distance: Tensor = (1 - cosines).sum()
    return distance
