"""Truth: brute force over neighbouring data, the law of the noise, and exact statistics where there is none."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import blobs
from fedcl_distill.data import DataSpec, LabelledData, Normalisation
from fedcl_distill.errors import DataError, PayloadError, PrivacyError, SettingsError
from fedcl_distill.privacy import NoiseSource, PrivacyBudget, PrivacyTarget, publicly_scaled
from fedcl_distill.statistics import (
    ClassStatistics,
    NoisyExpectation,
    NoisyStatistics,
    Shares,
    StatisticsSpec,
    add_up_noisy,
    class_statistics,
    decode_noisy,
    encode_noisy,
    release,
    with_noise,
)
from fedcl_distill.statistics.sums import radii

TARGET = PrivacyTarget(2.0)
KINDS = ["direction", "characteristic"]


def spec_of(kind: str = "direction", **changes: object) -> StatisticsSpec:
    chosen = {"views": 3, "dimensions": 8, "architecture": "convnet:width=4", "moments": 3, "kind": kind, **changes}
    return StatisticsSpec(**chosen)  # type: ignore[arg-type]


def scaled_vector(statistics: ClassStatistics, shares: Shares) -> torch.Tensor:
    """The vector whose sensitivity the theorem bounds by 1, from the deviations that noise multiplier 1 gives."""
    unit = shares.deviations(statistics.spec, statistics.domain, 1.0)
    blocks = [sums.values.flatten() / unit[name] for name, sums in statistics.sums.items()]
    return torch.cat([*blocks, statistics.class_counts / unit["counts"]])


EXTREMES = {
    "black": torch.zeros(1, 1, 8, 8, dtype=torch.uint8),
    "white": torch.full((1, 1, 8, 8), 255, dtype=torch.uint8),
    "chessboard": ((torch.arange(64) // 8 + torch.arange(64)) % 2 * 255).to(torch.uint8).view(1, 1, 8, 8),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("record", EXTREMES)
def test_no_record_moves_the_scaled_sums_by_more_than_one(kind: str, record: str) -> None:
    data, shares = publicly_scaled(blobs(classes=2, per_class=3)), Shares()
    more = dataclasses.replace(
        data, samples=torch.cat([data.samples, EXTREMES[record]]), labels=torch.cat([data.labels, torch.tensor([1])])
    )
    one, other = (scaled_vector(class_statistics(each, spec_of(kind)), shares) for each in (data, more))
    moved = float((one - other).norm())
    assert moved <= 1
    assert moved > 0.8 if kind == "direction" else moved > 0.5  # the bound is not idle


@settings(max_examples=25, deadline=None)
@given(
    values=st.lists(st.integers(0, 255), min_size=48, max_size=48),
    mean=st.floats(-0.5, 1.5),
    deviation=st.floats(0.1, 3),
    kind=st.sampled_from(KINDS),
)
def test_sensitivity_for_any_record_and_any_scale(values: list[int], mean: float, deviation: float, kind: str) -> None:
    sample = torch.tensor(values, dtype=torch.uint8).view(1, 3, 4, 4)
    normalisation = Normalisation((mean,) * 3, (deviation,) * 3)
    data = LabelledData(sample, torch.tensor([0]), DataSpec((3, 4, 4), ("a", "b"), normalisation))
    spec = spec_of(kind, architecture="convnet:width=2", dimensions=4)
    statistics = class_statistics(data, spec)  # of one record: what it adds to none
    assert scaled_vector(statistics, Shares(1.0, 2.0, 3.0, 4.0)).norm() <= 1
    found = {name: sums.values.norm() for name, sums in statistics.sums.items()}
    for name, radius in radii(spec, data.spec).items():
        assert found[name] <= radius


def test_values_beyond_a_public_range_cannot_move_more() -> None:
    wild = blobs((6,), classes=2, per_class=2, value_range=(-1e6, 1e6))
    wild = dataclasses.replace(wild, samples=wild.samples * 1e4)
    data = publicly_scaled(wild, value_range=(-1.0, 1.0))
    spec = spec_of(architecture="mlp:width=4", dimensions=4)
    one = class_statistics(data.subset(torch.tensor([0])), spec)
    assert scaled_vector(one, Shares()).norm() <= 1


def test_measured_scales_are_refused() -> None:
    with pytest.raises(SettingsError, match="would reveal them"):
        publicly_scaled(blobs((6,)))
    with pytest.raises(SettingsError, match="ascend"):
        publicly_scaled(blobs((6,)), value_range=(1.0, 1.0))
    images = publicly_scaled(blobs())
    assert (images.inputs().min() >= -1) & (images.inputs().max() <= 1)
    assert images.normalisation == publicly_scaled(blobs(seed=5)).normalisation


@pytest.mark.parametrize("changes", [{"kind": "mean"}, {"share": 0.5}])
def test_what_has_no_bound_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match=r"no bound|all samples"):
        release(publicly_scaled(blobs()), dataclasses.replace(spec_of(), **changes), TARGET)


def noisy_of(seed: int = 0, target: PrivacyTarget | None = TARGET, **data: object) -> NoisyStatistics:
    exact = class_statistics(publicly_scaled(blobs(classes=2, **data)), spec_of())  # type: ignore[arg-type]
    return with_noise(exact, target, Shares(), NoiseSource.seeded(seed))


def test_noise_has_the_deviation_that_the_target_needs_in_every_block() -> None:
    exact = class_statistics(publicly_scaled(blobs(classes=2)), spec_of())
    found: dict[str, list[torch.Tensor]] = {}
    for seed in range(200):
        noisy = with_noise(exact, TARGET, Shares(), NoiseSource.seeded(seed))
        for name, sums in noisy.sums.items():
            found.setdefault(name, []).append((sums - exact.sums[name].values).flatten())
        found.setdefault("counts", []).append(noisy.counts - exact.class_counts)
    multiplier = TARGET.guarantee(1.0).mechanism.noise_multiplier
    bounds, shares = {**radii(exact.spec, exact.domain), "counts": 1.0}, dataclasses.asdict(Shares())
    for name, parts in found.items():
        values = torch.cat(parts)
        wanted = multiplier * bounds[name] / math.sqrt(shares[name])
        assert values.std() == pytest.approx(wanted, rel=5 / math.sqrt(2 * len(values)))
        assert values.mean().abs() < 5 * wanted / math.sqrt(len(values))


def test_noise_is_of_the_seed_or_of_nobody() -> None:
    data = publicly_scaled(blobs())
    assert torch.equal(noisy_of(3).sums["features"], noisy_of(3).sums["features"])
    assert not torch.equal(noisy_of(3).sums["features"], noisy_of(4).sums["features"])
    one, other = release(data, spec_of(), TARGET), release(data, spec_of(), TARGET)
    assert not torch.equal(one.counts, other.counts)
    assert one.guarantee is not None
    assert one.guarantee.holds
    seeded = noisy_of(3).guarantee
    assert seeded is not None
    assert not seeded.holds


def test_without_noise_statistics_are_the_exact_ones() -> None:
    exact = class_statistics(publicly_scaled(blobs(classes=2)), spec_of())
    noisy = with_noise(exact, None, Shares(), NoiseSource.fresh())
    back = noisy.as_statistics()
    assert noisy.guarantee is None
    assert torch.equal(back.class_counts, exact.class_counts)
    for name, sums in exact.sums.items():
        torch.testing.assert_close(back.sums[name].values, sums.values)


def test_sums_of_parts_have_the_noise_of_all_and_the_weaker_guarantee() -> None:
    parts = [noisy_of(seed) for seed in range(4)]
    total = add_up_noisy(parts)
    assert total.variance == 4
    assert total.deviations()["counts"] == pytest.approx(2 * parts[0].deviations()["counts"])
    torch.testing.assert_close(total.counts, sum(one.counts for one in parts))
    mixed = add_up_noisy([noisy_of(0, PrivacyTarget(1.0)), noisy_of(1, PrivacyTarget(3.0))], disjoint=True)
    assert mixed.guarantee is not None
    assert mixed.guarantee.epsilon == 3.0
    assert add_up_noisy([noisy_of(), noisy_of(target=None)]).guarantee is None
    with pytest.raises(DataError):
        add_up_noisy([])
    with pytest.raises(DataError):
        noisy_of() + dataclasses.replace(noisy_of(), shares=Shares(counts=1.0))


def test_an_absent_class_is_absent_afterwards_and_means_are_possible() -> None:
    data = publicly_scaled(blobs(classes=3, per_class=400))
    data = data.subset(torch.arange(800))  # the third class is not there
    statistics = release(data, spec_of(), TARGET).as_statistics()
    assert (statistics.class_counts > 0).tolist() == [True, True, False]
    assert statistics.class_counts[:2].sub(400).abs().max() < 100
    assert statistics.sums["samples"].means.abs().max() <= 1
    tiny = release(publicly_scaled(blobs(classes=2, per_class=1)), spec_of(), TARGET).as_statistics()
    assert tiny.class_counts.max() < 100  # most often none at all, and never an error


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_the_codec_keeps_what_it_is_given(bits: int) -> None:
    noisy = noisy_of()
    back = decode_noisy(encode_noisy(noisy, bits))
    assert (back.spec, back.domain, back.shares, back.guarantee) == (
        noisy.spec,
        noisy.domain,
        noisy.shares,
        noisy.guarantee,
    )
    torch.testing.assert_close(back.counts, noisy.counts.float().double())
    for name, sums in noisy.sums.items():
        step = float(sums.max() - sums.min()) / (2**bits - 1)
        torch.testing.assert_close(back.sums[name], sums, rtol=1e-6, atol=0.51 * step)


def test_the_size_tells_nothing_about_classes() -> None:
    whole, part = (noisy_of(per_class=count) for count in (40, 1))
    assert len(encode_noisy(whole, 8)) == pytest.approx(len(encode_noisy(part, 8)), abs=40)  # digits of ranges


@settings(max_examples=60, deadline=None)
@given(position=st.floats(0, 1), bits=st.integers(1, 255), cut=st.booleans())
def test_damaged_payloads_raise_one_error(position: float, bits: int, cut: bool) -> None:
    payload = bytearray(PAYLOAD)
    where = int(position * (len(payload) - 1))
    payload[where] ^= bits
    try:
        found = decode_noisy(bytes(payload[:where]) if cut else bytes(payload))
        EXPECTED.check(found)
    except PayloadError:
        return
    assert all(torch.isfinite(sums).all() for sums in found.sums.values())


HONEST = with_noise(
    class_statistics(publicly_scaled(blobs(classes=2)), spec_of()), TARGET, Shares(), NoiseSource(bytes(32), True)
)
PAYLOAD = encode_noisy(HONEST, 8)
EXPECTED = NoisyExpectation(HONEST.spec, HONEST.domain, Shares(), TARGET)


def test_a_server_takes_what_it_asked_for_and_nothing_else() -> None:
    EXPECTED.check(decode_noisy(PAYLOAD, EXPECTED.limits))
    assert HONEST.guarantee is not None
    weaker = dataclasses.replace(HONEST.guarantee, epsilon=3.0)
    loud = {**HONEST.sums, "features": HONEST.sums["features"] * 0 + 1e6}
    wrong = [
        dataclasses.replace(HONEST, guarantee=None),
        dataclasses.replace(HONEST, guarantee=weaker),
        dataclasses.replace(HONEST, guarantee=dataclasses.replace(HONEST.guarantee, seeded=True)),
        dataclasses.replace(HONEST, variance=2.0),
        dataclasses.replace(HONEST, shares=Shares(counts=1.0)),
        dataclasses.replace(HONEST, counts=HONEST.counts + 1e12),
        dataclasses.replace(HONEST, sums=loud),
    ]
    for one in wrong:
        with pytest.raises(PayloadError):
            EXPECTED.check(decode_noisy(encode_noisy(one), EXPECTED.limits))


def test_a_budget_is_asked_before_anything_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, budget = publicly_scaled(blobs()), PrivacyBudget(tmp_path / "ledger", 2.0, TARGET.delta)
    release(data, spec_of(), TARGET, budget=budget)
    assert 1.9 < budget.spent() <= 2.0

    def measured(*_: object, **__: object) -> None:
        raise AssertionError("the data were looked at")

    monkeypatch.setattr("fedcl_distill.statistics.noisy.class_statistics", measured)
    with pytest.raises(PrivacyError):
        release(data, spec_of(), TARGET, budget=budget)
    with pytest.raises(SettingsError, match="without noise"):
        release(data, spec_of(), None, budget=budget)
    with pytest.raises(PrivacyError, match="kept back"):
        release(data, spec_of(), TARGET, budget=PrivacyBudget(tmp_path / "other", 2.0, TARGET.delta), part="1")
