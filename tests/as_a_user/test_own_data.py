"""Data as users have them: torch data sets, dicts, pairs, folders, data frames; a synthetic set as a torch data set."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from fedcl_distill import (
    Budget,
    DataSpec,
    FrameEncoder,
    LabelledData,
    as_labelled,
    build_method,
    decode,
    encode,
    evaluate,
    from_arrays,
    from_dataframe,
    from_dataset,
    load_data,
    partition,
    union,
)
from fedcl_distill.data import load_image_folder
from fedcl_distill.errors import DataError, SettingsError
from fedcl_distill.synthetic import export_folder, payload_bytes, to_arrays, to_dataframe

PILImage = pytest.importorskip("PIL.Image")


class Photos(Dataset):
    """What a user writes: PIL or tensor items, text or integer labels, as tuples or dicts."""

    classes = ("cat", "dog")

    def __init__(self, form: str = "tuple", count: int = 12) -> None:
        self.form, self.count = form, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int):
        rng = np.random.default_rng(index)
        pixels = (rng.random((8, 8, 3)) * 100 + 100 * (index % 2)).astype(np.uint8)
        label = index % 2
        match self.form:
            case "tuple":
                return PILImage.fromarray(pixels), label
            case "tensor":
                return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255, torch.tensor(label)
            case "text":
                return PILImage.fromarray(pixels), self.classes[label]
            case "img":
                return {"img": PILImage.fromarray(pixels), "label": label}
            case "odd":
                return {"picture": pixels, "kind": label}


@pytest.mark.parametrize("form", ["tuple", "tensor", "text", "img"])
def test_every_form_of_item_is_read_as_the_same_data(form: str) -> None:
    data = from_dataset(Photos(form))
    assert (data.samples.dtype, data.sample_shape, data.class_names) == (torch.uint8, (3, 8, 8), ("cat", "dog"))
    assert data == from_dataset(Photos())
    assert data.allow_hflip is False
    assert from_dataset(Photos(form), allow_hflip=True).spec.allow_hflip


def test_distil_evaluate_and_partition_take_data_sets() -> None:
    method = build_method("dm", architecture="convnet:width=4,depth=2")
    expected = method.distil(from_dataset(Photos()), 1, seed=0, budget=Budget(steps=2))
    sources = (Photos("img"), DataLoader(Photos(), batch_size=3, shuffle=True), as_labelled(Photos()))
    for source in sources:
        assert method.distil(source, 1, seed=0, budget=Budget(steps=2)) == expected
    assert build_method("random").distil(Photos(), 1, seed=0).class_names == ("cat", "dog")
    result = evaluate(expected, Photos(), seed=0, networks=1, architecture="convnet:width=4,depth=2")
    assert 0 <= result.mean <= 1
    parts = partition(Photos(), "iid", 3, seed=0)
    assert sum(map(len, parts)) == 12


def test_pairs_tensor_data_sets_and_subsets() -> None:
    features, labels = torch.rand(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    expected = LabelledData.from_tensors(features, labels)
    assert as_labelled((features, labels)) == as_labelled(TensorDataset(features, labels)) == expected
    assert as_labelled((features.numpy(), labels.tolist())) == expected
    part = from_dataset(Subset(Photos(), [0, 2, 4]))  # only cats
    assert (part.class_names, part.class_counts.tolist()) == (("cat", "dog"), [3, 0])
    nested = from_dataset(Subset(Subset(Photos(), range(6)), [1, 2]))
    assert (len(nested), nested.class_names) == (2, ("cat", "dog"))


def test_what_no_rule_covers_is_one_error_that_says_what_to_write() -> None:
    with pytest.raises(DataError, match=r"picture.*keys=\('img', 'label'\)"):
        from_dataset(Photos("odd"))
    assert len(from_dataset(Photos("odd"), keys=("picture", "kind"))) == 12
    with pytest.raises(DataError, match="a length and items by position"):
        as_labelled(5)
    with pytest.raises(DataError, match="channels='first' or 'last'"):
        from_arrays(np.zeros((4, 3, 8, 3)), [0, 1, 0, 1])
    with pytest.raises(DataError, match="from_dataframe"):
        from_arrays(np.array([["a"], ["b"]]), [0, 1])
    with pytest.raises(DataError, match=r"\.train or \.test"):
        as_labelled(load_data("digits"))


def test_arrays_of_images_wherever_their_channels_are() -> None:
    last = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3))
    data = from_arrays(last, ["b", "a", "b", "a", "b"])
    assert (data.samples.dtype, data.sample_shape, data.class_names) == (torch.uint8, (3, 6, 7), ("a", "b"))
    assert data == from_arrays(last.transpose(0, 3, 1, 2).astype(np.uint8), ["b", "a", "b", "a", "b"])
    assert from_arrays(last[..., 0], [0, 1, 0, 1, 0]).sample_shape == (1, 6, 7)
    with pytest.raises(DataError, match="within 0 and 255"):
        from_arrays(last * 2, [0, 1, 0, 1, 0])


class Shaken(Dataset):
    """Draws from all three global generators."""

    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int):
        noise = random.random() + np.random.rand() + torch.rand(()).item()  # noqa: NPY002
        return torch.tensor([index + noise, 1.0]), index % 2


def test_random_transforms_draw_once_from_the_seed_and_leave_global_generators_alone() -> None:
    torch.manual_seed(7), random.seed(7), np.random.seed(7)  # noqa: NPY002
    first = from_dataset(Shaken(), seed=1)
    torch.rand(3), random.random(), np.random.rand()  # noqa: NPY002
    assert from_dataset(Shaken(), seed=1) == first
    assert from_dataset(Shaken(), seed=2) != first
    torch.manual_seed(7), random.seed(7), np.random.seed(7)  # noqa: NPY002
    expected = torch.rand(1), random.random(), np.random.rand()  # noqa: NPY002
    torch.manual_seed(7), random.seed(7), np.random.seed(7)  # noqa: NPY002
    from_dataset(Shaken())
    assert (torch.rand(1), random.random(), np.random.rand()) == expected  # noqa: NPY002


def test_float_images_after_many_bytes_are_kept_as_floats() -> None:
    class Late(Photos):
        def __getitem__(self, index: int):
            sample, label = super().__getitem__(index)
            return sample + (1e-3 if index == 100 else 0), label

    data = from_dataset(Late("tensor", count=130))
    assert data.samples.dtype == torch.float32
    torch.testing.assert_close(data.samples[5], Photos("tensor")[5][0])
    torch.testing.assert_close(data.samples[100], Photos("tensor")[100][0] + 1e-3)


def test_a_class_whose_count_is_0_needs_no_samples() -> None:
    data = from_dataset(Subset(Photos(), [0, 2, 4]))
    assert build_method("random").distil(data, [2, 0], seed=0).class_counts.tolist() == [2, 0]
    for size in ([1, 1], 1):
        with pytest.raises(DataError, match=r"dog.*absent_classes='skip'"):
            build_method("random").distil(data, size, seed=0)
    assert len(build_method("random").distil(data, 1, seed=0, absent_classes="skip")) == 1


# Folders and tables by load_data.


def _write(path, image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def test_photos_of_many_sizes_become_squares_upright_and_on_white(tmp_path) -> None:
    rng = np.random.default_rng(0)
    for index in range(6):
        for kind in ("a", "b"):
            pixels = rng.integers(0, 256, (20 + index, 30, 3), dtype=np.uint8)
            _write(tmp_path / "pets" / kind / f"{index}.png", PILImage.fromarray(pixels))
    splits = load_data(tmp_path / "pets", size=16)
    assert splits.train.sample_shape == (3, 16, 16)
    assert splits.train == load_image_folder(tmp_path / "pets", size=16).train
    with pytest.raises(DataError, match="size=128"):
        load_data(tmp_path / "pets")
    with pytest.raises(SettingsError, match="size is for folders"):
        load_data("digits", size=16)


def test_the_middle_is_cropped_and_proportions_are_kept(tmp_path) -> None:
    wide = np.zeros((10, 40, 3), np.uint8)
    wide[:, 15:25] = 255  # the square in the middle
    for index in range(2):
        for kind in "ab":
            _write(tmp_path / kind / f"{index}.png", PILImage.fromarray(wide))
    splits = load_image_folder(tmp_path, size=10, test_fraction=0.5)
    assert int(splits.train.samples.min()) == 255


def test_exif_and_transparency(tmp_path) -> None:
    upright = np.zeros((6, 4, 3), np.uint8)
    upright[0] = 255
    for index in range(2):
        exif = PILImage.Exif()
        exif[0x0112] = 6  # "turn by 90 degrees clockwise to look at it"
        lying = PILImage.fromarray(np.rot90(upright).copy())
        path = tmp_path / "turned" / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        lying.save(path, exif=exif)
        clear = np.zeros((6, 4, 4), np.uint8)
        clear[:3, :, 3] = 255
        clear[..., 0] = 200
        _write(tmp_path / "clear" / f"{index}.png", PILImage.fromarray(clear))
    data = load_image_folder(tmp_path, test_fraction=0.5).train
    turned = data.samples[data.labels == 1][0]
    assert torch.equal(turned, torch.from_numpy(upright).permute(2, 0, 1))
    clear = data.samples[data.labels == 0][0]
    assert clear[:, 0, 0].tolist() == [200, 0, 0]
    assert clear[:, 5, 0].tolist() == [255, 255, 255]  # nothing there: the white below is seen


def test_csv_by_load_data(tmp_path) -> None:
    file = tmp_path / "iris.csv"
    rows = "\n".join(f"{index},{index % 3},{'ab'[index % 2]}" for index in range(20))
    file.write_text(f"x,y,kind\n{rows}\n")
    splits = load_data(file, label_column="kind")
    assert (splits.train.sample_shape, splits.train.class_names) == ((2,), ("a", "b"))
    assert splits.train.spec.feature_names == ("x", "y")
    with pytest.raises(SettingsError, match="label_column"):
        load_data(file)


# Data frames.


def test_a_data_frame_with_everything(tmp_path) -> None:
    pandas = pytest.importorskip("pandas")
    train = pandas.DataFrame(
        {
            "age": [20, 30, None, 50],
            "member": [True, False, True, True],
            "colour": ["red", None, "blue", "red"],
            "size": pandas.Categorical(["M", "S", "L", "M"], categories=["S", "M", "L"]),
            "income": ["low", "high", "low", "high"],
        }
    )
    data, encoder = from_dataframe(train, label="income")
    names = ("age", "member", "colour=blue", "colour=red", "colour=(missing)", "size=S", "size=M", "size=L")
    assert data.spec.feature_names == names
    assert data.class_names == ("high", "low")
    assert data.labels.tolist() == [1, 0, 1, 0]
    expected = [
        [20, 1, 0, 1, 0, 0, 1, 0],
        [30, 0, 0, 0, 1, 1, 0, 0],
        [30, 1, 1, 0, 0, 0, 0, 1],
        [50, 1, 0, 1, 0, 0, 1, 0],
    ]
    assert data.samples.tolist() == expected
    test = train.iloc[:2].assign(age=[None, 99.0])
    read = FrameEncoder.from_record(json.loads(json.dumps(encoder.as_record())))
    assert read == encoder
    tested = read.encode(test)
    assert tested.samples[:, 0].tolist() == [30, 99]  # the training median
    assert tested.normalisation == data.normalisation
    with pytest.raises(DataError, match="'green', which training did not have"):
        encoder.encode(train.assign(colour="green"))
    _, lenient = from_dataframe(train, label="income", unknown="zeros")
    assert lenient.encode(train.assign(colour="green")).samples[:, 2:5].sum() == 0
    with pytest.raises(DataError, match=r"numbers as text.*decimal=','"):
        from_dataframe(pandas.DataFrame({"x": ["17,99", "NA"], "y": [0, 1]}), label="y")
    with pytest.raises(DataError, match="from_dataframe"):
        build_method("random").distil(train, 1, seed=0)
    back = encoder.decode(build_method("random").distil(data, 2, seed=0))
    assert list(back.columns) == ["age", "member", "colour", "size", "income"]
    assert sorted(map(str, back["colour"])) == sorted(map(str, train["colour"]))
    assert back["member"].dtype == bool
    assert back["age"].between(20, 50).all()
    assert FrameEncoder.from_record(encoder.as_record()).decode(data)["member"].tolist() == [True, False, True, True]


# A synthetic set as a torch citizen.


@pytest.fixture(scope="module")
def synthetic():
    return build_method("random").distil(from_dataset(Photos(), allow_hflip=True), 2, seed=0)


def test_a_set_trains_a_network_of_the_users_own(synthetic) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01)
    for _ in range(30):
        for images, labels in DataLoader(synthetic.dataset(), batch_size=2, shuffle=True):
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(images), labels).backward()
            optimiser.step()
    inputs = torch.stack([sample for sample, _ in synthetic])
    assert (network(inputs).argmax(1) == synthetic.labels).all()


def test_items_length_and_unit_pixels(synthetic) -> None:
    sample, label = synthetic[3]
    assert torch.equal(sample, synthetic.inputs()[3])
    assert (label.item(), len(synthetic), synthetic.classes) == (1, 4, ["cat", "dog"])
    assert torch.equal(synthetic[-1][0], sample)
    with pytest.raises(IndexError):
        synthetic[4]
    pixels = synthetic.dataset(normalised=False)[0][0]
    assert 0 <= pixels.min() <= pixels.max() <= 1 + 1e-5


def test_one_line_and_equality(synthetic) -> None:
    assert "\n" not in repr(synthetic)
    for said in ("random", "4 samples", "2 classes", "2 each", "3×8×8", "768 bytes"):
        assert said in repr(synthetic)
    assert repr(from_dataset(Photos())) == "LabelledData(Photos: 12 samples of 2 classes, uint8 3×8×8, 2,304 bytes)"
    again = decode(encode(synthetic, 32))
    assert again == synthetic == synthetic.to("cpu")
    assert decode(encode(synthetic, 8)) != synthetic
    assert synthetic != 5
    with pytest.raises(TypeError):
        hash(synthetic)


def test_whether_it_may_be_mirrored_is_never_lost(synthetic) -> None:
    kept = (
        synthetic.subset(torch.tensor([0])),
        union([synthetic, synthetic]),
        decode(encode(synthetic, 4)),
        synthetic.as_labelled_data(),
        build_method("dm", architecture="convnet:width=4,depth=2").distil(synthetic, 1, seed=0, budget=Budget(steps=1)),
    )
    assert all(one.allow_hflip for one in kept)
    assert not union([synthetic, synthetic.with_spec(allow_hflip=False)]).allow_hflip


def test_what_else_a_spec_says_travels_too() -> None:
    data = LabelledData.from_tensors(torch.rand(4, 3), torch.tensor([0, 1, 0, 1]), feature_names=("a", "b", "c"))
    one = build_method("random").distil(data.with_spec(tasks=(0, 1)), 1, seed=0)
    read = decode(encode(one))
    assert read.spec == one.spec == DataSpec.from_record(json.loads(json.dumps(one.spec.as_record())))
    assert (read.spec.tasks, read.spec.feature_names) == ((0, 1), ("a", "b", "c"))
    assert decode(encode(one, provenance=False)).spec.feature_names == ()


def test_a_folder_of_images_comes_back_as_the_same_data(synthetic, tmp_path) -> None:
    folder = export_folder(synthetic, tmp_path / "set")
    data = load_image_folder(folder, test_fraction=0.5)
    assert (data.train.class_names, data.train.sample_shape) == (("cat", "dog"), (3, 8, 8))
    found = torch.cat([data.train.samples, data.test.samples])
    expected = (synthetic.samples() * 255).round().to(torch.uint8)
    assert sorted(found.flatten(1).tolist()) == sorted(expected.flatten(1).tolist())


def test_hostile_names_of_classes_stay_inside_the_folder(synthetic, tmp_path) -> None:
    export_folder(synthetic.with_spec(class_names=("../../up", "/etc")), tmp_path / "set")
    assert sorted(one.name for one in (tmp_path / "set").iterdir()) == ["0-_.._up", "1-_etc", "recipe.json"]
    assert [one.name for one in tmp_path.iterdir()] == ["set"]


def test_arrays_and_data_frames() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"x": [0.5, 1.5, 2.5], "y": [1, 2, 3], "kind": ["a", "b", "a"]})
    data, _ = from_dataframe(frame, label="kind")
    one = build_method("random").distil(data, [2, 1], seed=0)
    samples, labels = to_arrays(one)
    assert (samples.shape, labels.tolist()) == ((3, 2), [0, 0, 1])
    made = to_dataframe(one, label="kind").sort_values("x").reset_index(drop=True)
    assert made["kind"].tolist() == ["a", "b", "a"]
    np.testing.assert_allclose(made[["x", "y"]].to_numpy(), frame[["x", "y"]].to_numpy(), atol=1e-5)


def test_the_header_of_features_is_smaller_than_their_values() -> None:
    generator = torch.Generator().manual_seed(0)
    data = LabelledData.from_tensors(torch.randn(40, 1280, generator=generator), torch.arange(40) % 10)
    one = build_method("random").distil(data, 1, seed=0)
    size = payload_bytes(one, 8, provenance=False)
    assert size.arrays <= 12_800  # coded, where that is smaller
    assert size.total == len(encode(one, 8, provenance=False))
    assert 2 * 4 * 1280 < size.header < 2 * 4 * 1280 + 600  # as JSON it was 51 kB
    assert decode(encode(one, 8)).normalisation == one.normalisation
    exact = one.with_spec(normalisation=type(one.normalisation)((0.1,) * 1280, (0.3,) * 1280))  # no float32 numbers
    assert decode(encode(exact, 8)).normalisation == exact.normalisation
