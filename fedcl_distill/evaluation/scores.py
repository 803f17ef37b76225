"""What accuracy alone does not say: robust scores, accuracy under attack, kernel regression.

The robust scores compare sets fairly whatever their labels and the augmentation (DD-Ranking, Li et al. 2025).
Accuracies are fractions of the test set. Both scores lie in [0, 1]: 0.27 stands for a set that is no better than random
samples (and, for the label-robust score, as good as all real data); larger is better.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedcl_distill.augmentation import NoAugmentation
from fedcl_distill.context import SetupContext, SyntheticBatch
from fedcl_distill.data import Splits
from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.errors import DataError, SettingsError
from fedcl_distill.evaluation.evaluate import evaluate
from fedcl_distill.labels import HardLabels, Labelling, Labels, TeacherLabels
from fedcl_distill.network_sources.base import no_network
from fedcl_distill.networks import Architecture, ArchitectureLike, adapted
from fedcl_distill.networks.base import as_device, micro_batches
from fedcl_distill.objectives.kernel_ridge import Kernel, gram, ridge_coefficients
from fedcl_distill.parameterizations import Pixels
from fedcl_distill.seeding import derive_seed, generator_for
from fedcl_distill.selection import Random, select
from fedcl_distill.settings import Count, NonNegative, Positive, settings
from fedcl_distill.synthetic import SyntheticSet
from fedcl_distill.training import FAST, Protocol, accuracy, fit, train_config_for

_AT_ONCE = 1000  # test samples; their kernel with the set is held at once


@torch.no_grad()
def kernel_predictions(
    synthetic: SyntheticSet,
    test: LabelledData,
    kernel: Kernel,
    *,
    network: nn.Module | None = None,
    regularisation: float = 1e-6,
) -> Tensor:
    """float64 (n, classes): what a ridge regression fitted to ``synthetic`` predicts for each sample of ``test``.

    Predictions are of one-hot rows minus 1/classes; the largest names the class.

    Args:
        synthetic: what the regression is fitted to.
        test: real data.
        kernel: the one that the set was distilled for, as a rule.
        network: whose embeddings a kernel of network features takes, any module with its weights; a closed form needs
            none.
        regularisation: relative to the mean of the kernel's diagonal.

    Raises:
        DataError: the test data have other classes or sample shapes than the set.
        SettingsError: the kernel needs a network and there is none.
        DivergenceError: the kernel of the set cannot be made positive definite.
    """
    if synthetic.class_names != test.class_names or synthetic.sample_shape != test.sample_shape:
        raise DataError(f"{test.name} has other classes, or samples of another shape, than the synthetic set")
    if network is None and kernel.needs_network:
        raise SettingsError("this kernel takes the embeddings of a network; pass one")
    seen = no_network() if network is None else adapted(network, synthetic.sample_shape, synthetic.num_classes).eval()
    device = next(seen.parameters()).device
    side = SyntheticBatch(
        synthetic.inputs().to(device), classes=synthetic.labels.to(device), labels=synthetic.labels.to(device)
    )
    fitted = kernel.represent(seen, side.inputs)
    labels = side.probabilities(test.num_classes) - 1 / test.num_classes
    coefficients = ridge_coefficients(gram(kernel, fitted), labels, regularisation)
    rows = [
        kernel.between(kernel.represent(seen, test.inputs(part).to(device)), fitted) @ coefficients
        for part in torch.split(torch.arange(len(test)), _AT_ONCE)
    ]
    return torch.cat(rows).cpu() if rows else coefficients.new_zeros(0, test.num_classes).cpu()


def kernel_accuracy(
    synthetic: SyntheticSet,
    test: LabelledData,
    kernel: Kernel,
    *,
    network: nn.Module | None = None,
    regularisation: float = 1e-6,
) -> float:
    """Fraction of ``test`` that :func:`kernel_predictions` classifies correctly, in [0, 1]; NaN without samples."""
    predicted = kernel_predictions(synthetic, test, kernel, network=network, regularisation=regularisation)
    if len(test) == 0:
        return float("nan")
    return float((predicted.argmax(dim=1) == test.labels).double().mean())


@settings
class PGD:
    """L∞ projected gradient ascent of the cross entropy with random starts (Madry et al. 2018).

    Attributes:
        epsilon: the most that any value may change, in unit values: 8 / 255 of a pixel, say.
        steps: of each start.
        step_size: of a step, in unit values; None takes 2.5 ε / steps, as that paper does.
        restarts: random starts; a sample counts as right only if it is after every one of them.

    Raises:
        SettingsError: on construction, if a number is out of range.
    """

    epsilon: NonNegative = 8 / 255
    steps: Count = 20
    step_size: Positive | None = None
    restarts: Count = 1

    @property
    def stride(self) -> float:
        return 2.5 * self.epsilon / self.steps if self.step_size is None else self.step_size

    def attack(self, network: nn.Module, data: LabelledData, *, seed: int) -> Attacked:
        """Attack ``network`` on every sample of ``data``, with full knowledge of it.

        Values stay within the data's range. ``network`` is not changed; its parameters get no gradients.

        Raises:
            DataError: there are no samples.
        """
        if len(data) == 0:
            raise DataError(f"{data.name}: there are no samples to attack")
        network.eval()
        unit = data.unit().clone()
        survived = torch.ones(len(data), dtype=torch.bool)
        found, losses = unit.clone(), []
        for restart in range(self.restarts):
            noise = torch.rand(unit.shape, generator=generator_for(seed, "pgd", restart)) * 2 - 1
            parts = []
            for x, y, start in micro_batches(unit, data.labels, noise):
                parts.append(self._ascend(network, data, x, y, self._within(data, x, x + self.epsilon * start)))
            reached = torch.cat([part for part, _ in parts])
            losses.append(torch.stack([trace for _, trace in parts]).sum(dim=0) / len(data))
            right = _scores(network, data, reached).argmax(dim=1) == data.labels
            found[survived] = reached[survived]
            survived &= right
        return Attacked(found, survived, tuple(torch.stack(losses).mean(dim=0).tolist()))

    def _ascend(
        self, network: nn.Module, data: LabelledData, unit: Tensor, labels: Tensor, reached: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Where ascent from ``reached`` ends; float64 (steps + 1,): summed losses before each step and after all."""
        device = next(network.parameters()).device
        trace = []
        for _ in range(self.steps):
            moving = reached.detach().requires_grad_()
            scores = network(data.normalisation.apply(moving).to(device))
            loss = F.cross_entropy(scores, labels.to(device), reduction="sum")
            (gradient,) = torch.autograd.grad(loss, moving)
            trace.append(float(loss.detach()))
            reached = self._within(data, unit, reached + self.stride * gradient.sign())
        final = _scores(network, data, reached)
        trace.append(float(F.cross_entropy(final, labels, reduction="sum")))
        return reached, torch.tensor(trace, dtype=torch.float64)

    def _within(self, data: LabelledData, unit: Tensor, reached: Tensor) -> Tensor:
        low, high = data.value_range
        near = torch.minimum(torch.maximum(reached, unit - self.epsilon), unit + self.epsilon)
        return near.clamp(low, high)


