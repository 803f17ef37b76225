"""Attack: two releases with the same noise under another scale are two equations for the sums that it hides.

Truth: exact sums. A solver that knows both scales must be as far from them as one release alone is; and the ledger
must count every release that was made.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from builders import blobs
from fedcl_distill.augmentation import NoAugmentation
from fedcl_distill.checkpoint import fingerprint, load_checkpoint, save_checkpoint
from fedcl_distill.context import RealSampler
from fedcl_distill.data import LabelledData, Normalisation
from fedcl_distill.engine import Budget, Callback, Run
from fedcl_distill.errors import CheckpointError, PrivacyError, SettingsError
from fedcl_distill.methods.private import PrivateStatistics, private_statistics, psg
from fedcl_distill.networks import Architecture
from fedcl_distill.objectives import GradientMatching, MatchContext
from fedcl_distill.objectives.private_gradients import PrivateGradientMatching
from fedcl_distill.privacy import NoiseSource, PrivacyBudget, PrivacyTarget, epsilon_of, publicly_scaled
from fedcl_distill.seeding import generator_for
from fedcl_distill.statistics import (
    NoisyFixedPoint,
    NoisyStatistics,
    Shares,
    StatisticsSpec,
    class_statistics,
    release,
    with_noise,
)

SPEC = StatisticsSpec(seed=0, views=4, dimensions=16, kind="direction", architecture="convnet:width=4", moments=0)
DATA = publicly_scaled(blobs(classes=3, per_class=240))
EXACT = class_statistics(DATA, SPEC)
LOW, HIGH = PrivacyTarget(0.1), PrivacyTarget(0.2)


def solved(one: Tensor, scale: float, other: Tensor, other_scale: float) -> Tensor:
    """What both would tell if their noise were the same but for its scale."""
    return (one * other_scale - other * scale) / (other_scale - scale)


def attacked(one: NoisyStatistics, other: NoisyStatistics) -> dict[str, float]:
    """Median error of the solved sums, by block, in deviations of the less noisy release."""
    errors = {}
    for name, sums in [("counts", EXACT.class_counts.double()), *((k, v.values) for k, v in EXACT.sums.items())]:
        first, second = (each.counts if name == "counts" else each.sums[name] for each in (one, other))
        scales = one.deviations()[name], other.deviations()[name]
        if scales[0] != scales[1]:
            error = (solved(first, scales[0], second, scales[1]) - sums).abs().median()
            errors[name] = float(error) / min(scales)
    return errors


@pytest.mark.parametrize(
    ("target", "shares"), [(HIGH, Shares()), (LOW, Shares(features=0.1, samples=0.6, moments=0.1, counts=0.2))]
)
def test_another_release_under_one_key_has_other_noise(target: PrivacyTarget, shares: Shares) -> None:
    key = NoiseSource.fresh()
    one, other = with_noise(EXACT, LOW, Shares(), key), with_noise(EXACT, target, shares, key)
    assert min(attacked(one, other).values()) > 0.01  # 1e-5 where noise repeats; three counts may be near by chance
    again = with_noise(EXACT, LOW, Shares(), key)
    assert torch.equal(again.counts, one.counts)  # the identical release repeats itself


def test_one_record_more_gets_other_noise() -> None:
    key = NoiseSource.fresh()
    more = class_statistics(DATA.subset(torch.arange(len(DATA) - 1)), SPEC)
    one, other = with_noise(EXACT, LOW, Shares(), key), with_noise(more, LOW, Shares(), key)
    gap = (one.sums["features"] - other.sums["features"]).std() / one.deviations()["features"]
    assert gap == pytest.approx(2**0.5, rel=0.2)


@pytest.mark.parametrize("change", [{"fewest": 5}, {"target": HIGH}, {"max_samples": 290}, {"parties": 9}])
def test_shares_of_noise_are_named_by_all_that_goes_into_them(change: dict[str, object]) -> None:
    key = NoiseSource.fresh()
    fixed = NoisyFixedPoint(32, 6, 4, 300, PrivacyTarget(1.0), Shares())
    noises = []
    for one in (fixed, replace(fixed, **change)):
        words = one.words(EXACT, key).view("<i4")
        step = one.steps(SPEC, EXACT.domain)["features"]
        spread = one.shares.deviations(SPEC, EXACT.domain, one.guarantee(SPEC, EXACT.domain).deviation)["features"]
        exact = EXACT.sums["features"].values.flatten()
        noise = torch.from_numpy(words[3 : 3 + exact.numel()].astype("float64")) * step - exact
        noises.append(noise / spread)
    assert abs(float(torch.corrcoef(torch.stack(noises))[0, 1])) < 0.35


def test_noisy_gradients_of_another_query_have_other_noise() -> None:
    key = NoiseSource.fresh()

    def target(multiplier: float, data: LabelledData = DATA) -> Tensor:
        one = PrivateGradientMatching(GradientMatching(over="all"), data, 1.0, 0.1, multiplier, key)
        network = Architecture.parse("convnet:width=4").build(data.sample_shape, 3, seed=1).requires_grad_(False)
        view = MatchContext(network, NoAugmentation().draw(3, data.sample_shape, generator_for(0)), 0, index=0)
        found = one.target(view, RealSampler(data, torch.device("cpu")))
        return torch.cat([layer.flatten() for layer in found[0]]) * len(data)

    exact = target(0.0)
    noises = torch.stack([(target(multiplier) - exact) / multiplier for multiplier in (1.0, 2.0)])
    assert abs(float(torch.corrcoef(noises)[0, 1])) < 0.3
    gap = target(1.0) - target(1.0, DATA.subset(torch.arange(len(DATA) - 1)))
    assert float(gap.norm()) > 2 * 0.1  # the same noise would leave one record's gradient, of length 0.1 at most


class Stop(Exception):
    pass


class Stopping(Callback):
    def __init__(self, path: Path) -> None:
        self.path = path

    def on_step(self, run: Run) -> None:
        run.state.save(self.path, run.fingerprint)
        raise Stop


def method(**own: object) -> PrivateStatistics:
    settings = {"views": 3, "dimensions": 8, "architecture": "convnet:width=4", "moments": 3, "epsilon": 4.0, **own}
    return private_statistics(**settings)  # type: ignore[arg-type]


def interrupted(one: object, path: Path, data: LabelledData = DATA) -> None:
    with pytest.raises(Stop):
        one.distil(data, 1, seed=0, budget=Budget(steps=4), callbacks=[Stopping(path)], checkpoint=path)  # type: ignore[attr-defined]


FLOATS = LabelledData.from_tensors(torch.rand(900, 1, 4, 4), torch.arange(3).repeat(300))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"epsilon": 4.0}, {"epsilon": 8.0}),
        ({"epsilon": 4.0}, {"delta": 1e-6}),
        ({}, {"shares": Shares(counts=0.5)}),
        ({"public_range": (0.0, 1.0)}, {"public_range": (0.0, 2.0)}),
        ({}, {"statistics_seed": 1}),
    ],
)
def test_a_run_started_again_otherwise_does_not_go_on_with_what_was_released(
    tmp_path: Path, first: dict[str, object], second: dict[str, object]
) -> None:
    data = FLOATS if "public_range" in first else DATA
    path, ledger = tmp_path / "run.pt", PrivacyBudget(tmp_path / "ledger", 30.0, 1e-5)
    interrupted(method(ledger=ledger, **first), path, data)
    before = ledger.spent()
    path.unlink()  # as the message of the checkpoint's error says
    other = method(ledger=ledger, **{**first, **second})
    with pytest.raises(CheckpointError, match="another release"):
        other.distil(data, 1, seed=0, budget=Budget(steps=4), checkpoint=path)
    (tmp_path / "run.pt.release").unlink()
    other.distil(data, 1, seed=0, budget=Budget(steps=4), checkpoint=path)
    assert len(ledger.releases()) == 2
    assert ledger.spent() > before * 1.2
    assert ledger.spent() == pytest.approx(epsilon_of([one.mechanism for one in ledger.releases()], 1e-5))
    assert not list(tmp_path.glob("run.pt*"))


def test_a_run_that_resumes_releases_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, ledger = tmp_path / "run.pt", PrivacyBudget(tmp_path / "ledger", 4.0, 1e-5)
    one = method(ledger=ledger)
    interrupted(one, path)
    kept = tmp_path / "run.pt.release"
    assert kept.stat().st_mode & 0o777 == 0o600

    def measured(*_: object, **__: object) -> None:
        raise AssertionError("the records were looked at again")

    monkeypatch.setattr("fedcl_distill.statistics.noisy.class_statistics", measured)
    synthetic = one.distil(DATA, 1, seed=0, budget=Budget(steps=4), checkpoint=path)
    assert synthetic.provenance["privacy"]["epsilon"] == 4.0
    assert len(ledger.releases()) == 1
    assert not kept.exists()


def test_a_checkpoint_without_its_release_is_refused(tmp_path: Path) -> None:
    for one, suffix in ((method(), ".release"), (small_psg(), ".noise")):
        path = tmp_path / f"run{suffix}.pt"
        interrupted(one, path)
        Path(f"{path}{suffix}").unlink()
        with pytest.raises(CheckpointError, match="without"):
            one.distil(DATA, 1, seed=0, budget=Budget(steps=4), checkpoint=path)  # type: ignore[attr-defined]


def test_a_damaged_release_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.pt"
    interrupted(method(), path)
    kept = tmp_path / "run.pt.release"
    kept.write_bytes(kept.read_bytes()[:-20])
    with pytest.raises(CheckpointError, match="damaged"):
        method().distil(DATA, 1, seed=0, budget=Budget(steps=4), checkpoint=path)
    save_checkpoint(kept, "one private release", {"salt": "", "guarantee": None, "counts": 1, "sums": {}})
    with pytest.raises(CheckpointError):
        method().distil(DATA, 1, seed=0, budget=Budget(steps=4), checkpoint=path)


def small_psg(**own: object) -> object:
    settings = {"epsilon": 4.0, "expected_batch": 8, "architecture": "convnet:width=4", **own}
    return psg(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("change", [{"epsilon": 8.0}, {"steps": 6}, {"size": 2}, {"clip": 0.2}])
def test_psg_started_again_otherwise_takes_no_old_noise(tmp_path: Path, change: dict[str, object]) -> None:
    path = tmp_path / "run.pt"
    interrupted(small_psg(), path)
    path.unlink()
    asked = {"steps": 4, "size": 1, **change}
    other = small_psg(**{key: value for key, value in change.items() if key in ("epsilon", "clip")})
    with pytest.raises(CheckpointError, match="fresh noise"):
        other.distil(DATA, asked["size"], seed=0, budget=Budget(steps=asked["steps"]), checkpoint=path)  # type: ignore


@pytest.mark.parametrize(
    "other",
    [
        {"normalisation": Normalisation((0.1,), (2.0,))},
        {"class_names": ("a", "b", "z")},
        {"value_range": (-1.0, 3.0)},
        {"allow_hflip": not DATA.spec.allow_hflip},
    ],
)
def test_a_checkpoint_of_the_same_samples_on_another_scale_is_another_run(
    tmp_path: Path, other: dict[str, object]
) -> None:
    path = tmp_path / "run.pt"
    save_checkpoint(path, fingerprint(DATA, "run"), {"step": 1})
    assert load_checkpoint(path, fingerprint(DATA, "run")) == {"step": 1}
    with pytest.raises(CheckpointError, match="scale"):
        load_checkpoint(path, fingerprint(DATA.with_spec(**other), "run"))


def test_what_cannot_be_released_costs_nothing_and_sees_nothing(tmp_path: Path) -> None:
    """Inputs that overflow for some records only once told which, for an ε that was never spent on it."""
    ledger = PrivacyBudget(tmp_path / "ledger", 4.0, 1e-5)
    tiny = DATA.with_spec(normalisation=Normalisation((0.5,), (4e-39,)))
    for data, target in ((tiny, HIGH), (DATA, PrivacyTarget(1e-300))):
        with pytest.raises(SettingsError):
            release(data, SPEC, target, budget=ledger)
    assert ledger.releases() == []


def test_errors_after_records_were_looked_at_are_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = set()
    for message in ("features hold NaN", "another"):

        def fails(*_: object, text: str = message, **__: object) -> None:
            raise ValueError(text)

        monkeypatch.setattr("fedcl_distill.statistics.noisy.class_statistics", fails)
        with pytest.raises(PrivacyError) as caught:
            release(DATA, SPEC, HIGH)
        texts.add(str(caught.value))
    assert len(texts) == 1
