"""``--features``: a frozen backbone in front of any data set, on the command line."""

import json

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from fedcl_distill import LabelledData, load_data
from fedcl_distill.errors import DataError, SettingsError
from fedcl_distill.features import BACKBONES, LDA, Backbone, measure_data
from simulations.cli import app
from simulations.data import load_splits, read_data, with_options
from tests.support.watchers import Recording

RANDOM = "random:count=60"


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDCL_DISTILL_DATA", str(tmp_path / "data"))
    return tmp_path / "data" / "features"


def lines_of(tmp_path, *arguments):
    done = CliRunner().invoke(app, [*map(str, arguments), "--out", str(tmp_path / "runs")])
    assert done.exit_code == 0, done.output
    (file,) = (tmp_path / "runs").glob("*.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_data_go_through_the_backbone_once(place):
    watcher = Recording()
    splits = load_splits(f"digits:features=[{RANDOM}]", watcher=watcher)
    plain = load_data("digits")
    expected = BACKBONES.build(RANDOM).reading(plain.train.spec).features(plain.train)
    assert torch.equal(splits.train.samples, expected.samples)
    assert splits.test.spec == splits.train.spec
    assert splits.train.spec.backbone == expected.spec.backbone
    assert any("60 features of the backbone random:count=60" in note for note in splits.notes)
    kept = {path: path.stat().st_mtime_ns for path in place.iterdir()}
    assert len(kept) == 2
    again = load_splits(f"digits:features=[{RANDOM}]", watcher=watcher)
    assert torch.equal(again.train.samples, splits.train.samples)
    assert {path: path.stat().st_mtime_ns for path in place.iterdir()} == kept


def test_the_flag_is_an_option_of_the_data_and_checked_like_one():
    text = with_options("digits", {"features": RANDOM})
    assert text == f"digits:features=[{RANDOM}]"
    assert read_data(text)[1].features == RANDOM
    assert with_options(text, {"features": None}) == "digits"
    with pytest.raises(SettingsError, match="did you mean 'random'"):
        with_options("digits", {"features": "randon"})


def test_a_backbone_of_images_refuses_vectors():
    table = LabelledData.from_tensors(torch.rand(4, 3), torch.tensor([0, 1, 0, 1]))
    with pytest.raises(DataError, match="reads images; data holds vectors of 3 values"):
        Backbone(nn.Linear(3, 2), size=8).features(table)


def test_a_federation_on_features(tmp_path):
    arguments = ["federated", "--data", "digits", "--features", RANDOM, "--strategy", "feature-sums", "--clients", "3"]
    (line,) = lines_of(tmp_path, *arguments)
    assert "features" in line["settings"]["data"]
    splits = load_splits(line["settings"]["data"])
    central = LDA().fit(measure_data(splits.train)).accuracy(splits.test.samples, splits.test.labels)
    assert line["metrics"]["rounds"][-1]["accuracy"] == pytest.approx(central, abs=0.06)


def test_a_stream_of_features(tmp_path):
    given = ["--data", "digits", "--features", RANDOM, "--train-limit", "300", "--experiences", "2", "--epochs", "1"]
    (line,) = lines_of(tmp_path, "continual", "--strategy", "reservoir", *given)
    assert line["metrics"]["memory_bytes"][-1] > 0


def test_a_federated_stream_of_features(tmp_path):
    given = ["--data", "digits", "--features", RANDOM, "--train-limit", "300", "--experiences", "2", "--clients", "2"]
    (line,) = lines_of(tmp_path, "federated-continual", "--strategy", "distilled", "--method", "herding", *given)
    assert len(line["metrics"]["stages"]) == 2
