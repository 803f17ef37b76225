"""The published loops as their papers describe them, written plainly: what the library's speed is measured against.

Class by class, a fresh network each step, layers as PyTorch has them, whole batches, float32. Only data, augmentation
and seeds are the library's, so that both compute the same thing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from fedcl_distill.augmentation import Draw, SiameseAugmentation
from fedcl_distill.data import LabelledData
from fedcl_distill.parameterizations import Pixels
from fedcl_distill.seeding import derive_seed, generator_for
from fedcl_distill.synthetic import SyntheticSet


class PlainConvNet(nn.Module):
    """Three blocks of convolution, instance norm, ReLU and average pooling, and a linear classifier.

    Args:
        sample_shape: (channels, height, width); 28×28 grey images are padded to 32×32, as in the authors' code.
        num_classes: scores of the classifier.
        width: channels of each block.
    """

    def __init__(self, sample_shape: tuple[int, ...], num_classes: int, width: int = 128) -> None:
        super().__init__()
        channels, height, breadth = sample_shape
        padding = 3 if sample_shape == (1, 28, 28) else 1
        blocks: list[nn.Module] = []
        size = (height + 2 * padding - 2, breadth + 2 * padding - 2)
        for block in range(3):
            blocks += [
                nn.Conv2d(channels, width, kernel_size=3, padding=padding if block == 0 else 1),
                nn.GroupNorm(width, width, affine=True),
                nn.ReLU(inplace=True),
                nn.AvgPool2d(kernel_size=2, stride=2),
            ]
            channels, size = width, (size[0] // 2, size[1] // 2)
        self.features = nn.Sequential(*blocks)
        self.classifier = nn.Linear(width * size[0] * size[1], num_classes)

    def embed(self, inputs: Tensor) -> Tensor:
        """float32 (n, width · height · breadth after three poolings)."""
        features: Tensor = self.features(inputs).flatten(1)
        return features

    def forward(self, inputs: Tensor) -> Tensor:
        scores: Tensor = self.classifier(self.embed(inputs))
        return scores


_BATCH = 256


class PlainJudge:
    """One network: SGD 0.01, momentum 0.9, weight decay 5e-4, DSA drawn anew for every image, batches of 256.

    Args:
        sample_shape: (channels, height, width).
        num_classes: of the data.
        width: of the network.
        seed: fixes weights, batch order and augmentation.
    """

    def __init__(self, sample_shape: tuple[int, ...], num_classes: int, width: int = 128, seed: int = 0) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(seed, "plain judge"))
            self.network = PlainConvNet(sample_shape, num_classes, width)
        self.optimiser = torch.optim.SGD(self.network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
        self.augmentation = SiameseAugmentation()
        self.generator = generator_for(seed, "plain judge")

    def train(self, inputs: Tensor, labels: Tensor, *, epochs: int = 1000) -> None:
        """Pass ``epochs`` times over ``inputs`` (n, …) and ``labels`` (n,); the rate falls to a tenth half way."""
        schedule = torch.optim.lr_scheduler.StepLR(self.optimiser, step_size=epochs // 2 + 1, gamma=0.1)
        for _ in range(epochs):
            for batch in torch.split(torch.randperm(len(inputs), generator=self.generator), _BATCH):
                draw = self.augmentation.draw(len(batch), tuple(inputs.shape[1:]), self.generator)
                scores = self.network(draw(inputs[batch], torch.arange(len(batch))))
                self.optimiser.zero_grad()
                F.cross_entropy(scores, labels[batch]).backward()  # type: ignore[no-untyped-call]
                self.optimiser.step()
            schedule.step()

    @torch.no_grad()
    def accuracy(self, test: LabelledData) -> float:
        """Fraction of ``test`` classified correctly, in [0, 1]."""
        right = [
            (self.network(test.inputs(rows)).argmax(dim=1) == test.labels[rows]).sum()
            for rows in torch.split(torch.arange(len(test)), _BATCH)
        ]
        return float(torch.stack(right).sum()) / len(test)


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


def plain_trajectory_step(
    network: PlainConvNet,
    start: dict[str, Tensor],
    end: dict[str, Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    steps: int,
    learning_rate: Tensor,
    batch_size: int,
    seed: int,
) -> float:
    """Loss of one outer step; leaves its gradient in ``images`` and ``learning_rate``.

    Args:
        network: gives the architecture.
        start, end: the expert's weights by name, where the student starts and where it should end.
        images: float32 (n, channels, height, width), a leaf.
        labels: int64 (n,).
        steps: of the student.
        learning_rate: scalar leaf.
        batch_size: images in each of the student's steps.
        seed: fixes batches and augmentation.
    """
    generator, augmentation = generator_for(seed, "plain student"), SiameseAugmentation()
    weights = {name: one.clone().requires_grad_() for name, one in start.items()}
    order = torch.zeros(0, dtype=torch.int64)
    for _ in range(steps):
        if len(order) == 0:
            order = torch.randperm(len(images), generator=generator)
        batch, order = order[:batch_size], order[batch_size:]
        draw = augmentation.draw(len(batch), tuple(images.shape[1:]), generator)
        inputs = draw(images[batch], torch.arange(len(batch)))
        loss = F.cross_entropy(functional_call(network, weights, (inputs,)), labels[batch])
        gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=True)
        weights = {
            name: one - learning_rate * gradient
            for (name, one), gradient in zip(weights.items(), gradients, strict=True)
        }
    missed = torch.stack([(weights[name] - end[name]).square().sum() for name in end]).sum()
    way = torch.stack([(start[name] - end[name]).square().sum() for name in end]).sum()
    distance = missed / way
    distance.backward()  # type: ignore[no-untyped-call]
    return distance.item()
