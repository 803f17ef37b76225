"""Loaders of images, on small files that these tests write byte by byte or with independent writers."""

from __future__ import annotations

import gzip
import pickle
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch

from fedcl_distill.data import Splits, list_sources, load, load_digits, load_npz, read_idx
from fedcl_distill.data import class_names as names
from fedcl_distill.data.arrays import pixel_normalisation, stratified_split
from fedcl_distill.errors import DataError, DependencyError, SettingsError

RNG = np.random.default_rng(0)


def pixels(*shape: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def idx_bytes(array: np.ndarray[Any, Any]) -> bytes:
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write_idx_folder(folder: Path, *, compressed: bool = False) -> dict[str, np.ndarray[Any, Any]]:
    folder.mkdir(parents=True)
    arrays = {
        "train-images-idx3-ubyte": pixels(20, 5, 4),
        "train-labels-idx1-ubyte": np.arange(20, dtype=np.uint8) % 10,
        "t10k-images-idx3-ubyte": pixels(10, 5, 4),
        "t10k-labels-idx1-ubyte": np.arange(10, dtype=np.uint8),
    }
    for name, array in arrays.items():
        if compressed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(idx_bytes(array)))
        else:
            (folder / name).write_bytes(idx_bytes(array))
    return arrays


def medmnist(**changes: Any) -> dict[str, Any]:
    arrays = {
        "train_images": pixels(12, 6, 5, 3),
        "train_labels": (np.arange(12, dtype=np.uint8) % 3)[:, None],
        "val_images": pixels(4, 6, 5, 3),
        "val_labels": np.array([[0], [1], [2], [0]], dtype=np.uint8),
        "test_images": pixels(6, 6, 5, 3),
        "test_labels": (np.arange(6, dtype=np.uint8) % 3)[:, None],
    }
    return {key: value for key, value in (arrays | changes).items() if value is not None}


def write_npz(path: Path, **changes: Any) -> dict[str, Any]:
    arrays = medmnist(**changes)
    np.savez_compressed(path, **arrays)
    return arrays


