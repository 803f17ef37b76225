"""Truth: sequences of losses whose windows can be averaged by eye, and a run cut in two."""

from __future__ import annotations

from pathlib import Path

import pytest

from builders import blobs
from fedcl_distill.engine import Budget
from fedcl_distill.errors import SettingsError
from fedcl_distill.methods import dm
from stopping import StopAt

FALLING, FLAT, RISING = [4.0, 2.0], [3.0, 3.0], [3.0, 5.0]


@pytest.mark.parametrize(
    ("losses", "settled"),
    [
        (FALLING, False),  # nothing to compare with
        ([*FALLING, *FLAT], False),  # one window without progress may be chance
        ([*FALLING, *FLAT, *FLAT], True),
        ([*FALLING, *FLAT, *RISING], True),
        ([*FALLING, *FLAT, 2.0, 3.0], False),
        ([*FALLING, *FLAT, *FLAT, 0.0], False),  # asked for in the middle of a window
        ([*RISING, *FALLING, *FLAT, *FLAT], True),
        ([], False),
    ],
)
def test_a_plateau_is_two_windows_that_are_no_better_than_the_best(losses: list[float], settled: bool) -> None:
    assert Budget(steps=100, plateau=2).settled(losses) is settled
    assert not Budget(steps=100).settled(losses)


@pytest.mark.parametrize("plateau", [0, -3])
def test_a_plateau_has_a_width(plateau: int) -> None:
    with pytest.raises(SettingsError, match="plateau must be a whole number at least 1"):
        Budget(steps=1, plateau=plateau)


def test_a_plateau_alone_is_no_budget() -> None:
    with pytest.raises(SettingsError, match="steps or seconds"):
        Budget.if_given(None, None, plateau=10)


def test_a_run_ends_where_it_settles_in_one_go_or_in_two(tmp_path: Path) -> None:
    method, data = dm(architecture="mlp:width=8", augmentation="none", learning_rate=0.1), blobs()
    budget, path = Budget(steps=10_000, plateau=20), tmp_path / "run.pt"
    whole = method.distil(data, 1, seed=0, budget=budget)
    steps = whole.provenance["steps"]
    assert 60 <= steps < 10_000
    assert steps % 20 == 0
    method.distil(data, 1, seed=0, budget=budget, checkpoint=path, callbacks=[StopAt(steps - 7)])
    resumed = method.distil(data, 1, seed=0, budget=budget, checkpoint=path)
    assert resumed.provenance["steps"] == steps
    assert resumed.arrays["pixels"].equal(whole.arrays["pixels"])
    assert not path.exists()
