"""Truth: numpy's solver on the whole test set at once."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from builders import blobs
from fedcl_distill.data import LabelledData
from fedcl_distill.errors import DataError, SettingsError
from fedcl_distill.evaluation import kernel_accuracy, kernel_predictions
from fedcl_distill.networks import Architecture
from fedcl_distill.objectives import FullyConnectedNTK, NetworkFeatures
from fedcl_distill.synthetic import SyntheticSet


def few(data: LabelledData) -> SyntheticSet:
    return SyntheticSet.of_real(data.subset(torch.arange(0, len(data), 10)), provenance={})


def test_predictions_are_those_of_numpy_and_do_not_hang_on_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    data, kernel = blobs(per_class=20), FullyConnectedNTK()
    synthetic, x = few(data), data.inputs().flatten(1).double()
    s = synthetic.inputs().flatten(1).double()
    k_ss, k_ts = kernel.between(s, s).numpy(), kernel.between(x, s).numpy()
    labels = np.eye(3)[synthetic.labels.numpy()] - 1 / 3
    expected = k_ts @ np.linalg.solve(k_ss + 1e-3 * np.trace(k_ss) / len(s) * np.eye(len(s)), labels)
    for at_once in (1000, 7):
        monkeypatch.setattr("fedcl_distill.evaluation.scores._AT_ONCE", at_once)
        predicted = kernel_predictions(synthetic, data, kernel, regularisation=1e-3)
        assert np.allclose(predicted.numpy(), expected, atol=1e-8)
    accuracy = kernel_accuracy(synthetic, data, kernel, regularisation=1e-3)
    assert accuracy == pytest.approx(np.mean(expected.argmax(1) == data.labels.numpy()))
    assert accuracy > 0.8


def test_a_network_can_give_the_features(untouched_global_rng: None) -> None:
    data = blobs(per_class=20)
    network = Architecture("convnet", {"width": 8}).build((1, 8, 8), 3, seed=0)
    assert kernel_accuracy(few(data), data, NetworkFeatures(), network=network) > 0.8
    with pytest.raises(SettingsError, match="embeddings"):
        kernel_accuracy(few(data), data, NetworkFeatures())
    kernel_accuracy(few(data), data, FullyConnectedNTK())


def test_other_data_are_refused_and_no_data_have_no_accuracy() -> None:
    data = blobs(per_class=20)
    with pytest.raises(DataError, match="other classes"):
        kernel_accuracy(few(data), blobs((1, 9, 9)), FullyConnectedNTK())
    nothing = data.subset(torch.arange(0))
    assert math.isnan(kernel_accuracy(few(data), nothing, FullyConnectedNTK()))