@dataclass(frozen=True)
class Attacked:
    """What an attack found.

    Attributes:
        unit: float32 (n, …): samples changed, in unit values; of the first start that led astray, or of the last.
        survived: bool (n,): classified rightly after every start.
        losses: mean loss before each step and after the last, mean over starts. Where it does not rise, gradients are
            masked, and the accuracy says nothing (Athalye et al. 2018).
    """

    unit: Tensor
    survived: Tensor
    losses: tuple[float, ...]

    @property
    def accuracy(self) -> float:
        """In [0, 1]."""
        return float(self.survived.double().mean())


@torch.no_grad()
def _scores(network: nn.Module, data: LabelledData, unit: Tensor) -> Tensor:
    device = next(network.parameters()).device
    return torch.cat([network(data.normalisation.apply(part).to(device)).cpu() for (part,) in micro_batches(unit)])


def label_robust_score(
    *, real_hard: float, synthetic_hard: float, synthetic: float, random: float, weight: float = 0.5
) -> float:
    """LRS: what a set recovers of the real data by hard labels, and gains over random samples by its own (section 3).

    α = w · IOR − (1 − w) · HLR with HLR = ``real_hard`` − ``synthetic_hard`` and IOR = ``synthetic`` − ``random``,
    mapped to (e^α − e⁻¹) / (e − e⁻¹).

    Args:
        real_hard: accuracy after training on all real data with hard labels.
        synthetic_hard: on the set with hard labels.
        synthetic: on the set with its own labels, hard or soft.
        random: on as many random real samples, labelled in the set's own way.
        weight: w in [0, 1], of the gain over random samples.
    """
    return _to_unit(weight * (synthetic - random) - (1 - weight) * (real_hard - synthetic_hard))


