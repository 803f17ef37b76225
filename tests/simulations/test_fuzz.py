"""A short run of every fuzz target: valid inputs are accepted, changed ones are taken or refused as promised."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from random import Random

import pytest

from fedcl_distill.errors import DependencyError, SettingsError
from simulations.dev.fuzz.__main__ import _NAMES, main
from simulations.dev.fuzz.fuzzer import Finding, Target, judge, mutate_bytes, mutate_json, mutate_tree
from simulations.dev.fuzz.messages import TARGETS

RUNS = {"checkpoints": 100, "images": 150}
MOST = 250


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


def test_the_command_knows_every_target() -> None:
    assert set(_NAMES) == set(TARGETS)


@pytest.mark.parametrize("name", TARGETS)
def test_what_is_changed_is_taken_or_refused_as_promised(name: str) -> None:
    target, random = TARGETS[name], Random(7)
    pool = list(target.seeds())
    taken = [judge(target, seed) for seed in pool]
    assert sum(taken) >= 0.9 * len(taken)  # some pictures are of kinds that are rightly refused
    refused = 0
    for _ in range(RUNS.get(name, MOST)):
        changed = (target.mutate if random.randrange(4) else mutate_bytes)(random.choice(pool), random)
        accepted = judge(target, changed)
        refused += not accepted
        if accepted and len(pool) < 200:
            pool.append(changed)
    assert refused or name in ("experts", "results")  # these two never refuse: they pass over what is broken


def test_what_comes_out_that_should_not_is_a_finding() -> None:
    def read(data: bytes) -> int:
        if data == b"refused":
            raise KeyError("as promised")
        return int(data)

    target = Target("numbers", lambda: [b"1"], read, (KeyError,), check=lambda number: [][number - 1])
    with pytest.raises(Finding, match="accepted what does not hold: IndexError"):
        judge(target, b"1")
    with pytest.raises(Finding, match="numbers raised ValueError"):
        judge(target, b"x")
    assert not judge(target, b"refused")


def test_time_and_memory_are_findings_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulations.dev.fuzz.fuzzer.MAX_SECONDS", 0.01)
    with pytest.raises(Finding, match="took"):
        judge(Target("slow", list, lambda data: sum(range(10**6)), ()), b"")
    peaks = iter([0, 2**40])
    monkeypatch.setattr("simulations.dev.fuzz.fuzzer._peak", lambda: next(peaks))
    monkeypatch.setattr("simulations.dev.fuzz.fuzzer.MAX_SECONDS", 60.0)
    with pytest.raises(Finding, match="took 1048576 MiB"):
        judge(Target("large", list, lambda data: None, ()), b"")


def test_mutation_is_fixed_by_its_seed_and_changes_something() -> None:
    tree = {"a": [1, 2.5, {"b": "text"}], "c": None}
    changed = [mutate_tree(tree, Random(seed)) for seed in range(50)]
    assert repr(changed) == repr([mutate_tree(tree, Random(seed)) for seed in range(50)])
    assert tree == {"a": [1, 2.5, {"b": "text"}], "c": None}
    assert sum(repr(one) != repr(tree) for one in changed) > 40
    assert mutate_json(b"no JSON", Random(0)) == mutate_bytes(b"no JSON", Random(0))


def test_an_unknown_target_is_refused() -> None:
    with pytest.raises(SettingsError, match="unknown target nothing; known: sets"):
        main(["nothing"])


def test_without_atheris_the_command_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DependencyError, match="pip install"):
        main(["sets"])
