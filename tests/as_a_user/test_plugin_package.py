"""A package beside ours, installed by pip: its method, network and augmentation work by name wherever names do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

FEDERATED = """
from fedcl_distill import load_data
from fedcl_distill.data import partition
from strategies.federated import InProcessGrid, OneShot, collect_sets, make_client_app

data = load_data("digits").train
parts = partition(data, "geometric:ratio=3", 2, seed=0)
app = make_client_app(lambda context: parts[int(context.node_config["partition-id"])])
strategy = OneShot("mmd:architecture=[mixer:width=8]", images_per_class=1, steps=2)
with InProcessGrid(app, 2) as grid:
    collected = collect_sets(grid, strategy, like=data)
print(len(collected.synthetic))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the example package, installed as pip installs it, without a network."""
    target = tmp_path_factory.mktemp("site")
    source = ROOT / "examples" / "plugin"
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target", str(target)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, str(source)], check=True, timeout=240)
    return target


def python(installed: Path, folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{installed}", "COLUMNS": "200"}
    environment.pop("FEDCL_DISTILL_PLUGINS", None)
    command = [sys.executable, *arguments]
    said = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert said.returncode == 0, said.stderr
    return said.stdout


@pytest.mark.slow
def test_from_python(installed: Path, tmp_path: Path) -> None:
    code = (
        "from fedcl_distill import Budget, build_method, evaluate, list_methods, load_data;"
        "data = load_data('digits');"
        "method = build_method('mmd', architecture='mixer:width=8', augmentation='jitter:strength=0.2');"
        "made = method.distil(data.train, 1, seed=0, budget=Budget(steps=3));"
        "print('mmd' in list_methods(), made.provenance['objective'], made.provenance['augmentation']['strength'])"
    )
    assert python(installed, tmp_path, "-c", code).split() == ["True", "mmd", "0.2"]


@pytest.mark.slow
def test_from_the_command_line_and_in_its_workers(installed: Path, tmp_path: Path) -> None:
    listed = python(installed, tmp_path, "-P", "-m", "simulations", "methods")
    assert "mmd" in listed
    assert "bandwidth" in python(installed, tmp_path, "-P", "-m", "simulations", "methods", "mmd")
    table = ["distil-table", "--data", "digits", "--method", "mmd", "--method", "random", "--images-per-class", "1"]
    table += ["--distil-steps", "2", "--architecture", "mixer:width=8", "--workers", "2", "--out", "results"]
    python(installed, tmp_path, "-P", "-m", "simulations", *table)
    records = [json.loads(line) for line in (tmp_path / "results" / "results.jsonl").read_text().splitlines()]
    methods = {record["settings"]["method"] for record in records if record.get("error") is None}
    assert {"mmd", "random"} <= methods


@pytest.mark.slow
def test_on_flower_clients(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(FEDERATED)
    assert python(installed, tmp_path, "app.py").split()[-1] == "20"