def augmentation_robust_score(
    *, synthetic: float, random: float, synthetic_plain: float, random_plain: float, weight: float = 0.5
) -> float:
    """ARS: the gain over random samples with augmentation and without.

    β = γ · (``synthetic`` − ``random``) + (1 − γ) · (``synthetic_plain`` − ``random_plain``), mapped as in
    :func:`label_robust_score`.

    Args:
        synthetic, random: accuracies after training with augmentation, on the set and on as many random real samples.
        synthetic_plain, random_plain: the same without augmentation.
        weight: γ in [0, 1], of the gain with augmentation.
    """
    return _to_unit(weight * (synthetic - random) + (1 - weight) * (synthetic_plain - random_plain))


def _to_unit(gain: float) -> float:
    """[−1, 1] to [0, 1], steeper where gains are large."""
    return (math.exp(gain) - math.exp(-1)) / (math.e - math.exp(-1))


@dataclass(frozen=True)
class Scores:
    """Both scores and what they are made of: see the two functions of their names for the accuracies."""

    real_hard: float
    synthetic_hard: float
    synthetic: float
    random: float
    synthetic_plain: float
    random_plain: float

    @property
    def label_robust(self) -> float:
        return label_robust_score(
            real_hard=self.real_hard, synthetic_hard=self.synthetic_hard, synthetic=self.synthetic, random=self.random
        )

    @property
    def augmentation_robust(self) -> float:
        return augmentation_robust_score(
            synthetic=self.synthetic,
            random=self.random,
            synthetic_plain=self.synthetic_plain,
            random_plain=self.random_plain,
        )

    def as_record(self) -> dict[str, Any]:
        """JSON values for a result line."""
        return {
            "label_robust_score": self.label_robust,
            "augmentation_robust_score": self.augmentation_robust,
            **{f"accuracy_{name}": value for name, value in asdict(self).items()},
        }


def score(
    synthetic: SyntheticSet,
    splits: Splits,
    protocol: Protocol = FAST,
    *,
    seed: int = 0,
    real_hard: float | None = None,
    labels: Labels | None = None,
    architecture: ArchitectureLike | None = None,
    networks: int | None = None,
    device: str | torch.device = "cpu",
    on_accuracy: Callable[[str, float], None] | None = None,
) -> Scores:
    """Train what the scores need, all by one protocol, and put the scores together.

    DD-Ranking's own code searches a learning rate for each set and takes the best epoch by test accuracy; here every
    network is trained alike and judged once, at the end, so that nothing is chosen by test data.

    Args:
        synthetic: what to score.
        splits: the real data; random samples come from the training part.
        protocol: how to train on few samples.
        seed: fixes networks, random samples and the teacher.
        real_hard: accuracy of training on all real data, if known: see :func:`real_accuracy`, which is costly.
        labels: how random samples are labelled. By default as the set is: hard, or by a teacher, which is trained on
            the real data, with the temperature of the set's provenance.
        architecture: what to train instead of the protocol's network.
        networks: how many for each accuracy, instead of the protocol's number; each has its own random samples.
        device: where to compute.
        on_accuracy: called with the name, as :class:`Scores` has it, and the value of each accuracy.

    Raises:
        DataError: the data have other classes or sample shapes than the set.
    """
    count = networks or protocol.networks
    judge = _Judge(splits, protocol, seed, architecture, device)
    labelling = _labelling(synthetic, labels, splits.train, seed, as_device(device))
    random = [
        _random_like(synthetic, splits.train, labelling, derive_seed(seed, "random", index)) for index in range(count)
    ]
    itself, hard = [synthetic] * count, [replace(synthetic, labels=synthetic.hard_labels)] * count
    augmented = protocol.train_config_for(splits.test).augmentation != NoAugmentation()
    found: dict[str, float] = {}

    def note(name: str, value: float) -> None:
        found[name] = value
        if on_accuracy is not None:
            on_accuracy(name, value)

    note("synthetic", judge.accuracy(itself))
    note("random", judge.accuracy(random))
    note("synthetic_plain", judge.accuracy(itself, augment=False) if augmented else found["synthetic"])
    note("random_plain", judge.accuracy(random, augment=False) if augmented else found["random"])
    note("synthetic_hard", judge.accuracy(hard) if synthetic.labels.ndim == 2 else found["synthetic"])
    note("real_hard", judge.accuracy_of_all_real() if real_hard is None else real_hard)
    return Scores(**found)


