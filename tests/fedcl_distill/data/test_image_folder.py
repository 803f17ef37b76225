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
    with pytest.raises(DataError, match=r"wide\.png: is 3 x 8 pixels.*3 x 4; 2 sizes in all: pass size="):
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
    write(tmp_path / "test" / "bird" / "x.png", 1)
    with pytest.raises(DataError, match=r"bird.*not among those of training"):
        load_image_folder(tmp_path)
    for folder, hint in (
        (tmp_path / "loose", r"test/, train/ hold no folders, expected one a class"),
        (tmp_path / "zip", r"holds pets/ alone.*did you mean .*zip/pets"),
        (tmp_path / "untrained", r"has no train/; expected train/CLASS"),
        (tmp_path / "double", r"holds both Train/ and training/"),
    ):
        if folder.name == "loose":
            write(folder / "train" / "a.png", 1)
            write(folder / "test" / "a.png", 1)
        for part in {"zip": ["pets"], "untrained": ["test"], "double": ["Train", "training"]}.get(folder.name, []):
            fill(folder / part)
        with pytest.raises(DataError, match=hint):
            load_image_folder(folder)


@pytest.mark.parametrize(("train", "test"), [("Training", "Testing"), ("TRAIN", "test"), ("train", "val")])
def test_parts_by_other_names_are_no_classes(tmp_path: Path, train: str, test: str) -> None:
    fill(tmp_path / train)
    fill(tmp_path / test, count=2)
    for junk in ("__MACOSX/train/cat/._0.png", ".ipynb_checkpoints/0.png", f"{train}/cat/.ipynb_checkpoints/0.png"):
        write(tmp_path / junk, 255)
    for stray in (f"{train}/dog/Thumbs.db", f"{train}/dog/notes.heic", f"{train}/README.md"):
        (tmp_path / stray).write_bytes(b"no picture")
    (tmp_path / "annotations").mkdir()
    splits = load_image_folder(tmp_path)
    assert splits.train.class_names == ("cat", "dog")
    assert (splits.train.class_counts.tolist(), splits.test.class_counts.tolist()) == ([5, 5], [2, 2])
    notes = "\n".join(splits.notes)
    assert ("tested on val/" in notes) == (test == "val")
    assert "no known pictures: .heic (1)" in notes
    assert "not read: annotations/ beside train/" in notes
    assert "4 of 4 test samples are among the training samples too" in notes


def test_validation_folders(tmp_path: Path) -> None:
    for part, count in (("train", 4), ("val", 2), ("test", 1)):
        fill(tmp_path / part, count)
    sizes = {use: load_image_folder(tmp_path, validation=use) for use in ("unused", "train", "test")}
    assert [(len(one.train), len(one.test)) for one in sizes.values()] == [(8, 2), (12, 2), (8, 4)]
    assert any("not read: val/" in note for note in sizes["unused"].notes)


def test_training_pictures_alone_are_split(tmp_path: Path) -> None:
    fill(tmp_path / "train")
    splits = load_image_folder(tmp_path)
    assert (len(splits.train), len(splits.test)) == (8, 2)
    assert "held out 2 of 10 pictures for testing, a share of every class" in splits.notes


def test_all_bad_files_are_told_or_left_out_and_counted(tmp_path: Path) -> None:
    fill(tmp_path)
    for name in ("cat/1.png", "dog/3.png"):
        (tmp_path / name).write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"cat/1\.png: cannot.*dog/3\.png: cannot.*2 of 10 files; on_error='skip'"):
        load_image_folder(tmp_path)
    splits = load_image_folder(tmp_path, on_error="skip")
    kept = torch.cat([splits.train.samples, splits.test.samples])[:, 0, 0, 0]
    assert sorted(kept.tolist()) == [0, 2, 3, 4, 100, 101, 102, 104]
    assert any(note.startswith("left out 2 pictures that cannot be read: ") for note in splits.notes)
    for file in (tmp_path / "dog").iterdir():
        file.write_bytes(b"")
    with pytest.raises(DataError, match="dog: none of its pictures can be read"):
        load_image_folder(tmp_path, on_error="skip")


def test_what_was_done_to_pictures_is_counted(tmp_path: Path) -> None:
    fill(tmp_path)
    write(tmp_path / "cat" / "cmyk.jpg", 10, mode="CMYK", size=(8, 6))
    write(tmp_path / "cat" / "clear.png", 10, mode="RGBA", size=(2, 2))
    palette = Image.new("P", (4, 3), 1)
    palette.putpalette([0, 0, 0, 200, 100, 50])
    palette.save(tmp_path / "dog" / "palette.png")
    first = load_image_folder(tmp_path, size=(3, 4)).notes[0]
    assert first.startswith("13 pictures of 3×4 pixels: ")
    for said in (
        "1 with a palette, made RGB",
        "1 in CMYK, made RGB",
        "1 transparent in places, laid on white",
        "2 resized",
        "1 enlarged, being smaller",
        "1 cut at two sides",
        "10 grey, repeated to three channels",
    ):
        assert said in first


def test_proportions_are_kept_or_not(tmp_path: Path) -> None:
    wide = np.zeros((10, 40), np.uint8)
    wide[:, 8:32] = 255  # a little more than the middle that 2 : 1 leaves
    for name in ("a", "b"):
        for i in range(2):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(wide).save(tmp_path / name / f"{i}.png")
    for size in ((10, 20), (5, 10)):
        assert load_image_folder(tmp_path, size=size, test_fraction=0.5).train.samples.float().mean() > 250
    assert load_image_folder(tmp_path, size=(10, 20), fit="stretch", test_fraction=0.5).train.samples.min() == 0


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


def test_sixteen_bits_are_divided_by_257(tmp_path: Path) -> None:
    fill(tmp_path)
    deep = np.array([[0, 257, 65535, 128 + 257 * 4]], np.uint16).repeat(3, axis=0)
    Image.fromarray(deep).save(tmp_path / "dog" / "deep.png")
    Image.fromarray(deep).save(tmp_path / "dog" / "deep.tif")
    splits = load_image_folder(tmp_path)
    assert "2 of 16 bits, divided by 257" in splits.notes[0]
    found = torch.cat([splits.train.samples, splits.test.samples]).flatten(1)
    assert sum(row == [0, 1, 255, 4] * 3 for row in found.tolist()) == 2
    Image.fromarray(np.zeros((3, 4), np.float32)).save(tmp_path / "dog" / "floats.tif")
    with pytest.raises(DataError, match=r"floats\.tif.*does not say which values are black and white"):
        load_image_folder(tmp_path)


def test_without_pillow_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(DependencyError, match=r"fedcl-distill\[data\]"):
        load_image_folder(tmp_path)
