"""What the package offers, and that it takes no time to import."""

from __future__ import annotations

import subprocess
import sys

import pytest

import fedcl_distill


def test_importing_the_package_and_its_errors_and_files_imports_no_torch() -> None:
    code = "import sys, fedcl_distill, fedcl_distill.errors, fedcl_distill.files; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_its_names_need_no_optional_dependency() -> None:
    heavy = "flwr ray avalanche matplotlib torchvision sklearn scipy PIL datasets typer rich"
    code = f"import sys; from fedcl_distill import *; print([m for m in '{heavy}'.split() if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_every_public_name_is_there() -> None:
    for name in fedcl_distill.__all__:
        assert getattr(fedcl_distill, name) is not None
    assert fedcl_distill.load_data is fedcl_distill.data.load
    assert set(fedcl_distill.__all__) == set(fedcl_distill._PLACES)
    assert set(fedcl_distill.__all__) <= set(dir(fedcl_distill))


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="'fedcl_distill' has no attribute 'nothing'"):
        _ = fedcl_distill.nothing
