"""What importing the package costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import strategies.continual


def _run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_settings_memories_and_metrics_come_without_avalanche():
    done = _run(
        "import sys\n"
        "from simulations.scenarios import continual\n"
        "from strategies.continual import AccuracyMatrix, ContinualSettings, DistilledMemory, ReservoirMemory\n"
        "sys.exit('avalanche' in sys.modules)"
    )
    assert done.returncode == 0, done.stderr


def test_without_avalanche_one_error_says_what_to_install():
    code = (
        "import sys\n"
        "sys.modules['avalanche'] = None\n"
        "from fedcl_distill.errors import DependencyError\n"
        "import strategies.continual\n"
        "try:\n"
        "    strategies.continual.Replay\n"
        "except DependencyError as error:\n"
        "    print(error)\n"
    )
    assert "fedcl-distill[continual]" in _run(code).stdout


def test_everything_listed_is_there():
    for name in strategies.continual.__all__:
        assert getattr(strategies.continual, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        strategies.continual.nothing  # noqa: B018
