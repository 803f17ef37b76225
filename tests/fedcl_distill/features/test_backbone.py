"""Backbones: where features are, what reads them, and that no two are taken for one."""

import pytest
import torch
from torch import nn

from fedcl_distill.data import LabelledData, Normalisation
from fedcl_distill.errors import CheckpointError, DataError, DependencyError, SettingsError
from fedcl_distill.features import BACKBONES, Backbone, RandomFeatures


class Plain(nn.Module):
    """Convolution, pooling and a linear head, as users write it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3)
        self.norm = nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, 10)

    def forward(self, images):
        return self.fc(self.norm(self.conv(images)).relu().mean((2, 3)))


class Timm(Plain):
    """With the contract of timm."""

    def forward_features(self, images):
        return self.norm(self.conv(images)).relu()

    def forward_head(self, features, pre_logits=False):
        pooled = features.mean((2, 3))
        return pooled if pre_logits else self.fc(pooled)


@pytest.fixture
def images():
    pixels = torch.randint(256, (10, 3, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    return LabelledData.from_tensors(pixels, torch.arange(10) % 2)


def by_hand(network, images):
    network.eval()
    inputs = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)).apply(images)
    return network.norm(network.conv(inputs)).relu().mean((2, 3))


@pytest.mark.parametrize("kind", [Plain, Timm])
def test_features_are_what_the_last_linear_layer_reads(images, kind):
    network = kind()
    backbone = Backbone(network, unit_length=False)
    torch.testing.assert_close(backbone.embed(images.unit()), by_hand(network, images.unit()))
    unit = Backbone(network).embed(images.unit())
    torch.testing.assert_close(unit.norm(dim=1), torch.ones(10))


def test_a_network_without_head_gives_its_output(images):
    network = Plain()
    network.fc = nn.Sequential(nn.Linear(6, 5), nn.ReLU())
    assert Backbone(network).embed(images.unit()).shape == (10, 5)


def test_a_layer_may_be_named(images):
    network = Plain()
    assert Backbone(network, layer="conv").embed(images.unit()).shape == (10, 6 * 6 * 6)
    with pytest.raises(SettingsError, match="no submodule 'layer4'"):
        Backbone(network, layer="layer4")


def test_grey_and_small_images_are_made_to_fit():
    backbone = Backbone(Plain(), size=12)
    assert backbone.embed(torch.rand(2, 1, 5, 9)).shape == (2, 6)


def test_weights_and_running_statistics_stay(images):
    network = Plain()
    before = {name: one.clone() for name, one in network.state_dict().items()}
    Backbone(network).features(images)
    for name, one in network.state_dict().items():
        torch.testing.assert_close(one, before[name], rtol=0, atol=0)


def test_features_are_cached_under_data_and_backbone(images, tmp_path):
    backbone = Backbone(Plain())
    seen = []
    first = backbone.features(images, batch_size=4, cache=tmp_path, on_batch=lambda *done: seen.append(done))
    assert seen == [(4, 10), (8, 10), (10, 10)]
    again = backbone.features(images, cache=tmp_path, on_batch=lambda *done: seen.append(done))
    assert len(seen) == 3
    assert torch.equal(first.samples, again.samples)
    assert first.normalisation.mean == (0.0,) * 6
    Backbone(Plain()).features(images, cache=tmp_path)  # other weights, another file
    assert len(list(tmp_path.iterdir())) == 2
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="damaged"):
        backbone.features(images, cache=tmp_path)


def test_a_fingerprint_names_weights_layer_size_and_preprocessing():
    network = Plain()
    others = [
        Backbone(network),
        Backbone(network, layer="fc"),
        Backbone(network, size=9),
        Backbone(network, normalisation=None),
        Backbone(network, unit_length=False),
        Backbone(Plain()),
    ]
    assert len({one.fingerprint for one in others}) == len(others)
    assert Backbone(network).fingerprint == others[0].fingerprint


def test_nan_is_refused(images):
    network = Plain()
    with torch.no_grad():
        network.conv.weight[0] = float("nan")
    with pytest.raises(DataError, match="NaN"):
        Backbone(network).features(images)


@pytest.mark.parametrize("size", [0, -1, 1.5, True])
def test_a_size_is_a_whole_number(size):
    with pytest.raises(SettingsError, match="size must be"):
        Backbone(Plain(), size=size)


def test_random_features_are_the_same_for_whoever_knows_the_seed():
    samples = torch.rand(3, 1, 4, 4)
    assert torch.equal(RandomFeatures(7, 1)(samples), RandomFeatures(7, 1)(samples))
    assert not torch.equal(RandomFeatures(7, 1)(samples), RandomFeatures(7, 2)(samples))
    assert (RandomFeatures(7)(samples) >= 0).all()


def test_backbones_have_names():
    assert {"efficientnet-lite0", "torchvision", "timm"} <= set(BACKBONES.names())
    with pytest.raises(SettingsError, match="no model 'resnet19'"):
        BACKBONES.build("torchvision:resnet19")
    with pytest.raises(SettingsError, match="did you mean"):
        BACKBONES.build("efficientnet")


def test_the_lite_network_carries_its_weights():
    try:
        backbone = BACKBONES.build("efficientnet-lite0:size=32")
    except DependencyError as error:
        pytest.skip(str(error))
    assert backbone.embed(torch.rand(2, 1, 28, 28)).shape == (2, 1280)
