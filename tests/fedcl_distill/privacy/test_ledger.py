"""Truth: what a budget must never allow, across crashes, restarts, damage and processes."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pytest

from fedcl_distill.errors import PrivacyError, SettingsError, StorageError
from fedcl_distill.privacy import Mechanism, PrivacyBudget, Release, epsilon_of

ONE = Mechanism(4.0)  # of which three cost 1.70 and four 1.99 at this delta
DELTA = 1e-5


def budget(folder: Path, epsilon: float = 1.9) -> PrivacyBudget:
    return PrivacyBudget(folder / "ledger.json", epsilon, DELTA)


def release(name: str, part: str = "") -> Release:
    return Release(name, f"test {name}", ONE, part)


def test_it_spends_until_nothing_is_left(tmp_path: Path) -> None:
    ledger = budget(tmp_path)
    for number in range(3):
        ledger.spend(release(str(number)))
    assert ledger.spent() == pytest.approx(epsilon_of([Mechanism(4.0, queries=3)], DELTA))
    before = (tmp_path / "ledger.json").read_bytes()
    with pytest.raises(PrivacyError, match="would bring"):
        ledger.spend(release("3"))
    assert (tmp_path / "ledger.json").read_bytes() == before


def test_a_restarted_process_finds_what_was_spent(tmp_path: Path) -> None:
    for number in range(3):
        budget(tmp_path).spend(release(str(number)))
    assert [one.name for one in budget(tmp_path).releases()] == ["0", "1", "2"]
    with pytest.raises(PrivacyError):
        budget(tmp_path).spend(release("3"))


def test_the_same_release_costs_once_and_its_name_is_taken(tmp_path: Path) -> None:
    ledger = budget(tmp_path)
    for _ in range(5):
        ledger.spend(release("same"))
    assert len(ledger.releases()) == 1
    with pytest.raises(PrivacyError, match="another release"):
        ledger.spend(Release("same", "test same", Mechanism(1.0)))


def test_disjoint_parts_do_not_add_up_but_releases_of_all_do(tmp_path: Path) -> None:
    ledger = budget(tmp_path)
    for number in range(5):
        ledger.spend(release(f"part {number}", part=str(number)))
    assert ledger.spent() == pytest.approx(epsilon_of([ONE], DELTA))
    ledger.spend(release("all"))
    assert ledger.spent() == pytest.approx(epsilon_of([ONE, ONE], DELTA))
    ledger.spend(release("part 3 again", part="3"))  # the third that concerns its records
    with pytest.raises(PrivacyError):
        ledger.spend(release("part 3 once more", part="3"))
    ledger.spend(release("part 4 again", part="4"))


def test_a_crash_between_intent_and_release_counts_as_spent(tmp_path: Path) -> None:
    def crashing() -> None:
        budget(tmp_path).spend(release("lost"))
        raise KeyboardInterrupt  # the release never happens

    with pytest.raises(KeyboardInterrupt):
        crashing()
    assert budget(tmp_path).spent() > 0


def test_what_cannot_be_written_is_not_spent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise StorageError("disk is full")

    monkeypatch.setattr("fedcl_distill.privacy.ledger.write_atomically", full)
    with pytest.raises(StorageError):
        budget(tmp_path).spend(release("0"))
    assert budget(tmp_path).releases() == []


@pytest.mark.parametrize("damage", ["cut", "edited", "no json", "renamed key", "binary"])
def test_a_damaged_ledger_releases_nothing(tmp_path: Path, damage: str) -> None:
    ledger, path = budget(tmp_path), tmp_path / "ledger.json"
    ledger.spend(release("0"))
    text = path.read_text()
    content = json.loads(text)
    content["releases"] = []
    path.write_bytes(
        {
            "cut": text[:-20].encode(),
            "edited": json.dumps(content).encode(),
            "no json": b"{}",
            "renamed key": text.replace("releases", "release").encode(),
            "binary": b"\xff\xfe\x00",
        }[damage]
    )
    with pytest.raises(PrivacyError, match="damaged"):
        ledger.spend(release("1"))
    with pytest.raises(PrivacyError, match="damaged"):
        ledger.spent()


def test_a_budget_cannot_be_raised_by_asking_for_more(tmp_path: Path) -> None:
    budget(tmp_path).spend(release("0"))
    with pytest.raises(PrivacyError, match="of the budget"):
        budget(tmp_path, epsilon=100.0).spend(release("1"))
    with pytest.raises(SettingsError):
        PrivacyBudget(tmp_path / "other", -1.0, DELTA)


def _spend(path: str, first: int) -> int:
    allowed = 0
    for number in range(first, first + 3):
        try:
            PrivacyBudget(path, 1.9, DELTA).spend(release(str(number)))
            allowed += 1
        except PrivacyError:
            pass
    return allowed


def test_two_processes_never_spend_more_than_one_may(tmp_path: Path) -> None:
    path = str(tmp_path / "ledger.json")
    with multiprocessing.get_context("fork").Pool(3) as pool:
        allowed = pool.starmap(_spend, [(path, 0), (path, 10), (path, 20)])
    assert sum(allowed) == 3
    assert len(PrivacyBudget(path, 1.9, DELTA).releases()) == 3
