"""Four hospitals with files of their own, and the Flower app of ``examples``: in process, simulated and deployed."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from fedcl_distill.data import LabelledData, from_arrays, load
from fedcl_distill.errors import DataError
from simulations.flower.processes import FlowerProcesses, free_port
from strategies.federated import InProcessGrid, RunOptions, make_client_app, run_server
from strategies.federated.aggregation import ReplyCollector
from strategies.federated.client import partition_of

APP = Path(__file__).resolve().parents[2] / "examples" / "flower-app"
HOSPITALS = ("cleveland", "hungarian", "switzerland", "va")
COLUMNS = (
    *("age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach"),
    *("exang", "oldpeak", "slope", "ca", "thal"),
)
MARKS = ("?", "-9", "NA", "missing")
STRATEGIES = ("statistics:steps=5,views=4", "one-shot:distiller=herding,images_per_class=3", "fedavg")


@pytest.fixture
def app(monkeypatch):
    """The module of the example that reads data, as Flower imports it."""
    monkeypatch.syspath_prepend(str(APP))
    from hospitals import task

    yield task
    for name in [name for name in sys.modules if name.split(".")[0] == "hospitals"]:
        del sys.modules[name]


def heart() -> LabelledData:
    """The real records where this computer has them, else some that look alike."""
    try:
        return load("heart").train
    except DataError:
        generator = torch.Generator().manual_seed(0)
        labels, groups = torch.arange(240) % 2, torch.arange(240) // 60
        samples = (torch.randn(240, 13, generator=generator) + 2 * labels[:, None] + 50).round()
        samples[:, 1] = torch.arange(240) % 2
        data = LabelledData.from_tensors(samples, labels, class_names=("healthy", "disease"))
        return LabelledData(data.samples, labels, data.spec, "heart", groups, HOSPITALS)


def write_hospitals(folder: Path) -> LabelledData:
    """One CSV a hospital, each with its own order of columns, codes, marks and classes; what they hold together."""
    data, rng, pooled, labels = heart(), np.random.default_rng(0), list[torch.Tensor](), list[str]()
    for number, name in enumerate(HOSPITALS):
        rows = data.subset((data.groups == number).nonzero().flatten())
        samples, words = rows.samples.numpy().astype(np.float64), number % 2 == 0
        lost = rng.random(samples.shape) < 0.05
        lost[0], lost[:, 1] = False, False
        order = [*COLUMNS, "diagnosis"]
        rng.shuffle(order)
        with (folder / f"{name}.csv").open("w", newline="") as file:
            writer = csv.writer(file, delimiter=";,"[number % 2])
            writer.writerow(order)
            for values, gone, label in zip(samples, lost, rows.labels, strict=True):
                cells = dict(zip(COLUMNS, (repr(float(value)) for value in values), strict=True))
                cells["sex"] = ("F", "M")[int(values[1])] if words else cells["sex"]
                cells |= {COLUMNS[place]: MARKS[number] for place in np.flatnonzero(gone)}
                cells["diagnosis"] = str(int(label)) if words else rows.class_names[label]
                writer.writerow([cells[column] for column in order])
        notes = f'label = "diagnosis"\nmissing = ["{MARKS[number]}"]\ndelimiter = "{";,"[number % 2]}"\n'
        notes += '[labels]\n0 = "healthy"\n1 = "disease"\n[codes.sex]\nF = 0\nM = 1\n' if words else ""
        (folder / f"{name}.toml").write_text(notes)
        median = np.nanmedian(np.where(lost, np.nan, samples), axis=0)
        pooled.append(torch.tensor(np.where(lost, median, samples)).float())
        labels += [data.class_names[label] for label in rows.labels]
    whole = from_arrays(torch.cat(pooled), labels, feature_names=COLUMNS)
    with (folder / "test.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*COLUMNS, "label"])
        for sample, label in list(zip(whole.samples.tolist(), labels, strict=True))[::3]:
            writer.writerow([*sample, label])
    return whole


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_four_files_of_their_own_kind_are_one_federation(app, tmp_path, strategy):
    whole = write_hospitals(tmp_path)
    files = [tmp_path / f"{name}.csv" for name in HOSPITALS]
    client = make_client_app(lambda context: app.read_site(files[partition_of(context)]))
    test = app.load_test(str(tmp_path / "test.csv"))
    with InProcessGrid(client, 4) as grid:
        agreed = RunOptions(spec="agree").specified(grid, ReplyCollector(4, 1.0, 0.0), test)
    at = [whole.spec.feature_names.index(name) for name in agreed.spec.feature_names]
    assert agreed.value_range == whole.value_range
    assert agreed.class_names == ("disease", "healthy")
    for name in ("mean", "std"):
        ours, pooled = (getattr(spec.normalisation, name) for spec in (agreed.spec, whole.spec))
        assert ours == pytest.approx([pooled[place] for place in at], rel=1e-6)
    how = {"network": "hospital-net", "spec": "agree", "wait_seconds": 0.0, "train": "brief"}
    with InProcessGrid(client, 4) as grid:
        result = run_server(grid, strategy, test=test, **how)
    assert result.rejections == ()
    assert len(result.ledger.by_node("up")) == 4


def test_the_bundle_is_thin_and_of_format_1(tmp_path):
    from flwr.cli.build import build_fab_from_disk

    (tmp_path / "app.fab").write_bytes(build_fab_from_disk(APP))
    with zipfile.ZipFile(tmp_path / "app.fab") as bundle:
        names = {name for name in bundle.namelist() if not name.startswith(".info")}
    code = {f"hospitals/{name}.py" for name in ("__init__", "task", "client_app", "server_app")}
    assert names == {"LICENSE", "README.md", "pyproject.toml"} | code


def _run(flower: FlowerProcesses, *options: str, **config: object) -> dict:
    result = flower.home / "result.json"
    result.unlink(missing_ok=True)
    given = " ".join(f"{key.replace('_', '-')}={json.dumps(value)}" for key, value in config.items())
    more = ("--run-config", f"results-file={json.dumps(str(result))} wait-seconds=180.0 {given}")
    output = flower.call("flwr", "run", str(APP), "here", "--stream", *more, *options, timeout=400)
    assert result.exists(), output[-3000:]
    return json.loads(result.read_text())


def _connect(flower: FlowerProcesses, address: str) -> None:
    (flower.home / "config.toml").write_text(f'[superlink.here]\naddress = "{address}"\ninsecure = true\n')


def _node(flower: FlowerProcesses, address: str, name: str, config: str) -> subprocess.Popen[bytes]:
    options = ("--insecure", "--superlink", address, "--node-config", config, "--port", str(free_port()))
    return flower.start("flower-supernode", *options, log=f"{name}.log")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_it_runs_in_simulation_as_its_readme_says(tmp_path):
    with FlowerProcesses(tmp_path) as flower:
        _connect(flower, flower.start_superlink("--insecure", "--simulation"))
        engine = "num-supernodes=4 client-resources-num-cpus=1 init-args-num-cpus=2"
        found = _run(flower, "--federation-config", engine, clients=4)
    assert found["rejections"] == []
    assert found["accuracy"] > 0.9
    assert len(found["bytes_by_client"]) == 4


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_four_hospitals_deployed_by_data_path_alone(tmp_path):
    """A node starts late, one has no data, and one is killed and comes back under another id."""
    write_hospitals(tmp_path)
    home = tmp_path / "flower"
    home.mkdir()
    with FlowerProcesses(home) as flower:
        address = flower.start_superlink("--insecure")
        _connect(flower, address)
        nodes = [_node(flower, address, name, f'data-path="{tmp_path}/{name}.csv"') for name in HOSPITALS[:3]]
        test = str(tmp_path / "test.csv")
        three = _run(flower, clients=3, test_path=test, strategy="statistics:steps=50")
        nodes.append(_node(flower, address, "va", f'data-path="{tmp_path}/va.csv"'))
        _node(flower, address, "empty", 'note="nothing here"')
        five = _run(flower, clients=5, test_path=test, strategy="one-shot:distiller=herding")
        os.killpg(nodes[0].pid, signal.SIGKILL)
        _node(flower, address, "back", f'data-path="{tmp_path}/cleveland.csv"')
        rounds = _run(
            flower, clients=5, test_path=test, strategy="fedavg:epochs=2", rounds=3, quorum=0.5
        )  # the dead one is still listed
    assert three["rejections"] == []
    assert len(three["bytes_by_client"]) == 3
    assert {one["server_round"] for one in five["rejections"]} == {0, 1}
    assert all("this node holds no data" in one["reason"] for one in five["rejections"])
    assert rounds["rounds"][-1]["answers"] == 4
    assert min(one["accuracy"] for one in (three, five, rounds)) > 0.6
