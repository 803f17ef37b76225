"""Truth: the import statements themselves. No module and no package of strategies or simulations is in a cycle."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOPS = ("strategies", "simulations")
NOT_YET = ("simulations.dev.",)
"""Developer tools that still are in a cycle: to be shortened."""


def modules(top: str) -> dict[str, Path]:
    """Paths by dotted name; a package goes by its own name."""
    found = {}
    for path in sorted((ROOT / top).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(name: str, path: Path, known: dict[str, Path]) -> set[str]:
    """Which of ``known`` the module imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return {one for one in found & known.keys() if one != name}


def cycle_in(graph: dict[str, set[str]]) -> list[str]:
    """The names of one cycle; empty where there is none."""
    done: set[str] = set()
    for start in sorted(graph):
        path, stack = [], [(start, iter(sorted(graph[start])))]
        path.append(start)
        while stack:
            rest = stack[-1][1]
            following = next(rest, None)
            if following is None:
                stack.pop()
                done.add(path.pop())
            elif following in path:
                return [*path[path.index(following) :], following]
            elif following not in done and following in graph:
                path.append(following)
                stack.append((following, iter(sorted(graph[following]))))
    return []


def module_graph(top: str) -> dict[str, set[str]]:
    known = modules(top)
    packages = {name for name, path in known.items() if path.name == "__init__.py"}
    graph = {name: imports(name, path, known) for name, path in known.items()}
    # What a package's __init__ offers is imported from its modules: importing a package stands for none of them.
    return {name: {one for one in found if one not in packages} for name, found in graph.items()}


def package_graph(top: str) -> dict[str, set[str]]:
    """Packages side by side: which imports from which; what is above or below one another is one."""
    graph: dict[str, set[str]] = {}
    known = modules(top)
    packages = {name for name, path in known.items() if path.name == "__init__.py" and name != top}

    def owner(name: str) -> str | None:
        while name and name not in packages:
            name = name.rpartition(".")[0]
        return name or None

    for name, path in known.items():
        own = owner(name)
        if own is None:
            continue
        for one in imports(name, path, known):
            other = owner(one)
            if other and not (own + ".").startswith(other + ".") and not (other + ".").startswith(own + "."):
                graph.setdefault(own, set()).add(other)
                graph.setdefault(other, set())
    return graph


def test_a_cycle_is_found() -> None:
    assert cycle_in({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": set()}) == ["a", "b", "c", "a"]
    assert cycle_in({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


@pytest.mark.parametrize("top", TOPS)
def test_modules_import_in_one_direction(top: str) -> None:
    assert len(module_graph(top)) > 20
    graph = module_graph(top)
    assert cycle_in({name: found for name, found in graph.items() if not name.startswith(NOT_YET)}) == []


@pytest.mark.parametrize("top", TOPS)
def test_packages_import_in_one_direction(top: str) -> None:
    assert cycle_in(package_graph(top)) == []


def test_strategies_know_nothing_of_simulations() -> None:
    for name, path in modules("strategies").items():
        assert not imports(name, path, modules("simulations")), name
