"""A user's own ``strategies.py`` or ``simulations/`` where he works: ours are used, or one error names the file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def clash(tmp_path: Path) -> Path:
    """A folder in which both names are taken."""
    (tmp_path / "strategies.py").write_text("raise RuntimeError('not ours')\n")
    (tmp_path / "simulations").mkdir()
    (tmp_path / "simulations" / "__init__.py").write_text("raise RuntimeError('not ours')\n")
    return tmp_path


def _python(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)


def test_one_error_names_the_file_that_stands_in_for_ours(clash: Path) -> None:
    (clash / "app.py").write_text("from fedcl_distill.flower import run_server\n")
    said = _python(clash, "app.py")
    assert said.returncode == 1
    error = said.stderr.splitlines()[-1]
    assert error.startswith("fedcl_distill.errors.DependencyError: ")
    assert str(clash / "strategies.py") in error


def test_names_of_the_floors_above_are_those_of_their_packages(tmp_path: Path) -> None:
    code = (
        "import fedcl_distill.avalanche as a, fedcl_distill.flower as f, strategies.continual, strategies.federated\n"
        "assert f.run_server is strategies.federated.run_server and 'make_client_app' in dir(f)\n"
        "assert a.DistilledMemory is strategies.continual.DistilledMemory\n"
        "try: f.nothing\n"
        "except AttributeError: print('good')\n"
    )
    assert _python(tmp_path, "-c", code).stdout == "good\n"


def test_a_fresh_process_uses_ours(clash: Path) -> None:
    code = (
        "import sys; sys.path.pop(0)\n"
        "from simulations.running.processes import in_fresh_process\n"
        "print(in_fresh_process('simulations.running.runs:environment', {}, 1)['threads'])\n"
    )
    assert _python(clash, "-c", code).stdout == "1\n"


def test_the_command_line_and_its_workers_use_ours_and_a_plugin_of_the_working_folder(clash: Path) -> None:
    (clash / "myparts.py").write_text(
        "from fedcl_distill.methods import random, register_method\n"
        "@register_method('mine', family='core sets', choose_when='always', paper='none')\n"
        "def mine():\n"
        "    'Random samples.'\n"
        "    return random()\n"
    )
    work = ["--method", "mine", "--images-per-class", "1", "--networks", "1", "--protocol", "brief"]
    program = "import sys; sys.path.pop(0); from simulations.cli import main; main()"  # as the console script starts
    plugin = ["--plugin", "myparts", "distil", *work, "--seed", "0,1", "--workers", "2"]
    said = _python(clash, "-c", program, *plugin)
    assert said.returncode == 0, said.stderr
    assert len((clash / "runs" / "results.jsonl").read_text().splitlines()) == 2
    refused = _python(clash, "-c", program, "distil", *work)
    assert (refused.returncode, "unknown method 'mine'" in refused.stderr) == (2, True)
