"""Truth: the mean taken by brute force over recorded iterates, and an uninterrupted twin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from builders import blobs
from fedcl_distill.context import RealSampler, SyntheticBatch
from fedcl_distill.data import Splits
from fedcl_distill.engine import Budget, Callback, Engine, Run
from fedcl_distill.errors import SettingsError
from fedcl_distill.methods import dm, frepo
from fedcl_distill.networks import Architecture
from fedcl_distill.objectives import DistributionMatching, MatchContext
from fedcl_distill.synthetic import decode, encode
from stopping import StopAt

TINY = Architecture("convnet", {"width": 8})


class Recording(Callback):
    """Keeps what every step left, and how much of the budget was spent by then."""

    def __init__(self) -> None:
        self.fractions: list[float] = []
        self.arrays: list[dict[str, torch.Tensor]] = []
        self.labels: list[torch.Tensor] = []

    def on_step(self, run: Run) -> None:
        self.fractions.append(run.progress.fraction)
        self.arrays.append({name: one.detach().clone() for name, one in run.state.arrays.items()})
        self.labels.append(run.state.labels.detach().clone())


def method(**settings: Any) -> Engine:
    return dm(architecture=TINY, real_batch_per_class=16, learning_rate=5.0, **settings)


def mean(tensors: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack(tensors).double().mean(dim=0).float()


@pytest.mark.parametrize("parameterization", ["pixels", "tiles", "low-rank:rank=2"])
@pytest.mark.parametrize(("averaging_start", "counted"), [(0.0, 10), (0.5, 6), (0.55, 5), (0.95, 1)])
def test_the_result_is_the_mean_of_the_last_iterates(
    parameterization: str, averaging_start: float, counted: int
) -> None:
    seen = Recording()
    distiller = method(parameterization=parameterization, averaging_start=averaging_start)
    result = distiller.distil(blobs(), 2, seed=0, budget=Budget(steps=10), callbacks=[seen])
    for name, array in result.arrays.items():
        expected = mean([arrays[name] for arrays in seen.arrays[-counted:]])
        torch.testing.assert_close(array, expected, rtol=1e-5, atol=1e-5)
        assert counted == 1 or not torch.allclose(array, seen.arrays[-1][name], atol=1e-3)


def test_in_a_budget_of_seconds_it_counts_from_its_share_of_them() -> None:
    seen = Recording()
    result = method(averaging_start=0.5).distil(blobs(), 2, seed=0, budget=Budget(seconds=0.5), callbacks=[seen])
    late = [arrays["pixels"] for fraction, arrays in zip(seen.fractions, seen.arrays, strict=True) if fraction >= 0.5]
    assert 1 < len(late) < len(seen.arrays)
    torch.testing.assert_close(result.arrays["pixels"], mean(late), rtol=1e-5, atol=1e-5)


def test_averaging_leaves_the_iterates_as_they_are() -> None:
    plain, averaged = Recording(), Recording()
    last = method().distil(blobs(), 2, seed=0, budget=Budget(steps=6), callbacks=[plain])
    method(averaging_start=0.3).distil(blobs(), 2, seed=0, budget=Budget(steps=6), callbacks=[averaged])
    for one, other in zip(plain.arrays, averaged.arrays, strict=True):
        assert torch.equal(one["pixels"], other["pixels"])
    assert torch.equal(last.arrays["pixels"], plain.arrays[-1]["pixels"])


def test_learned_labels_are_averaged_and_stay_probabilities() -> None:
    seen = Recording()
    distiller = frepo(architecture=TINY, real_batch_size=32, networks=2)
    averaging = Engine(**{**vars(distiller), "averaging_start": 0.5})
    result = averaging.distil(blobs(), 2, seed=0, budget=Budget(steps=8), callbacks=[seen])
    torch.testing.assert_close(result.labels, mean(seen.labels[-5:]), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(result.labels.sum(dim=1), torch.ones(len(result)))
    assert not torch.equal(result.labels, seen.labels[-1])


@pytest.mark.parametrize("stop", [2, 5, 8])
def test_a_resumed_run_averages_to_the_same_bits(tmp_path: Path, stop: int) -> None:
    data, path, budget = blobs(), tmp_path / "run.pt", Budget(steps=11)
    distiller = method(averaging_start=0.3, steps_per_network=3)
    whole = distiller.distil(data, 2, seed=0, budget=budget)
    distiller.distil(data, 2, seed=0, budget=budget, checkpoint=path, callbacks=[StopAt(stop)])
    resumed = distiller.distil(data, 2, seed=0, budget=budget, checkpoint=path)
    assert torch.equal(resumed.arrays["pixels"], whole.arrays["pixels"])


def test_a_run_stopped_before_its_share_returns_what_it_has() -> None:
    seen, budget = Recording(), Budget(steps=10)
    part = method(averaging_start=0.9).distil(blobs(), 2, seed=0, budget=budget, callbacks=[seen, StopAt(3)])
    assert torch.equal(part.arrays["pixels"], seen.arrays[-1]["pixels"])


def test_an_average_survives_its_payload() -> None:
    distiller = Engine(**{**vars(method(averaging_start=0.5, clamp=True)), "bits": 8})
    result = distiller.distil(blobs(), 2, seed=0, budget=Budget(steps=6))
    assert torch.equal(decode(encode(result, bits=8)).arrays["pixels"], result.arrays["pixels"])


@pytest.mark.parametrize("bad", [-0.1, 1.5, float("nan")])
def test_a_fraction_out_of_range_is_refused(bad: float) -> None:
    with pytest.raises(SettingsError, match="averaging_start"):
        method(averaging_start=bad)


def test_averages_match_unseen_views_better_than_where_runs_end(digits: Splits) -> None:
    """What averaging is for: with a rate that stays high, the end of a run is mostly noise of its last views."""
    real, counts = RealSampler(digits.train, torch.device("cpu")), torch.arange(10)
    objective = DistributionMatching(real_batch_per_class=128)

    def mismatch(averaging_start: float) -> float:
        distiller = method(augmentation="none", averaging_start=averaging_start)
        inputs = distiller.distil(digits.train, 1, seed=0, budget=Budget(steps=200)).inputs()
        total = 0.0
        for index in range(10):
            view = MatchContext(TINY.build((1, 8, 8), 10, seed=1000 + index), lambda inputs, _: inputs, seed=index)
            losses = objective.losses(view, objective.target(view, real), SyntheticBatch(inputs, counts, counts))
            total += sum(loss.item() for loss in losses)
        return total

    assert mismatch(0.5) < 0.97 * mismatch(1.0)
