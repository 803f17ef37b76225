"""Judging a synthetic set by kernel ridge regression: no network is trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fedcl_distill.context import SyntheticBatch
from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.errors import DataError, SettingsError
from fedcl_distill.network_sources.base import no_network
from fedcl_distill.networks import adapted
from fedcl_distill.objectives.kernel_ridge import Kernel, gram, ridge_coefficients
from fedcl_distill.synthetic import SyntheticSet

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
