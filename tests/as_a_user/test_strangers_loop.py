"""A set leaves for somebody else's code: every form of it says which space its values are in, and how to train."""

from __future__ import annotations

import json
import logging
import sys

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from builders import blobs
from fedcl_distill import Budget, LabelledData, build_method, evaluate, load, save
from fedcl_distill.data import load_image_folder
from fedcl_distill.errors import SettingsError
from fedcl_distill.synthetic import export_folder, recipe, save_npz, save_png
from fedcl_distill.training import FAST, TrainConfig

DATA = blobs((1, 8, 8), classes=3, per_class=6)


@pytest.fixture(scope="module")
def synthetic():
    return build_method("dm", architecture="convnet:width=4,depth=2").distil(DATA, 2, seed=0, budget=Budget(steps=2))


def test_a_transform_gets_unit_values_whenever_a_sample_is_read(synthetic) -> None:
    data = synthetic.dataset(transform=lambda image: (image - 0.5) / 0.5)
    images, labels = next(iter(DataLoader(data, batch_size=6)))
    torch.testing.assert_close(images, (synthetic.samples().detach() - 0.5) / 0.5)
    assert torch.equal(labels, synthetic.labels)
    drawn = synthetic.dataset(transform=lambda image: image.add_(torch.rand(())))
    assert not torch.equal(drawn[0][0], drawn[0][0])
    assert torch.equal(synthetic.dataset(normalised=False)[0][0], synthetic.samples()[0].detach())
    with pytest.raises(SettingsError, match="normalised or transform, not both"):
        synthetic.dataset(normalised=True, transform=torch.neg)


def test_files_say_how_to_train(synthetic, tmp_path) -> None:
    save(synthetic, tmp_path / "set.safetensors")
    read = load(tmp_path / "set.safetensors")
    assert read == synthetic
    told = read.provenance["recipe"]
    assert told == json.loads(json.dumps(recipe(synthetic)))
    assert told["mean"] == list(synthetic.normalisation.mean)
    train = {key: value for key, value in told["train"].items() if key != "augmentation"}
    again = TrainConfig(**train)
    assert (again.epochs, again.learning_rate, again.schedule) == (300, FAST.train_config.learning_rate, "cosine")
    header = (tmp_path / "set.safetensors").read_bytes()[:4000]
    assert b"network inputs are (pixels in [0, 1] - mean) / std" in header


def test_pictures_say_it_too(synthetic, tmp_path) -> None:
    image = pytest.importorskip("PIL.Image")
    with image.open(save_png(synthetic, tmp_path / "set.png")) as picture:
        picture.load()
        said = picture.text["Description"]
    assert "network inputs are (pixels in [0, 1] - mean) / std" in said
    assert "% of the values were clipped" in said
    folder = export_folder(synthetic, tmp_path / "set")
    told = json.loads((folder / "recipe.json").read_text())
    samples = synthetic.samples().detach()
    outside = ((samples < -1 / 255) | (samples > 1 + 1 / 255)).float().mean()
    assert told["clipped_values"] == pytest.approx(float(outside))
    assert load_image_folder(folder, test_fraction=0.5).train.class_names == tuple(told["class_names"])


def test_arrays_in_one_file(synthetic, tmp_path) -> None:
    with np.load(save_npz(synthetic, tmp_path / "set.npz"), allow_pickle=False) as held:
        torch.testing.assert_close(torch.from_numpy(held["samples"]), synthetic.samples().detach())
        assert held["labels"].tolist() == synthetic.labels.tolist()
        assert tuple(held["class_names"]) == synthetic.class_names
        inputs = (held["samples"] - held["mean"].reshape(1, -1, 1, 1)) / held["std"].reshape(1, -1, 1, 1)
        torch.testing.assert_close(torch.from_numpy(inputs), synthetic.inputs().detach(), atol=1e-5, rtol=1e-5)
        assert json.loads(str(held["recipe"]))["train"]["epochs"] == 300


@pytest.mark.parametrize("method", ["dm", "herding", "random"])
def test_fewer_samples_than_asked_for_are_told(method: str, caplog: pytest.LogCaptureFixture) -> None:
    small = DATA.subset(torch.cat([DATA.indices_of(0)[:2], DATA.indices_of(1), DATA.indices_of(2)]))
    settings = {"architecture": "convnet:width=4,depth=2"} if method == "dm" else {}
    distiller = build_method(method, **settings)
    with caplog.at_level(logging.INFO):
        short = distiller.distil(small, 5, seed=0, budget=Budget(steps=1))
    name = small.class_names[0]
    assert short.class_counts.tolist() == [2, 5, 5]
    assert short.provenance["fewer_than_asked"] == {name: [2, 5]}
    (record,) = [one for one in caplog.records if "fewer samples" in one.message]
    assert record.levelno == logging.WARNING
    assert f"{name}: 2 of 5" in record.message
    whole = distiller.distil(small, [2, 5, 5], seed=0, budget=Budget(steps=1))
    assert "fewer_than_asked" not in whole.provenance


def test_scores_beyond_accuracy_are_those_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    generator = torch.Generator().manual_seed(0)
    for classes, count in ((2, 40), (4, 50)):
        labels = torch.randint(0, classes, (count,), generator=generator) ** 2 % classes  # of unequal frequency
        labels[:classes] = torch.arange(classes)
        logits = torch.randn(count, classes, generator=generator).round(decimals=1)  # some scores are equal
        module = sys.modules["fedcl_distill.evaluation.evaluate"]  # beside the function of that name
        monkeypatch.setattr(module, "class_logits", lambda *_, one=logits: one)
        test = LabelledData.from_tensors(torch.rand(count, 3, generator=generator), labels)
        synthetic = build_method("random").distil(test, 1, seed=0)
        found = evaluate(synthetic, test, seed=0, networks=1, architecture="mlp:width=2")
        predicted, shares = logits.argmax(1).numpy(), logits.double().softmax(1).numpy()
        truth = labels.numpy()
        assert found.mean == pytest.approx(metrics.accuracy_score(truth, predicted))
        assert found.balanced_accuracy == pytest.approx(metrics.balanced_accuracy_score(truth, predicted))
        assert found.f1_macro == pytest.approx(metrics.f1_score(truth, predicted, average="macro"))
        scores = shares[:, 1] if classes == 2 else shares
        expected = metrics.roc_auc_score(truth, scores, multi_class="ovr", average="macro")
        assert found.auc == pytest.approx(expected)
        assert {"balanced_accuracy", "f1_macro", "auc"} <= found.as_record().keys()
        assert "±" not in str(found)
        assert "nan" not in str(found)
