"""Generators of images: conditional networks, their training and their inversion."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from fedcl_distill.context import SetupContext
from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.networks.base import micro_batch_size, micro_batches
from fedcl_distill.seeding import derive_seed, generator_for, isolated_rng
from fedcl_distill.settings import Count, Momentum, NonNegative, Positive, settings

Shape = tuple[int, ...]

MAX_SIDE = 512
_COARSEST = 4
_SLOPE = 0.2


def stage_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """(height, width) of every stage, coarsest first: each is half of the next, rounded up."""
    sizes = [(height, width)]
    while min(sizes[0]) > _COARSEST:
        sizes.insert(0, (-(-sizes[0][0] // 2), -(-sizes[0][1] // 2)))
    return sizes


def weight_shapes(code: int, width: int, sample_shape: Shape) -> dict[str, Shape]:
    """Shapes of all weights of a generator.

    Args:
        code: length of a code.
        width: channels of the two coarsest stages; the others have half of them.
        sample_shape: (channels, height, width).
    """
    sizes = stage_sizes(*sample_shape[1:])
    channels = [width if stage < 2 else max(1, width // 2) for stage in range(len(sizes))]
    coarsest = channels[0] * math.prod(sizes[0])
    shapes: dict[str, Shape] = {"mean": sample_shape, "dense": (code, coarsest), "dense_bias": (coarsest,)}
    for stage in range(1, len(sizes)):
        shapes[f"conv{stage}"] = (channels[stage], channels[stage - 1], 3, 3)
        shapes[f"conv{stage}_bias"] = (channels[stage],)
    shapes["output"] = (sample_shape[0], channels[-1], 3, 3)
    return shapes


def initial_weights(shapes: Mapping[str, Shape], generator: torch.Generator) -> dict[str, Tensor]:
    """float32 weights that keep the scale of their inputs (He et al. 2015); biases and the mean are 0."""
    weights = {}
    for name, shape in shapes.items():
        fan_in = shape[0] if name == "dense" else math.prod(shape[1:])
        free = name != "mean" and not name.endswith("_bias")
        weights[name] = torch.randn(shape, generator=generator) / math.sqrt(fan_in) if free else torch.zeros(shape)
    return weights


def generate(weights: Mapping[str, Tensor], codes: Tensor) -> Tensor:
    """float32 (n, channels, height, width): what ``codes`` (n, code) stand for; differentiable in both.

    Works on a few codes at a time, so that the memory for activations does not grow with their number (as long as no
    gradient is asked for).
    """
    size = micro_batch_size(weights["mean"][None])
    if len(codes) <= size:
        return _generate(weights, codes)
    return torch.cat([_generate(weights, part) for part in torch.split(codes, size)])


def _generate(weights: Mapping[str, Tensor], codes: Tensor) -> Tensor:
    mean = weights["mean"]
    sizes = stage_sizes(mean.shape[1], mean.shape[2])
    images = codes @ weights["dense"] + weights["dense_bias"]
    images = _activate(images.view(len(codes), images.shape[1] // math.prod(sizes[0]), *sizes[0]))
    for stage, size in enumerate(sizes[1:], start=1):
        images = F.interpolate(images, size=size, mode="nearest")
        images = _activate(F.conv2d(images, weights[f"conv{stage}"], weights[f"conv{stage}_bias"], padding=1))
    return mean + F.conv2d(images, weights["output"], padding=1)


def _activate(images: Tensor) -> Tensor:
    """Leaky ReLU, then unit mean square over the channels of each pixel (Karras et al. 2018).

    That needs no statistics of a batch: what a code stands for depends on no other code.
    """
    images = F.leaky_relu(images, _SLOPE)
    return images * (images.square().mean(dim=1, keepdim=True) + 1e-6).rsqrt()


class Discriminator(nn.Module):
    """Strided convolutions with spectral normalisation (Miyato et al. 2018) and a projection of the class.

    The score of an image of a class is linear in its features, plus their inner product with the embedding of the
    class (Miyato and Koyama 2018).
    """

    def __init__(self, sample_shape: tuple[int, ...], classes: int, width: int) -> None:
        super().__init__()
        channels = sample_shape[0]
        layers: list[nn.Module] = []
        for stage in range(len(stage_sizes(*sample_shape[1:]))):
            out = width * min(2**stage, 2)
            layers.append(spectral_norm(nn.Conv2d(channels, out, 3, stride=2, padding=1)))
            channels = out
        self.layers = nn.ModuleList(layers)
        self.score = spectral_norm(nn.Linear(channels, 1))
        self.classes = spectral_norm(nn.Embedding(classes, channels))

    def features(self, images: Tensor) -> Tensor:
        """float32 (n, features): mean of the last activations over the image."""
        for layer in self.layers:
            images = F.leaky_relu(layer(images), 0.2)
        return images.mean(dim=(2, 3)) * images.shape[2] * images.shape[3]

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """float32 (n,): large for images that look real for their class, int64 (n,) ``labels``."""
        features = self.features(images)
        projected: Tensor = (self.classes(labels) * features).sum(dim=1)
        score: Tensor = self.score(features)[:, 0]
        return score + projected


def hinge(real: Tensor, generated: Tensor) -> Tensor:
    """Loss of the discriminator for its scores (Lim and Ye 2017); that of the generator is −mean(generated)."""
    return torch.relu(1 - real).mean() + torch.relu(1 + generated).mean()


_MIN_STEPS = 20


def invert(
    trained: Trained,
    images: Tensor,
    labels: Tensor,
    problem: SetupContext,
    *,
    steps: int = 100,
    learning_rate: float = 0.05,
    feature_weight: float = 0.1,
) -> Tensor:
    """float32 (n, code): minimise the squared distance of pixels plus that of the discriminator's features by Adam.

    Where the problem has no time left, 20 steps must do; the first guesses are good ones.

    Args:
        images: float32 (n, channels, height, width) network inputs.
        labels: int64 (n,): their classes, for the first guess; all of the code is optimised.
        feature_weight: of the features' mean squared distance, against that of the pixels.
    """
    codes = trained.codes(images, labels).requires_grad_()
    adam = torch.optim.Adam([codes], lr=learning_rate)
    with torch.no_grad():
        goals = torch.cat([trained.discriminator.features(part) for (part,) in micro_batches(images)])
    for step in range(steps):
        if step >= _MIN_STEPS and not problem.has_time():
            break
        adam.zero_grad(set_to_none=True)
        for part, goal, rows in micro_batches(images, goals, torch.arange(len(images))):
            generated = generate(trained.weights, codes[rows])
            features = trained.discriminator.features(generated)
            # Means over all but the samples: a code's descent is its own affair.
            distance = (generated - part).square().flatten(1).mean(dim=1).sum()
            distance = distance + feature_weight * (features - goal).square().mean(dim=1).sum()
            distance.backward()  # type: ignore[no-untyped-call]
        adam.step()
    return codes.detach()


_SIDE = 16  # axes of more pixels would cost time and describe details that no short code can hold
_SAMPLES = 10_000


@dataclass(frozen=True)
class Principal:
    """Linear map from images to vectors that are, over each class, of mean 0 and about unit variance.

    Attributes:
        means: (classes, pixels) of the coarse images; of absent classes 0.
        axes: (pixels, length), each divided by the deviation along it.
    """

    means: Tensor
    axes: Tensor

    @classmethod
    def of(cls, data: LabelledData, length: int, seed: int) -> Principal:
        """Measure ``data``; ``length`` may exceed the number of pixels, further entries are 0."""
        rows = torch.randperm(len(data), generator=generator_for(seed, "principal axes"))[:_SAMPLES]
        coarse, labels = _coarse(data.inputs(rows)).double(), data.labels[rows]
        counts = torch.bincount(labels, minlength=data.num_classes).clamp(min=1)[:, None]
        means = coarse.new_zeros(data.num_classes, coarse.shape[1]).index_add(0, labels, coarse) / counts
        centred = coarse - means[labels]
        variances, axes = torch.linalg.eigh(centred.T @ centred / len(centred))
        variances, axes = variances.flip(0)[:length], axes.flip(1)[:, :length]
        used = variances > variances[0] * 1e-6
        axes = axes * torch.where(used, variances.clamp(min=1e-30).rsqrt(), 0)
        return cls(means.float(), F.pad(axes, (0, length - axes.shape[1])).float())

    def codes(self, images: Tensor, labels: Tensor) -> Tensor:
        """float32 (n, length) of ``images`` (n, channels, height, width) of these classes."""
        return (_coarse(images) - self.means[labels]) @ self.axes

    def to(self, device: torch.device) -> Principal:
        return Principal(self.means.to(device), self.axes.to(device))


def _coarse(images: Tensor) -> Tensor:
    height, width = images.shape[2:]
    return F.adaptive_avg_pool2d(images, (min(height, _SIDE), min(width, _SIDE))).flatten(1)


_MIN_TRAIN_STEPS = 20


@settings
class Training:
    """How to train.

    Attributes:
        steps: of generator and discriminator, one each.
        batch_size: real and as many generated images a step.
        learning_rate: of Adam, β = (0, 0.99), for both networks.
        reconstruction: weight of the mean squared error of images generated from the codes of real ones.
        average: decay of the running average of the generator's weights, which is the result.
        discriminator_width: channels of its first layer; the others have twice as many.
    """

    steps: Count
    batch_size: Count = 64
    learning_rate: Positive = 2e-3
    reconstruction: NonNegative = 10.0
    average: Momentum = 0.99
    discriminator_width: Count = 16


@dataclass(frozen=True)
class Trained:
    """A trained generator and what else finds codes for images.

    Attributes:
        weights: of the generator, float32, without a graph.
        embeddings: float32 (classes, embedding): the end of the codes of each class.
        discriminator: its features compare images.
        principal: first guesses of the beginnings of codes.
        steps: that were taken.
    """

    weights: dict[str, Tensor]
    embeddings: Tensor
    discriminator: Discriminator
    principal: Principal
    steps: int

    def codes(self, images: Tensor, labels: Tensor) -> Tensor:
        """float32 (n, code): first guesses for ``images``."""
        return torch.cat([self.principal.codes(images, labels), self.embeddings[labels]], dim=1)


def train(problem: SetupContext, shapes: Mapping[str, tuple[int, ...]], embedding: int, how: Training) -> Trained:
    """Train a generator with weights of ``shapes`` for ``how.steps``, or as long as the problem has time.

    Codes of generated images are normal noise and the learned embedding of a class, drawn evenly. Beside fooling the
    discriminator the generator has to reconstruct real images from their principal components (as that of Larsen et
    al. 2016 does from an encoder's code), which keeps it from forgetting modes and makes hundreds of steps useful.

    Args:
        embedding: length of the part of a code that names the class.
    """
    device, latent = problem.device, shapes["dense"][0] - embedding
    weights, embeddings, discriminator = _initial(problem, shapes, embedding, how)
    principal = Principal.of(problem.real, latent, problem.seed).to(device)
    free = [weight for name, weight in weights.items() if name != "mean"] + [embeddings]
    for tensor in free:
        tensor.requires_grad_()
    averaged = [tensor.detach().clone() for tensor in free]
    adam = torch.optim.Adam(free, lr=how.learning_rate, betas=(0.0, 0.99))
    opponent = torch.optim.Adam(discriminator.parameters(), lr=how.learning_rate, betas=(0.0, 0.99))
    batches, step = Batches(problem.real, how.batch_size, device), 0
    while step < how.steps and (step < _MIN_TRAIN_STEPS or problem.has_time()):
        generator = generator_for(problem.seed, "generator step", step)
        real, labels = batches.draw(generator)
        noise = torch.randn(len(real), latent, generator=generator).to(device)
        generated = generate(weights, torch.cat([noise, embeddings[labels]], dim=1))
        discriminator.requires_grad_(True)
        _minimise(opponent, hinge(discriminator(real, labels), discriminator(generated.detach(), labels)))
        discriminator.requires_grad_(False)
        codes = torch.cat([principal.codes(real, labels), embeddings[labels]], dim=1)
        error = (generate(weights, codes) - real).square().mean()
        _minimise(adam, how.reconstruction * error - discriminator(generated, labels).mean())
        step += 1
        problem.report(step, how.steps, "generator")
        decay = min(how.average, step / (step + 10))  # early weights must not linger
        for average, tensor in zip(averaged, free, strict=True):
            average.lerp_(tensor.detach(), 1 - decay)
    names = [name for name in weights if name != "mean"]
    result = {"mean": weights["mean"], **dict(zip(names, averaged, strict=False))}
    discriminator.requires_grad_(False)
    return Trained({name: result[name] for name in shapes}, averaged[-1], discriminator.eval(), principal, step)


class Batches:
    """Real images of evenly drawn classes, however rare some are."""

    def __init__(self, data: LabelledData, size: int, device: torch.device) -> None:
        self._data, self._size, self._device = data, size, device
        self._order = data.labels.argsort(stable=True)
        self._present = data.class_counts.nonzero()[:, 0]
        self._counts = data.class_counts[self._present]
        self._first = (data.class_counts.cumsum(0) - data.class_counts)[self._present]

    def draw(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """float32 (size, …) network inputs and int64 (size,) labels."""
        classes = torch.randint(len(self._present), (self._size,), generator=generator)
        within = (torch.rand(self._size, generator=generator) * self._counts[classes]).long()
        rows = self._order[self._first[classes] + within.minimum(self._counts[classes] - 1)]
        return self._data.inputs(rows).to(self._device), self._data.labels[rows].to(self._device)


def _initial(
    problem: SetupContext, shapes: Mapping[str, tuple[int, ...]], embedding: int, how: Training
) -> tuple[dict[str, Tensor], Tensor, Discriminator]:
    real, device = problem.real, problem.device
    weights = initial_weights(shapes, generator_for(problem.seed, "generator"))
    rows = torch.randperm(len(real), generator=generator_for(problem.seed, "mean image"))[:10_000]
    weights["mean"] = real.inputs(rows).mean(dim=0)
    embeddings = torch.randn(real.num_classes, embedding, generator=generator_for(problem.seed, "embeddings"))
    with isolated_rng(derive_seed(problem.seed, "discriminator")):
        discriminator = Discriminator(shapes["mean"], real.num_classes, how.discriminator_width)
    on_device = {name: weight.to(device) for name, weight in weights.items()}
    return on_device, embeddings.to(device), discriminator.to(device)


def _minimise(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()


__all__ = ["MAX_SIDE", "Training", "generate", "invert", "train", "weight_shapes"]
