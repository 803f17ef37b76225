"""The real libraries, where they are installed: Hugging Face's and Flower's data sets, timm's networks."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset

from builders import blobs
from fedcl_distill import Budget, as_labelled, build_method, evaluate, from_arrays, from_dataset, partition
from fedcl_distill.data import FlowerDatasetsPartitioner
from fedcl_distill.errors import DataError
from fedcl_distill.evaluation import find_protocol
from fedcl_distill.training import TrainConfig

BRIEF = replace(find_protocol("brief"), train_config=TrainConfig(epochs=2))
PIXELS = np.random.default_rng(0).integers(0, 256, (12, 9, 8, 3), dtype=np.uint8)
LABELS = [index % 3 for index in range(12)]
NAMES = ("cat", "dog", "emu")


@pytest.fixture(scope="module")
def pets():
    datasets = pytest.importorskip("datasets")
    image = pytest.importorskip("PIL.Image")
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=list(NAMES))})
    return datasets.Dataset.from_dict(
        {"img": [image.fromarray(pixels) for pixels in PIXELS], "label": LABELS}, features=features
    )


def test_a_dataset_of_hugging_face_in_all_its_formats(pets) -> None:
    expected = from_arrays(PIXELS, LABELS, class_names=NAMES)
    assert as_labelled(pets) == as_labelled(DataLoader(pets, batch_size=4)) == expected
    for form in ("numpy", "torch"):
        assert from_dataset(pets.with_format(form)) == expected
    assert from_dataset(pets.rename_column("img", "image").rename_column("label", "labels")) == expected
    assert from_dataset(pets.rename_column("img", "photo"), keys=("photo", "label")) == expected
    part = from_dataset(pets.select([0, 3]))
    assert (part.class_names, part.class_counts.tolist()) == (NAMES, [2, 0, 0])
    assert from_dataset(Subset(pets, [0, 3])) == part
    small = from_dataset(pets, size=4)
    assert (small.sample_shape, small.notes[0]) == ((3, 4, 4), "12 pictures resized")


def test_the_form_of_flowers_own_template(pets) -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    normalise = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.5,) * 3)])

    def apply_transforms(batch):
        batch["img"] = [normalise(img) for img in batch["img"]]
        return batch

    data = from_dataset(pets.with_transform(apply_transforms))
    expected = torch.stack([normalise(image) for image in pets["img"]])
    assert torch.equal(data.samples, expected)
    assert data.class_names == NAMES
    plain = from_dataset(
        pets.with_transform(lambda batch: {**batch, "img": [*map(transforms.ToTensor(), batch["img"])]})
    )
    assert plain == as_labelled(pets)  # 8-bit pixels again


def test_what_is_no_map_style_data_set_of_pictures(pets) -> None:
    datasets = pytest.importorskip("datasets")
    with pytest.raises(DataError, match=r"splits \['test', 'train'\]; give one of them"):
        as_labelled(datasets.DatasetDict(train=pets, test=pets))
    with pytest.raises(DataError, match="a length and items by position"):
        as_labelled(pets.to_iterable_dataset())
    table = datasets.Dataset.from_dict({"age": [1.0, 2.0], "label": [0, 1]})
    with pytest.raises(DataError, match=r"keys=\('img', 'label'\)\); a table by from_dataframe\(data.to_pandas\(\)"):
        as_labelled(table)
    unlabelled = pets.remove_columns("label").add_column("label", [-1] * 12)
    with pytest.raises(DataError, match="must not be negative, got -1"):
        as_labelled(unlabelled)


def test_a_real_partitioner_of_flower_divides_our_data() -> None:
    partitioners = pytest.importorskip("flwr_datasets.partitioner")
    data = blobs((1, 4, 4), classes=3, per_class=20)
    parts = partition(data, FlowerDatasetsPartitioner(partitioners.IidPartitioner(num_partitions=3)), 3, seed=0)
    assert [len(part) for part in parts] == [20, 20, 20]
    dirichlet = partitioners.DirichletPartitioner(3, "label", alpha=0.5, min_partition_size=5, seed=1)
    parts = partition(data, dirichlet, 3, seed=0)
    assert sum(part.class_counts for part in parts).tolist() == [20, 20, 20]


@pytest.mark.parametrize("model", ["test_resnet", "test_efficientnet", "test_convnext", "test_vit"])
def test_networks_of_timm_distil_and_judge(model: str) -> None:
    timm = pytest.importorskip("timm")
    sizes = {"img_size": 32, "patch_size": 8} if "vit" in model else {}
    network = partial(timm.create_model, model, num_classes=3, in_chans=1, **sizes)
    data = blobs((1, 32, 32), classes=3, per_class=8)
    method = build_method("dm", architecture=network)
    synthetic = method.distil(data, 1, seed=0, budget=Budget(steps=2))
    assert synthetic == method.distil(data, 1, seed=0, budget=Budget(steps=2))
    moved = (synthetic.inputs() - build_method("random").distil(data, 1, seed=0).inputs()).abs().max()
    assert moved > 0
    assert 0 <= evaluate(synthetic, data, BRIEF, seed=0, architecture=network).mean <= 1
