"""How the code is laid out: three floors whose imports point down, few files, no cycles, tools outside the wheel."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = ("fedcl_distill", "strategies", "simulations")
STRATEGIES = ("federated", "continual", "federated_continual")
NAMES_OF_FLOORS_ABOVE = {"fedcl_distill/flower.py", "fedcl_distill/avalanche.py"}
"""Modules that offer names of the floor above, which they import when they are asked for one."""


MOST_FILES = {
    "fedcl_distill": 108,
    "strategies/federated": 30,
    "strategies/continual": 15,
    "strategies/federated_continual": 8,
    "simulations": 74,
}
"""A new file needs a reader's question of its own; where it answers a known one, it belongs to the file that does."""
MOST_LINES = 680


def _imports(file: Path) -> Iterator[str]:
    """Modules that ``file`` imports, anywhere in it but under ``TYPE_CHECKING``, which never runs."""
    tree = ast.parse(file.read_text())
    typing = [node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)]
    unseen = {id(inner) for node in typing for one in node.body for inner in ast.walk(one)}
    for node in (one for one in ast.walk(tree) if id(one) not in unseen):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def _neighbours(package: Path) -> dict[str, set[str]]:
    """What each part of ``package``, a module or a package in it, imports of the others."""
    parts = {file.stem if file.parent == package else file.relative_to(package).parts[0] for file in _files(package)}
    dotted = ".".join(package.relative_to(ROOT).parts) + "."
    found: dict[str, set[str]] = {part: set() for part in parts}
    for file in _files(package):
        part = file.stem if file.parent == package else file.relative_to(package).parts[0]
        wanted = (name.removeprefix(dotted).split(".")[0] for name in _imports(file) if name.startswith(dotted))
        found[part] |= {one for one in wanted if one in parts and one != part}
    return found


def _files(package: Path) -> list[Path]:
    return sorted(package.rglob("*.py"))


def _reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    seen, waiting = set[str](), [start]
    while waiting:
        for one in graph[waiting.pop()] - seen:
            seen.add(one)
            waiting.append(one)
    return seen


@pytest.mark.parametrize("package", MOST_FILES)
def test_files_are_few_and_none_is_long(package: str) -> None:
    files = _files(ROOT / package)
    assert len(files) <= MOST_FILES[package], package
    assert {str(file): lines for file in files if (lines := file.read_text().count("\n")) > MOST_LINES} == {}


@pytest.mark.parametrize("floor", range(len(FLOORS)))
def test_imports_point_down(floor: int) -> None:
    above = FLOORS[floor + 1 :]
    for file in _files(ROOT / FLOORS[floor]):
        if str(file.relative_to(ROOT)) not in NAMES_OF_FLOORS_ABOVE:
            assert not [name for name in _imports(file) if name.split(".")[0] in above], file


def test_packages_of_simulations_have_no_cycles() -> None:
    graph = _neighbours(ROOT / "simulations")
    assert {one for one in graph if one in _reachable(graph, one)} == set()


@pytest.mark.parametrize("package", ["strategies", *(f"strategies/{one}" for one in STRATEGIES)])
def test_modules_and_packages_of_strategies_have_no_cycles(package: str) -> None:
    graph = _neighbours(ROOT / package)
    assert len(graph) > 3
    assert {one for one in graph if one in _reachable(graph, one)} == set()


def test_nothing_outside_imports_the_tools_of_developers() -> None:
    for file in (file for floor in FLOORS for file in _files(ROOT / floor)):
        if ROOT / "simulations" / "dev" not in file.parents:
            assert not [name for name in _imports(file) if name.startswith("simulations.dev")], file


def test_the_wheel_holds_the_three_floors_and_no_tools_of_developers() -> None:
    wheel = pytest.importorskip("hatchling.builders.wheel")
    held = {one.distribution_path for one in wheel.WheelBuilder(str(ROOT)).recurse_included_files()}
    wanted = {str(file.relative_to(ROOT)) for floor in FLOORS for file in _files(ROOT / floor)}
    assert {name for name in held if name.endswith(".py")} == {
        name for name in wanted if not name.startswith("simulations/dev/")
    }
    assert {"simulations/report/page.html.j2", "simulations/report/style.css", "fedcl_distill/py.typed"} <= held
