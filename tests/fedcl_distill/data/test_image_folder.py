"""Image folders, written with PIL."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fedcl_distill.data import load, load_image_folder
from fedcl_distill.errors import DataError, DependencyError, SettingsError

Image = pytest.importorskip("PIL.Image")


def write(path: Path, value: int, *, mode: str = "L", size: tuple[int, int] = (4, 3)) -> None:
    """Write an image of one value; ``size`` is (width, height), as PIL has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode in ("L", "I;16") else (value,) * len(mode)).save(path)


def fill(folder: Path, count: int = 5) -> None:
    for position, name in enumerate(("cat", "dog")):
        for i in range(count):
            write(folder / name / f"{i}.png", 100 * position + i)


def test_train_and_test_folders(tmp_path: Path) -> None:
    fill(tmp_path / "train")
    write(tmp_path / "test" / "dog" / "x.png", 77)
    splits = load_image_folder(tmp_path, name="pets")
    assert splits.train.samples.shape == (10, 1, 3, 4)
    assert splits.train.samples[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 100, 101, 102, 103, 104]
    assert splits.train.class_names == ("cat", "dog")
    assert (splits.test.labels.tolist(), splits.test.samples.unique().tolist()) == ([1], [77])
    assert splits.train.name == "pets"


def test_one_folder_is_split_by_class_and_seed(tmp_path: Path) -> None:
    fill(tmp_path / "pets", count=10)
    (tmp_path / "pets" / "cat" / "Thumbs.db").write_bytes(b"not an image")
    (tmp_path / "pets" / "cat" / "._0.png").write_bytes(b"not an image")
    (tmp_path / "pets" / ".cache").mkdir()
    splits = load(str(tmp_path / "pets"))
    assert splits.train.class_counts.tolist() == [8, 8]
    assert splits.test.class_counts.tolist() == [2, 2]
    values = torch.cat([splits.train.samples, splits.test.samples])[:, 0, 0, 0]
    assert sorted(values.tolist()) == [*range(10), *range(100, 110)]
    again, other = (load_image_folder(tmp_path / "pets", seed=seed) for seed in (0, 1))
    assert torch.equal(splits.test.samples, again.test.samples)
    assert not torch.equal(splits.test.samples, other.test.samples)
    assert load("pets", root=tmp_path).train.name == "pets"


def test_one_colour_image_makes_all_colour_in_both_parts(tmp_path: Path) -> None:
    fill(tmp_path / "train")
    write(tmp_path / "test" / "dog" / "x.png", 77, mode="RGB")
    write(tmp_path / "test" / "dog" / "y.png", 78, mode="RGBA")
    splits = load_image_folder(tmp_path)
    assert splits.train.sample_shape == splits.test.sample_shape == (3, 3, 4)
    assert splits.train.samples[9].unique().tolist() == [104]
    assert splits.test.samples[1].unique().tolist() == [201]  # 78 of 255 opaque, on white


def test_sizes_must_agree_unless_resized(tmp_path: Path) -> None:
    fill(tmp_path)
    write(tmp_path / "dog" / "wide.png", 200, size=(8, 3))
    with pytest.raises(DataError, match=r"wide\.png: is 3 x 8 pixels.*3 x 4; pass size="):
        load_image_folder(tmp_path)
    splits = load_image_folder(tmp_path, size=(6, 2))
    assert splits.train.sample_shape == (1, 6, 2)
    assert {200, 0, 104} <= set(torch.cat([splits.train.samples, splits.test.samples]).unique().tolist())
    with pytest.raises(SettingsError, match="size"):
        load_image_folder(tmp_path, size=(0, 4))


def test_resizing_is_bilinear(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(2):
            Image.fromarray(np.array([[0, 200]], dtype=np.uint8)).save(tmp_path / name / f"{i}.png")
    samples = load_image_folder(tmp_path, size=(1, 4), test_fraction=0.5).train.samples
    # Centres of four pixels over two: 1/4 and 3/4 of the way between the outer two.
    assert samples[0, 0, 0].tolist() == [0, 50, 150, 200]


def test_folders_that_cannot_work(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        load_image_folder(tmp_path / "absent")
    with pytest.raises(DataError, match="holds no folders"):
        load_image_folder(tmp_path)
    fill(tmp_path / "train")
    with pytest.raises(DataError, match="test: no such folder"):
        load_image_folder(tmp_path)
    write(tmp_path / "test" / "bird" / "x.png", 1)
    with pytest.raises(DataError, match="bird"):
        load_image_folder(tmp_path)


def test_an_empty_class_folder_is_an_error(tmp_path: Path) -> None:
    fill(tmp_path)
    (tmp_path / "emu").mkdir()
    with pytest.raises(DataError, match="emu: holds no images"):
        load_image_folder(tmp_path)


@pytest.mark.parametrize("damage", ["empty", "text", "cut"])
def test_an_unreadable_image_is_named(tmp_path: Path, damage: str) -> None:
    fill(tmp_path)
    file = tmp_path / "dog" / "3.png"
    content = {"empty": b"", "text": b"not an image", "cut": file.read_bytes()[:45]}[damage]
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"3\.png: cannot be read as an image"):
        load_image_folder(tmp_path)


def test_a_few_bytes_that_claim_a_huge_picture_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    """What the fuzzer found: 105 bytes of WebP for which the decoder made room for 304 MiB."""
    path = tmp_path / "a" / "0.webp"
    path.parent.mkdir()
    path.write_bytes(bytes.fromhex("524946465c0000005745425056503820500000" + "00f001009d012a009d012a0600" + "ff" * 74))
    with pytest.raises(DataError, match=r"0\.webp: cannot be read .* \d+ x \d+ are more than 33,554,432 pixels"):
        load_image_folder(tmp_path)


def test_sixteen_bits_are_refused_not_clipped(tmp_path: Path) -> None:
    fill(tmp_path)
    write(tmp_path / "dog" / "deep.png", 4000, mode="I;16")
    with pytest.raises(DataError, match=r"deep\.png.*more than 8 bits"):
        load_image_folder(tmp_path)


def test_without_pillow_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(DependencyError, match=r"fedcl-distill\[data\]"):
        load_image_folder(tmp_path)