def real_accuracy(
    splits: Splits,
    protocol: Protocol = FAST,
    *,
    seed: int = 0,
    architecture: ArchitectureLike | None = None,
    device: str | torch.device = "cpu",
) -> float:
    """Test accuracy of the protocol's network after training on all real data, by the train_config for real data."""
    chosen = protocol.architecture_for(splits.train) if architecture is None else Architecture.of(architecture)
    one = derive_seed(seed, "real")
    network = chosen.build(splits.train.sample_shape, splits.train.num_classes, seed=one, device=device)
    fit(network, splits.train.inputs(), splits.train.labels, train_config_for(splits.train), seed=one)
    return accuracy(network, splits.test)


@dataclass(frozen=True)
class _Judge:
    """What all trainings of one score have in common."""

    splits: Splits
    protocol: Protocol
    seed: int
    architecture: ArchitectureLike | None
    device: str | torch.device

    def accuracy(self, sets: Sequence[SyntheticSet], *, augment: bool = True) -> float:
        """Mean accuracy of one network for each of ``sets``; the n-th has the same seed for all kinds of sets."""
        protocol = self.protocol if augment else replace(self.protocol, augment=False)
        return statistics.fmean(self._train(one, protocol, index) for index, one in enumerate(sets))

    def accuracy_of_all_real(self) -> float:
        return real_accuracy(
            self.splits, self.protocol, seed=self.seed, architecture=self.architecture, device=self.device
        )

    def _train(self, one: SyntheticSet, protocol: Protocol, index: int) -> float:
        seed = derive_seed(self.seed, "score", index)
        test, architecture, device = self.splits.test, self.architecture, self.device
        return evaluate(one, test, protocol, seed=seed, architecture=architecture, networks=1, device=device).mean


def _labelling(
    synthetic: SyntheticSet, labels: Labels | None, real: LabelledData, seed: int, device: torch.device
) -> Labelling:
    if labels is None:
        labels = (
            TeacherLabels(temperature=_temperature(synthetic.provenance))
            if synthetic.labels.ndim == 2
            else HardLabels()
        )
    return labels.open(SetupContext(real, derive_seed(seed, "labels"), device))


def _temperature(provenance: Mapping[str, Any]) -> float:
    """Of the teacher that labelled a set, or gave the labels that were learned further; 1 if nothing is said."""
    told = provenance.get("labels")
    if isinstance(told, Mapping):
        told = told["start"] if isinstance(told.get("start"), Mapping) else told
        return float(told.get("temperature", 1.0))
    return float(provenance.get("label_temperature") or 1.0)  # as sets of version 0.1.0 say it


def _random_like(synthetic: SyntheticSet, real: LabelledData, labelling: Labelling, seed: int) -> SyntheticSet:
    """Random real samples, as many of each class as the set's arrays have room for, labelled by ``labelling``."""
    chosen = real.subset(select(real, _equal_counts(synthetic, real), Random(), seed=seed))
    plain = SyntheticSet.of_real(chosen)
    inputs = plain.inputs()
    labels = labelling.final(inputs, labelling.initial(inputs, plain.labels)).cpu()
    return replace(plain, labels=labels)


def _equal_counts(synthetic: SyntheticSet, real: LabelledData) -> list[int]:
    """Samples of each class: the set's own where each has one, else as many values as it stores, spread evenly."""
    available = real.class_counts.tolist()
    if isinstance(synthetic.parameterization, Pixels) and synthetic.labels.ndim == 1:
        wanted = synthetic.class_counts.tolist()
    else:
        stored = sum(array.numel() for array in synthetic.arrays.values())
        total = max(1, stored // math.prod(synthetic.sample_shape))
        present = [label for label, have in enumerate(available) if have]
        wanted = [0] * len(available)
        for place, label in enumerate(present):
            wanted[label] = total // len(present) + (place < total % len(present))
    return [min(want, have) for want, have in zip(wanted, available, strict=True)]
