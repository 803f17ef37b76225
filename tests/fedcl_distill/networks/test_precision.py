"""Networks that compute in bfloat16 from float32 weights."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from fedcl_distill.errors import SettingsError
from fedcl_distill.networks import Architecture, list_architectures
from fedcl_distill.training import TrainConfig, accuracy, fit

SHAPE = (1, 28, 28)


def pair(name: str):
    """The same weights in both precisions."""
    return [
        Architecture(name, {"precision": precision}).build(SHAPE, 5, seed=0) for precision in ("float32", "bfloat16")
    ]


@pytest.mark.parametrize("name", [name for name in list_architectures() if name != "linear"])  # it embeds nothing
def test_embeddings_stages_and_scores_are_float32_and_close_but_not_equal(name):
    inputs = torch.randn(4, *SHAPE, generator=torch.Generator().manual_seed(0))
    exact, coarse = pair(name)
    for of_exact, of_coarse in (
        (exact.embed(inputs), coarse.embed(inputs)),
        (exact.stages(inputs)[0], coarse.stages(inputs)[0]),
        (exact(inputs), coarse(inputs)),
    ):
        assert of_coarse.dtype == torch.float32
        assert 0 < (of_exact - of_coarse).norm() / of_exact.norm() < 0.04
    assert all(weight.dtype == torch.float32 for weight in coarse.parameters())


def test_gradients_are_float32_and_point_the_same_way():
    inputs = torch.randn(16, *SHAPE, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(16) % 5
    gradients = []
    for network in pair("convnet"):
        inputs.grad, leaf = None, inputs.clone().requires_grad_()
        F.cross_entropy(network(leaf), labels).backward()
        gradients.append(torch.cat([leaf.grad.flatten(), *(p.grad.flatten() for p in network.parameters())]))
        assert gradients[-1].dtype == torch.float32
    assert F.cosine_similarity(*gradients, dim=0) > 0.99


def test_second_derivatives_exist():
    _, network = pair("convnet")
    inputs = torch.randn(3, *SHAPE).requires_grad_()
    loss = F.cross_entropy(network(inputs), torch.arange(3))
    first = torch.autograd.grad(loss, list(network.parameters()), create_graph=True)
    torch.stack([one.square().sum() for one in first]).sum().backward()
    assert torch.isfinite(inputs.grad).all()
    assert inputs.grad.norm() > 0


def test_training_learns_as_well(digits):
    """Stale casts of weights, which autocast keeps by default, would hold this at chance."""
    reached = []
    for precision in ("float32", "bfloat16"):
        network = Architecture("convnet", {"width": 16, "precision": precision}).build((1, 8, 8), 10, seed=0)
        fit(network, digits.train.inputs(), digits.train.labels, TrainConfig(epochs=20, learning_rate=0.02), seed=0)
        reached.append(accuracy(network, digits.test))
    assert min(reached) > 0.8
    assert abs(reached[0] - reached[1]) < 0.05


def test_architecture_reads_and_shows_it():
    architecture = Architecture.parse("convnet:width=32,precision=bfloat16")
    assert architecture.precision == "bfloat16"
    assert "precision=bfloat16" in str(architecture)
    assert Architecture.parse("mlp").precision == "float32"


@pytest.mark.parametrize("text", ["convnet:precision=float8", "mlp:precision=16", "convnet:width=wide"])
def test_unknown_precisions_are_refused(text):
    with pytest.raises(SettingsError):
        Architecture.parse(text)
