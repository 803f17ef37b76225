"""Scores that compare synthetic sets fairly whatever their labels and the augmentation (DD-Ranking, Li et al. 2025).

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

from fedcl_distill.augmentation import NoAugmentation
from fedcl_distill.context import SetupContext
from fedcl_distill.data import Splits
from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.evaluation.evaluate import evaluate
from fedcl_distill.labels import HardLabels, Labelling, Labels, TeacherLabels
from fedcl_distill.networks import Architecture, ArchitectureLike
from fedcl_distill.networks.base import as_device
from fedcl_distill.parameterizations import Pixels
from fedcl_distill.seeding import derive_seed
from fedcl_distill.selection import Random, select
from fedcl_distill.synthetic import SyntheticSet
from fedcl_distill.training import FAST, Protocol, accuracy, fit, train_config_for


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
