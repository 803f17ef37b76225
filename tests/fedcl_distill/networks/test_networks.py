"""Truth: published layer sizes, and shapes of every kind of data."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from builders import blobs
from fedcl_distill.context import SetupContext
from fedcl_distill.errors import SettingsError
from fedcl_distill.network_sources import FreshRandom
from fedcl_distill.networks import Architecture, default_architecture

IMAGES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 24, 40), (1, 9, 13), (4, 64, 16)]


@pytest.mark.parametrize("shape", IMAGES)
@pytest.mark.parametrize("name", ["convnet", "mlp", "lenet", "resnet18", "vgg11", "alexnet"])
def test_every_network_reads_every_image(name: str, shape: tuple[int, ...]) -> None:
    options = {"width": 8} if name in ("convnet", "mlp", "resnet18") else {}
    network = Architecture(name, options).build(shape, 7, seed=0)
    inputs = torch.randn(2, *shape)
    assert network(inputs).shape == (2, 7)
    assert network.embed(inputs).shape == (2, network.embedding_size)
    network(inputs).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)


def test_features_take_an_mlp_and_nothing_else() -> None:
    assert default_architecture((13,)).build((13,), 2, seed=0)(torch.randn(4, 13)).shape == (4, 2)
    with pytest.raises(SettingsError, match="needs images"):
        Architecture("convnet").build((13,), 2, seed=0)


def test_convnet_has_the_published_number_of_parameters() -> None:
    # ConvNet-3 of width 128 (Zhao et al. 2021): 320,010 for CIFAR-10; every layer counted by hand.
    convolutions = (3 * 9 * 128 + 128) + 2 * (128 * 9 * 128 + 128)
    norms = 3 * 2 * 128
    linear = 128 * 4 * 4 * 10 + 10
    network = Architecture("convnet").build((3, 32, 32), 10, seed=0)
    count = sum(p.numel() for p in network.parameters())
    assert count == convolutions + norms + linear == 320_010


def test_vgg11_and_alexnet_have_the_published_number_of_parameters() -> None:
    """For CIFAR-10, layer by layer: 3×3 (VGG-11, with norm) and 5×5 or 3×3 convolutions (AlexNet, without)."""
    widths = [3, 64, 128, 256, 256, 512, 512, 512, 512]
    convolutions = sum(9 * before * after + after for before, after in pairwise(widths))
    vgg = convolutions + 2 * sum(widths[1:]) + 512 * 10 + 10
    alexnet = (3 * 25 + 1) * 128 + (128 * 25 + 1) * 192 + (192 * 9 + 1) * 256 + (256 * 9 + 1) * 192
    alexnet += (192 * 9 + 1) * 192 + (192 * 4 * 4 + 1) * 10
    for name, expected in (("vgg11", vgg), ("alexnet", alexnet)):
        for shape, extra in (((3, 32, 32), 0), ((1, 28, 28), 2)):
            network = Architecture(name).build(shape, 10, seed=0)
            first = next(layer for layer in network.body.modules() if isinstance(layer, nn.Conv2d)).weight
            assert sum(p.numel() for p in network.parameters()) == expected - extra * first[:, 0].numel()


def test_vgg11_keeps_the_signal_of_small_images() -> None:
    """Instance norm of a single pixel is zero: whatever the input, the output would be the same."""
    for shape in ((1, 8, 8), (3, 4, 4), (1, 9, 13)):
        network = Architecture("vgg11").build(shape, 3, seed=0)
        one, other = network(torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)))
        assert not torch.allclose(one, other, atol=1e-4)


def test_convnet_pads_28_to_32() -> None:
    network = Architecture("convnet").build((1, 28, 28), 10, seed=0)
    assert network.embedding_size == 128 * 4 * 4


def test_instance_norm_equals_the_definition() -> None:
    network = Architecture("convnet", {"width": 4, "depth": 1}).build((1, 8, 8), 2, seed=0)
    inputs = torch.randn(3, 1, 8, 8)
    convolution = next(layer for layer in network.body[0] if isinstance(layer, nn.Conv2d))
    hidden = convolution(inputs)
    mean, var = hidden.mean((2, 3), keepdim=True), hidden.var((2, 3), keepdim=True, unbiased=False)
    expected = nn.functional.avg_pool2d(((hidden - mean) / (var + 1e-5).sqrt()).relu(), 2).flatten(1)
    torch.testing.assert_close(network.embed(inputs), expected, rtol=1e-4, atol=1e-5)


def test_weights_come_from_the_seed_alone(untouched_global_rng: None) -> None:
    one, two, other = (Architecture("convnet", {"width": 4}).build((1, 8, 8), 2, seed=s) for s in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.classifier.weight, other.classifier.weight)


def test_fresh_networks_differ_from_view_to_view() -> None:
    source = FreshRandom(Architecture("convnet", {"width": 4})).prepare(SetupContext(blobs(), 0, torch.device("cpu")))
    one, other = (source.draw(index=0, seed=s).network for s in (1, 2))
    assert not torch.equal(one.classifier.weight, other.classifier.weight)
    assert not any(p.requires_grad for p in one.parameters())


@pytest.mark.parametrize(
    ("text", "match"),
    [("vgg", "unknown network"), ("convnet:width=x", "whole number"), ("mlp:kernel=3", "unknown option")],
)
def test_bad_names_are_refused(text: str, match: str) -> None:
    with pytest.raises(SettingsError, match=match):
        Architecture.parse(text)


def test_text_round_trip() -> None:
    parsed = Architecture.parse("convnet:width=64,depth=2")
    assert parsed.options == {"width": 64, "depth": 2}
    assert str(parsed) == "convnet(depth=2,width=64)"


def test_too_small_images_are_refused() -> None:
    with pytest.raises(SettingsError, match="depth"):
        Architecture("convnet", {"depth": 4}).build((1, 8, 8), 2, seed=0)
    with pytest.raises(SettingsError):
        Architecture("lenet").build((1, 3, 9), 2, seed=0)
