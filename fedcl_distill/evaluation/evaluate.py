"""Train networks from scratch on a synthetic set and test them on real data."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from fedcl_distill.data.dataset import DataLike
from fedcl_distill.data.labelled import as_labelled
from fedcl_distill.errors import DataError
from fedcl_distill.networks import Architecture, ArchitectureLike
from fedcl_distill.networks.base import as_device
from fedcl_distill.seeding import derive_seed
from fedcl_distill.synthetic import SyntheticSet
from fedcl_distill.training import FAST, Protocol, class_accuracies, fit, predict


@dataclass(frozen=True)
class Evaluation:
    """What training on a set reached.

    Attributes:
        accuracies: test accuracy of each network, in [0, 1].
        class_accuracies: accuracy on each class, mean over networks; NaN for a class without test samples.
        protocol, architecture: what was trained, and how.
        seconds: wall-clock seconds, all networks together.
    """

    accuracies: tuple[float, ...]
    class_accuracies: tuple[float, ...]
    protocol: str
    architecture: str
    seconds: float

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
            "protocol": self.protocol,
            "architecture": self.architecture,
            "evaluation_seconds": round(self.seconds, 3),
        }

    def __str__(self) -> str:
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
    accuracies, by_class = [], []
    for index in range(networks or protocol.networks):
        one = derive_seed(seed, "evaluation", index)
        network = chosen.build(synthetic.sample_shape, synthetic.num_classes, seed=one, device=device)
        fit(network, synthetic.inputs(), synthetic.labels, train_config, seed=one)
        predicted = predict(network, test)
        accuracies.append(float((predicted == test.labels).double().mean()))
        by_class.append(class_accuracies(predicted, test))
        if on_network is not None:
            on_network(index + 1, accuracies[-1])
    return Evaluation(
        accuracies=tuple(accuracies),
        class_accuracies=tuple(torch.stack(by_class).mean(dim=0).tolist()),
        protocol=protocol.name,
        architecture=str(chosen),
        seconds=time.monotonic() - started,
    )
