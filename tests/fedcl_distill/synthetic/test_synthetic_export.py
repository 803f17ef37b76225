"""Truth: pixels computed by hand, a PNG reader written from the specification (and Pillow, if installed)."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
import torch

from fedcl_distill.data.spec import Normalisation
from fedcl_distill.errors import DataError, SettingsError
from fedcl_distill.synthetic import image_grid, save_dd_ranking, save_png
from synthetic_builders import make_set

RGB = Normalisation((0.5, 0.4, 0.3), (0.2, 0.1, 0.3))


def unit_set(unit: torch.Tensor, labels: list[int], classes: int = 3, **changes):
    channels = unit.shape[1]
    normalisation = Normalisation(RGB.mean[:channels], RGB.std[:channels])
    return make_set(
        pixels=normalisation.apply(unit),
        labels=torch.tensor(labels),
        classes=classes,
        normalisation=normalisation,
        **changes,
    )


def read_png(content: bytes) -> np.ndarray:
    """uint8 (height, width, 3) of an 8-bit RGB PNG without row filters; every checksum is verified."""
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    position, chunks = 8, []
    while position < len(content):
        (length,) = struct.unpack_from(">I", content, position)
        kind, data = content[position + 4 : position + 8], content[position + 8 : position + 8 + length]
        assert struct.unpack_from(">I", content, position + 8 + length) == (zlib.crc32(kind + data),)
        chunks.append((kind, data))
        position += 12 + length
    chunks = [one for one in chunks if one[0] != b"iTXt"]
    assert [kind for kind, _ in chunks] == [b"IHDR", b"IDAT", b"IEND"]
    width, height, depth, colour, *rest = struct.unpack(">2I5B", chunks[0][1])
    assert (depth, colour, rest) == (8, 2, [0, 0, 0])
    rows = np.frombuffer(zlib.decompress(chunks[1][1]), np.uint8).reshape(height, 1 + 3 * width)
    assert not rows[:, 0].any()
    return rows[:, 1:].reshape(height, width, 3)


def test_grid_of_non_square_colour_images():
    unit = torch.rand(3, 3, 2, 4, generator=torch.Generator().manual_seed(0))
    grid = image_grid(unit_set(unit, [2, 0, 2]))
    assert grid.dtype == np.uint8
    assert grid.shape == (2 * 3 + 1, 2 * 5 + 1, 3)  # a row for class 0, one for class 2, none for class 1
    expected = (unit * 255).round().byte().permute(0, 2, 3, 1).numpy()
    for image, row, column in [(1, 0, 0), (0, 1, 0), (2, 1, 1)]:
        cell = grid[1 + 3 * row : 3 + 3 * row, 1 + 5 * column : 5 + 5 * column].astype(int)
        assert np.abs(cell - expected[image]).max() <= 1
    assert (grid[::3] == 255).all()
    assert (grid[:, ::5] == 255).all()
    assert (grid[1:3, 6:10] == 255).all()  # class 0 has no second image


def test_grey_images_become_rgb_and_values_are_clamped_to_the_value_range():
    unit = torch.tensor([-3.0, 1.0, 2.0, 9.0]).view(1, 1, 1, 4)
    grid = image_grid(unit_set(unit, [0], value_range=(1.0, 3.0)))
    assert grid[1, 1:-1].tolist() == [[0] * 3, [0] * 3, [128] * 3, [255] * 3]


def test_columns_limit_the_images_of_a_class():
    one = make_set((7, 1, 2, 2), labels=torch.tensor([0, 0, 0, 0, 0, 1, 1]))
    assert image_grid(one).shape == (7, 16, 3)
    assert image_grid(one, columns=3).shape == (7, 10, 3)
    assert image_grid(one, columns=99).shape == (7, 16, 3)


def test_a_hundred_classes_have_a_hundred_rows():
    assert image_grid(make_set((200, 3, 4, 6), classes=100)).shape == (501, 15, 3)


def test_soft_labels_are_sorted_by_their_largest_entry():
    unit = torch.tensor([1.0, 0.0]).view(2, 1, 1, 1)
    grid = image_grid(make_set(pixels=(unit - 0.1307) / 0.3081, labels=torch.tensor([[0.1, 0.9], [0.8, 0.2]])))
    assert grid[1, 1].tolist() == [0] * 3
    assert grid[3, 1].tolist() == [255] * 3


@pytest.mark.parametrize("shape", [(4, 15), (4, 2, 3, 3), (0, 1, 3, 3)])
def test_what_is_no_picture_is_refused(shape):
    with pytest.raises(DataError, match="picture needs"):
        image_grid(make_set(shape))


@pytest.mark.parametrize("scale", [1, 3])
def test_png_holds_the_grid(tmp_path, scale):
    one = make_set((5, 3, 7, 4))
    path = save_png(one, tmp_path / "folder" / "grid.png", scale=scale)
    expected = image_grid(one).repeat(scale, axis=0).repeat(scale, axis=1)
    np.testing.assert_array_equal(read_png(path.read_bytes()), expected)
    image = pytest.importorskip("PIL.Image")
    np.testing.assert_array_equal(np.asarray(image.open(path).convert("RGB")), expected)


def test_png_refuses_absurd_settings(tmp_path):
    with pytest.raises(SettingsError, match="scale"):
        save_png(make_set(), tmp_path / "a.png", scale=0)
    with pytest.raises(SettingsError, match="columns"):
        save_png(make_set(), tmp_path / "a.png", columns=0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("normalised", [True, False])
def test_torch_dataset(normalised):
    one = make_set()
    sample, label = one.dataset(normalised=normalised)[1]
    assert torch.equal(sample, (one.inputs() if normalised else one.samples())[1])
    assert (label.dtype, int(label)) == (torch.int64, 1)


def test_torch_dataset_is_detached_and_keeps_soft_labels():
    labels = torch.tensor([[0.2, 0.8]], requires_grad=True)
    one = make_set(pixels=torch.zeros(1, 1, 2, 2, requires_grad=True), labels=labels)
    sample, label = one.dataset()[0]
    assert not sample.requires_grad
    assert not label.requires_grad
    assert torch.equal(label, torch.tensor([0.2, 0.8]))


def test_dd_ranking_gets_plain_tensors_sorted_by_class(tmp_path):
    one = make_set((4, 3, 2, 5), labels=torch.tensor([1, 0, 1, 0]))
    images, labels = save_dd_ranking(one, tmp_path / "DM")
    assert [images.name, labels.name] == ["images.pt", "labels.pt"]
    assert torch.equal(torch.load(images, weights_only=True), one.inputs()[[1, 3, 0, 2]])
    assert torch.load(labels, weights_only=True).tolist() == [0, 0, 1, 1]


def test_dd_ranking_takes_another_normalisation_and_soft_labels(tmp_path):
    soft = torch.tensor([[0.1, 0.9], [0.6, 0.4]])
    one = make_set((2, 3, 2, 2), labels=soft)
    images, labels = save_dd_ranking(one, tmp_path, normalisation=RGB)
    torch.testing.assert_close(torch.load(images, weights_only=True), RGB.apply(one.samples())[[1, 0]])
    assert torch.equal(torch.load(labels, weights_only=True), soft[[1, 0]])


def test_dd_ranking_refuses_unequal_counts_or_repeats_small_classes(tmp_path):
    one = make_set()
    counts = one.class_counts.tolist()
    short = one.subset(torch.arange(len(one) - 1))
    if len(set(short.class_counts.tolist())) == 1:
        short = one.subset(torch.arange(1, len(one)))
    with pytest.raises(DataError, match=r"as many samples of every class, this set has .*repeat=True"):
        save_dd_ranking(short, tmp_path)
    _, labels = save_dd_ranking(short, tmp_path, repeat=True)
    most = max(short.class_counts.tolist())
    assert torch.load(labels, weights_only=True).bincount().tolist() == [most] * len(counts)


def test_dd_ranking_refuses_features_and_other_channels(tmp_path):
    with pytest.raises(DataError, match="takes images"):
        save_dd_ranking(make_set((4, 15)), tmp_path)
    with pytest.raises(DataError, match="3 channels, images 1"):
        save_dd_ranking(make_set(), tmp_path, normalisation=RGB)