# --- idx ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(7,), (3, 4, 5), (0, 4, 5)])
def test_idx_reads_what_was_written(tmp_path: Path, shape: tuple[int, ...]) -> None:
    array = pixels(*shape)
    (tmp_path / "plain").write_bytes(idx_bytes(array))
    (tmp_path / "compressed.gz").write_bytes(gzip.compress(idx_bytes(array)))
    for name in ("plain", "compressed.gz"):
        assert np.array_equal(read_idx(tmp_path / name).numpy(), array)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "idx header"),
        (b"\0\0", "idx header"),
        (b"\0\0\x0d\x01" + struct.pack(">I", 1) + bytes(4), "idx header"),
        (b"PK\x03\x04", "idx header"),
        (b"\0\0\x08\0", "idx header"),
        (b"\0\0\x08\x03\0\0", "ends inside"),
        (idx_bytes(np.zeros(9, np.uint8))[:-1], "needs 9 bytes, the file holds 8"),
        (idx_bytes(np.zeros(9, np.uint8)) + b"x", "the file holds more"),
        (b"\0\0\x08\x03" + b"\xff" * 12 + b"abc", "more than this machine"),
    ],
)
def test_damaged_idx_is_a_data_error(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_idx(file)


def test_damaged_gzip_is_a_data_error(tmp_path: Path) -> None:
    good = gzip.compress(idx_bytes(pixels(500)))
    for content in (good[:-20], good[:60] + b"\xff" * 30 + good[90:], b"no gzip"):
        (tmp_path / "file.gz").write_bytes(content)
        with pytest.raises(DataError, match="cannot be read as an idx file"):
            read_idx(tmp_path / "file.gz")
    with pytest.raises(DataError, match=r"absent.gz"):
        read_idx(tmp_path / "absent.gz")


# --- npz ---------------------------------------------------------------------------------------------------


def test_npz_colour_images_become_channels_first(tmp_path: Path) -> None:
    arrays = write_npz(tmp_path / "tiny.npz")
    splits = load(str(tmp_path / "tiny.npz"))
    assert splits.train.sample_shape == (3, 6, 5)
    assert splits.train.samples.dtype == torch.uint8
    assert np.array_equal(splits.train.samples[7, 2].numpy(), arrays["train_images"][7, :, :, 2])
    assert splits.test.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert splits.train.class_names == ("0", "1", "2")
    assert splits.test.normalisation == splits.train.normalisation
    unit = arrays["train_images"].reshape(-1, 3) / 255
    assert splits.train.normalisation.mean == pytest.approx(unit.mean(0).tolist(), abs=1e-12)
    assert splits.train.normalisation.std == pytest.approx(unit.std(0).tolist(), abs=1e-12)


def test_npz_grey_images_and_flat_labels(tmp_path: Path) -> None:
    write_npz(
        tmp_path / "grey.npz",
        train_images=pixels(12, 6, 5),
        train_labels=np.arange(12, dtype=">i4") % 2,
        test_images=pixels(6, 6, 5),
        test_labels=np.zeros(6, dtype=np.int64),
    )
    splits = load("grey", root=tmp_path, download=False)
    assert splits.train.sample_shape == (1, 6, 5)
    assert splits.train.class_counts.tolist() == [6, 6]
    assert splits.test.class_counts.tolist() == [6, 0]


def test_validation_images_are_left_out_unless_asked_for(tmp_path: Path) -> None:
    arrays = write_npz(tmp_path / "x.npz")
    lengths = {}
    for use in ("unused", "train", "test"):
        splits = load_npz(tmp_path / "x.npz", validation=use)
        lengths[use] = (len(splits.train), len(splits.test))
    assert lengths == {"unused": (12, 6), "train": (16, 6), "test": (12, 4)}
    joined = load_npz(tmp_path / "x.npz", validation="train").train
    assert np.array_equal(joined.samples[-1].permute(1, 2, 0).numpy(), arrays["val_images"][-1])
    with pytest.raises(SettingsError, match="validation"):
        load_npz(tmp_path / "x.npz", validation="all")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_images": None}, "no array 'train_images'"),
        ({"test_labels": None}, "no array 'test_labels'"),
        ({"train_images": np.zeros((12, 30), np.uint8)}, "must be uint8"),
        ({"train_images": np.zeros((12, 6, 5, 3), np.float32)}, "must be uint8"),
        ({"train_images": pixels(0, 6, 5, 3), "train_labels": np.zeros(0, int)}, "empty"),
        ({"train_images": pixels(12, 0, 5, 3), "test_images": pixels(6, 0, 5, 3)}, "empty"),
        ({"test_images": pixels(6, 7, 5, 3)}, "differ in shape"),
        ({"train_labels": np.zeros((11, 1), np.uint8)}, "12 samples need labels"),
        ({"train_labels": np.zeros((12, 14), np.uint8)}, "one label a sample"),
        ({"train_labels": np.full((12, 1), 0.5)}, "must be integers"),
        ({"train_labels": np.full((12, 1), np.nan)}, "must be integers"),
        ({"train_labels": np.full((12, 1), -1, np.int8)}, "must not be negative"),
        ({"test_labels": np.full((6, 1), 3, np.uint8)}, r"label '3' is none of the classes \('0', '1', '2'\)"),
        ({"train_images": np.zeros((12, 28, 28, 28), np.uint8)}, "no images of 1, 3 or 4 channels; volumes"),
        ({"train_labels": np.array([{"a": 1}] * 12, dtype=object)}, "allow_pickle"),
    ],
)
def test_unfit_npz_is_a_data_error(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write_npz(tmp_path / "x.npz", **changes)
    with pytest.raises(DataError, match=message):
        load_npz(tmp_path / "x.npz")


def test_an_npz_cut_or_changed_anywhere_never_raises_anything_but_a_data_error(tmp_path: Path) -> None:
    write_npz(tmp_path / "good.npz")
    good = (tmp_path / "good.npz").read_bytes()
    bad = tmp_path / "bad.npz"
    for position in range(0, len(good), max(1, len(good) // 60)):
        bad.write_bytes(good[:position])
        with pytest.raises(DataError, match=r"bad\.npz"):
            load_npz(bad)
        bad.write_bytes(good[:position] + bytes([good[position] ^ 0xFF]) + good[position + 1 :])
        try:
            splits = load_npz(bad)  # a changed byte outside what is read (time stamps, validation) may pass
        except DataError:
            continue
        assert len(splits.train) == 12


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04", pickle.dumps({"train_images": [1]})])
def test_other_files_named_npz_are_data_errors(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"x\.npz"):
        load(str(tmp_path / "x.npz"))


def test_a_bare_array_named_npz_is_a_data_error(tmp_path: Path) -> None:
    with (tmp_path / "x.npz").open("wb") as stream:
        np.save(stream, pixels(3, 3))
    with pytest.raises(DataError, match=r"x\.npz"):
        load_npz(tmp_path / "x.npz")


# --- the search for the sets that torchvision knows --------------------------------------------------------


@pytest.mark.parametrize("compressed", [False, True])
def test_mnist_is_read_from_torchvisions_layout(tmp_path: Path, compressed: bool) -> None:
    arrays = write_idx_folder(tmp_path / "MNIST" / "raw", compressed=compressed)
    splits = load("MNIST", root=tmp_path, download=False)
    assert np.array_equal(splits.train.samples[:, 0].numpy(), arrays["train-images-idx3-ubyte"])
    assert splits.test.labels.tolist() == list(range(10))
    assert splits.train.normalisation.mean == (0.1307,)
    assert (splits.train.name, splits.test.name) == ("mnist", "mnist (test)")


def test_torchvision_reads_the_layout_that_we_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("torchvision.datasets")
    write_idx_folder(tmp_path / "MNIST" / "raw")
    theirs = datasets.MNIST(str(tmp_path), train=True)
    ours = load("mnist", root=tmp_path, download=False).train
    assert torch.equal(theirs.data.unsqueeze(1), ours.samples)
    assert torch.equal(theirs.targets, ours.labels)


def test_damaged_mnist_files_are_data_errors(tmp_path: Path) -> None:
    folder = tmp_path / "MNIST" / "raw"
    write_idx_folder(folder)
    (folder / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.full(20, 10, np.uint8)))
    with pytest.raises(DataError, match=r"labels span \[10, 10\], expected \[0, 9\]"):
        load("mnist", root=tmp_path)
    (folder / "train-labels-idx1-ubyte").write_bytes(idx_bytes(pixels(20, 2)))
    with pytest.raises(DataError, match="has 2 dimensions, expected 1"):
        load("mnist", root=tmp_path)


@pytest.mark.parametrize("stem", ["fashion-mnist", "fashionmnist", "fashion_mnist"])
@pytest.mark.parametrize("asked", ["fashion-mnist", "FashionMNIST"])
def test_an_npz_in_the_root_comes_first(tmp_path: Path, stem: str, asked: str) -> None:
    write_npz(tmp_path / f"{stem}.npz", train_images=pixels(12, 6, 5), test_images=pixels(6, 6, 5))
    write_idx_folder(tmp_path / "FashionMNIST" / "raw")
    splits = load(asked, root=tmp_path, download=False)
    assert splits.train.sample_shape == (1, 6, 5)
    assert splits.train.class_names[9] == "Ankle boot"
    assert splits.train.name == "fashion-mnist"


def test_roots_are_searched_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_data_roots: Path) -> None:
    given, environment, cache = tmp_path / "a", tmp_path / "b", empty_data_roots / ".cache" / "fedcl-distill"
    monkeypatch.setenv("FEDCL_DISTILL_DATA", str(environment))
    for height, root in ((3, cache), (4, environment), (5, given)):
        root.mkdir(parents=True)
        write_npz(root / "own.npz", train_images=pixels(12, height, 5), test_images=pixels(6, height, 5))
        assert load("own", root=given).train.sample_shape[1] == height
    with pytest.raises(DataError) as caught:
        load("absent", root=given)
    for part in (str(given), str(environment), str(cache), "fashion-mnist"):
        assert part in str(caught.value)


def write_cifar(root: Path) -> dict[str, np.ndarray[Any, Any]]:
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    batches = {name: pixels(4, 3072) for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")}
    for name, data in batches.items():
        (folder / name).write_bytes(pickle.dumps({"data": data, "labels": [0, 3, 9, 5]}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list(names.CIFAR10)}))
    return batches


def test_cifar_is_read_through_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cifar = pytest.importorskip("torchvision.datasets.cifar")
    batches = write_cifar(tmp_path)
    monkeypatch.setattr(cifar, "check_integrity", lambda *_: True)
    splits = load("CIFAR-10", root=tmp_path, download=False)
    assert len(splits.train) == 20
    # A CIFAR row is 1024 red, 1024 green and 1024 blue values.
    assert splits.train.samples[5].flatten().tolist() == batches["data_batch_2"][1].tolist()
    assert splits.test.labels.tolist() == [0, 3, 9, 5]
    assert splits.train.class_names == names.CIFAR10


def test_cifar_files_of_another_origin_are_not_unpickled(tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    write_cifar(tmp_path)  # the checksums are wrong
    with pytest.raises(DataError, match="damaged"):
        load("cifar10", root=tmp_path)


def test_svhn_is_read_through_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    svhn = pytest.importorskip("torchvision.datasets.svhn")
    scipy_io = pytest.importorskip("scipy.io")
    images = pixels(32, 32, 3, 6)
    labels = np.array([[10], [1], [9], [2], [3], [4]])
    for part in ("train", "test"):
        scipy_io.savemat(tmp_path / f"{part}_32x32.mat", {"X": images, "y": labels})
    monkeypatch.setattr(svhn, "check_integrity", lambda *_: True)
    train = load("svhn", root=tmp_path, download=False).train
    assert train.labels.tolist() == [0, 1, 9, 2, 3, 4]  # SVHN writes the digit 0 as 10
    assert np.array_equal(train.samples[2, 1].numpy(), images[:, :, 1, 2])


def test_nothing_found_and_no_download(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load("cifar100", root=tmp_path, download=False)
    message = str(caught.value)
    assert "download=False" in message
    assert str(tmp_path / "cifar100.npz") in message
    assert str(tmp_path / "cifar-100-python") in message


def test_a_failed_download_says_where_it_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("torchvision.datasets")

    def offline(*_: Any, **__: Any) -> None:
        raise URLError("no network")

    monkeypatch.setattr(datasets, "CIFAR10", offline)
    with pytest.raises(DataError, match="no network") as caught:
        load("cifar10", root=tmp_path)
    assert str(tmp_path / "cifar10.npz") in str(caught.value)


def test_a_download_goes_into_the_root_and_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("torchvision.datasets")

    def online(root: Path, train: bool, download: bool) -> None:
        assert download
        if train:
            write_idx_folder(Path(root) / "MNIST" / "raw")

    monkeypatch.setattr(datasets, "MNIST", online)
    assert len(load("mnist", root=tmp_path).train) == 20
    assert len(load("mnist", root=tmp_path, download=False).train) == 20


# --- digits, names, helpers --------------------------------------------------------------------------------


def test_digits_match_scikit_learn() -> None:
    sklearn_datasets = pytest.importorskip("sklearn.datasets")
    digits = load_digits()
    ours = torch.cat([digits.train.samples, digits.test.samples]).flatten(1).double() / 255 * 16
    theirs = torch.from_numpy(sklearn_datasets.load_digits().data)
    assert len(ours) == 1797
    # The same multiset of images, each value within half a grey level.
    assert torch.allclose(ours.sum(1).sort().values, theirs.sum(1).sort().values, atol=64 * 0.5 / 255 * 16)
    assert float((ours - ours.round()).abs().max()) <= 0.5 / 255 * 16 + 1e-9
    assert digits.train.samples.max() == 255
    counts = digits.train.class_counts + digits.test.class_counts
    assert counts.tolist() == np.bincount(sklearn_datasets.load_digits().target).tolist()
    assert torch.allclose(digits.test.class_counts / counts, torch.tensor(0.2), atol=0.01)
    assert torch.equal(load("digits").test.samples, digits.test.samples)


def test_digits_are_read_without_importing_scikit_learn_and_by_it_if_the_file_is_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code = "import sys; from fedcl_distill.data import load; load('digits'); assert 'sklearn' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
    read = load_digits()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    asked = load_digits()
    for one, other in ((read.train, asked.train), (read.test, asked.test)):
        assert torch.equal(one.samples, other.samples)
        assert torch.equal(one.labels, other.labels)


def test_digits_without_scikit_learn_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DependencyError, match=r"pip install 'fedcl-distill\[data\]'"):
        load_digits()


def test_class_names_agree_with_torchvision() -> None:
    datasets = pytest.importorskip("torchvision.datasets")
    assert list(names.FASHION_MNIST) == datasets.FashionMNIST.classes
    assert len(set(names.CIFAR100)) == 100
    assert list(names.CIFAR100) == sorted(names.CIFAR100)  # CIFAR-100 numbers its classes alphabetically


def test_list_sources_names_what_load_takes() -> None:
    assert set(list_sources()) == {*("digits", "heart", "mnist", "fashion-mnist", "cifar10", "cifar100", "svhn")}


def test_pixel_normalisation_of_a_constant_channel() -> None:
    measured = pixel_normalisation(torch.full((3, 2, 4, 4), 51, dtype=torch.uint8))
    assert measured.mean == pytest.approx((0.2, 0.2))
    assert measured.std == (1.0, 1.0)


def test_stratified_split_keeps_one_sample_for_training() -> None:
    strata = torch.tensor([0] * 10 + [1] * 1 + [4] * 2)
    train, test = stratified_split(strata, 0.9, seed=0)
    assert sorted(train.tolist() + test.tolist()) == list(range(13))
    assert strata[train].tolist() == [0, 1, 4]
    for fraction in (0.0, 1.0, float("nan")):
        with pytest.raises(SettingsError):
            stratified_split(strata, fraction, seed=0)


def test_importing_the_package_brings_no_optional_dependency() -> None:
    check = (
        "import sys, fedcl_distill.data; "
        "print(sorted({'torchvision', 'sklearn', 'PIL', 'datasets', 'flwr', 'scipy'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


# --- real data, where this computer has them ---------------------------------------------------------------


def assert_published(splits: Splits, train: list[int], test: list[int]) -> None:
    """Check counts of classes, and the published constants against the pixels."""
    assert splits.train.class_counts.tolist() == train
    assert splits.test.class_counts.tolist() == test
    measured = pixel_normalisation(splits.train.samples)
    assert measured.mean == pytest.approx(splits.train.normalisation.mean, abs=1e-4)
    assert measured.std == pytest.approx(splits.train.normalisation.std, abs=1e-4)


def load_or_skip(name: str, root: Path | None = None) -> Splits:
    try:
        return load(name, root=root, download=False)
    except DataError as error:
        pytest.skip(f"{name} is not on this computer: {error}")


def test_real_fashion_mnist() -> None:
    assert_published(load_or_skip("fashion-mnist"), [6000] * 10, [1000] * 10)


def test_real_cifar10(real_root: Path) -> None:
    assert_published(load_or_skip("cifar10", real_root), [5000] * 10, [1000] * 10)


def test_real_mnist(real_root: Path) -> None:
    train = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    test = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert_published(load_or_skip("mnist", real_root), train, test)


def test_real_pneumoniamnist(real_root: Path) -> None:
    # MedMNIST v2: 4,708 training and 624 test images.
    assert_published(load_or_skip("pneumoniamnist", real_root), [1214, 3494], [234, 390])
