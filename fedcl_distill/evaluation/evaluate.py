"""Train networks from scratch on a synthetic set and test them on real data."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fedcl_distill.data.dataset import DataLike
from fedcl_distill.data.labelled import as_labelled
from fedcl_distill.errors import DataError
from fedcl_distill.networks import Architecture, ArchitectureLike
from fedcl_distill.networks.base import as_device
from fedcl_distill.seeding import derive_seed
from fedcl_distill.synthetic import SyntheticSet
from fedcl_distill.training import FAST, Protocol, class_accuracies, class_logits, fit


@dataclass(frozen=True)
class Evaluation:
    """What training on a set reached.

    Attributes:
        accuracies: test accuracy of each network, in [0, 1].
        class_accuracies: accuracy on each class, mean over networks; NaN for a class without test samples.
        protocol, architecture: what was trained, and how.
        seconds: wall-clock seconds, all networks together.
        f1_macro: F1 score, mean over the classes that the test data or predictions hold; mean over networks.
        auc: area under the ROC curve, one class against the rest, mean over classes with test samples (of two classes
            it is that of either); mean over networks. NaN where the test data hold one class only.
    """

    accuracies: tuple[float, ...]
    class_accuracies: tuple[float, ...]
    protocol: str
    architecture: str
    seconds: float
    f1_macro: float = math.nan
    auc: float = math.nan

    @property
    def balanced_accuracy(self) -> float:
        """Mean accuracy on a class, over classes with test samples and over networks, in [0, 1]."""
        known = [one for one in self.class_accuracies if not math.isnan(one)]
        return statistics.fmean(known) if known else math.nan

    @property
    def mean(self) -> float:
        return statistics.fmean(self.accuracies)

    @property
    def std(self) -> float:
        """Sample standard deviation over networks; 0 for a single one."""
        return statistics.stdev(self.accuracies) if len(self.accuracies) > 1 else 0.0

    def as_record(self) -> dict[str, Any]:
        """JSON values for a result line."""
        return {
            "accuracy": self.mean,
            "accuracy_std": self.std,
            "accuracies": list(self.accuracies),
            "class_accuracies": list(self.class_accuracies),
            "balanced_accuracy": self.balanced_accuracy,
            "f1_macro": self.f1_macro,
            "auc": self.auc,
            "protocol": self.protocol,
            "architecture": self.architecture,
            "evaluation_seconds": round(self.seconds, 3),
        }

    def __str__(self) -> str:
        if len(self.accuracies) == 1:  # which has no spread
            return f"{100 * self.mean:.1f} % (1 network, {self.protocol})"
        return f"{100 * self.mean:.1f} ± {100 * self.std:.1f} % ({len(self.accuracies)} networks, {self.protocol})"


def evaluate(
    synthetic: SyntheticSet,
    test: DataLike,
    protocol: Protocol = FAST,
    *,
    seed: int = 0,
    architecture: ArchitectureLike | None = None,
    networks: int | None = None,
    device: str | torch.device = "cpu",
    on_network: Callable[[int, float], None] | None = None,
) -> Evaluation:
    """Train ``networks`` networks on ``synthetic`` and test each on ``test``.

    Args:
        synthetic: what to train on.
        test: real data to test on, any that :func:`~fedcl_distill.data.as_labelled` reads; in the set's normalisation,
            for networks know no other. Its augmentation traits also serve training.
        protocol: how to train.
        seed: fixes weights, batch order and augmentation of every network.
        architecture: what to train instead of the protocol's network: a name, an ``nn.Module`` class or more, see
            :meth:`~fedcl_distill.networks.Architecture.of`.
        networks: how many, instead of the protocol's number.
        device: where to compute, or "auto" for a GPU where there is one.
        on_network: called with the number of networks done and the last one's accuracy.

    Raises:
        DataError: the test data have other classes or sample shapes than the set, or no samples.
    """
    test, device = as_labelled(test), as_device(device)
    if synthetic.class_names != test.class_names or synthetic.sample_shape != test.sample_shape or not len(test):
        raise DataError(
            f"{test.name} cannot test this set: {len(test)} samples of shape {test.sample_shape} in "
            f"{test.num_classes} classes, the set has {synthetic.sample_shape} in {synthetic.num_classes}"
        )
    started, test = time.monotonic(), test.with_spec(normalisation=synthetic.normalisation)
    chosen = protocol.architecture_for(test) if architecture is None else Architecture.of(architecture)
    train_config = protocol.train_config_for(test, len(synthetic))
    accuracies, by_class, f1, auc = [], [], [], []
    for index in range(networks or protocol.networks):
        one = derive_seed(seed, "evaluation", index)
        network = chosen.build(synthetic.sample_shape, synthetic.num_classes, seed=one, device=device)
        fit(network, synthetic.inputs(), synthetic.labels, train_config, seed=one)
        logits = class_logits(network, test)
        predicted = logits.argmax(dim=1)
        accuracies.append(float((predicted == test.labels).double().mean()))
        by_class.append(class_accuracies(predicted, test))
        f1.append(f1_macro(predicted, test.labels))
        auc.append(roc_auc(logits.double().softmax(dim=1), test.labels))
        if on_network is not None:
            on_network(index + 1, accuracies[-1])
    return Evaluation(
        accuracies=tuple(accuracies),
        class_accuracies=tuple(torch.stack(by_class).mean(dim=0).tolist()),
        protocol=protocol.name,
        architecture=str(chosen),
        seconds=time.monotonic() - started,
        f1_macro=statistics.fmean(f1),
        auc=statistics.fmean(auc),
    )


def f1_macro(predicted: Tensor, labels: Tensor) -> float:
    """Mean F1 score over the classes that occur in ``predicted`` or ``labels``, both int64 (n,), n at least 1."""
    size = int(torch.stack([predicted.max(), labels.max()]).max()) + 1
    hits = torch.bincount(labels[predicted == labels], minlength=size).double()
    held = torch.bincount(labels, minlength=size) + torch.bincount(predicted, minlength=size)
    return float((2 * hits[held > 0] / held[held > 0]).mean())


def roc_auc(scores: Tensor, labels: Tensor) -> float:
    """Area under the ROC curve, one class against the rest, mean over classes that have samples and are not alone.

    It is the chance that a sample of the class scores higher for it than one of another (Hanley and McNeil 1982), ties
    counting half; from the ranks of all scores.

    Args:
        scores: float (n, classes).
        labels: int64 (n,).

    Returns:
        In [0, 1]; NaN where all samples are of one class.
    """
    areas = []
    for label in torch.bincount(labels).nonzero().flatten().tolist():
        positive = labels == label
        count, others = int(positive.sum()), int((~positive).sum())
        if not others:
            continue
        ordered, own = scores[:, label].sort().values, scores[:, label].contiguous()
        below = torch.searchsorted(ordered, own)
        ranks = (below + torch.searchsorted(ordered, own, right=True) + 1) / 2  # the mean rank of equal scores
        areas.append((float(ranks[positive].sum()) - count * (count + 1) / 2) / (count * others))
    return statistics.fmean(areas) if areas else math.nan
