"""What the server keeps: sets and sums, within bytes, and against plain computations."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from builders import blobs
from fedcl_distill.engine import Budget, CoreSet
from fedcl_distill.engine.size import bytes_of_counts
from fedcl_distill.errors import SettingsError
from fedcl_distill.merging import WeightedSet
from fedcl_distill.methods import build_method
from fedcl_distill.selection import Random
from fedcl_distill.statistics import StatisticsExpectation, StatisticsSpec, class_statistics
from fedcl_distill.synthetic import SyntheticSet
from strategies.continual import DistilledMemory
from strategies.federated.aggregation import AggregatedSets
from strategies.federated_continual import SetMemory, SumMemory
from strategies.federated_continual.memories import balanced, bytes_of_sums
from streams import live, quick, train_and_test

DATA = blobs((1, 6, 6), classes=4, per_class=12)
SPEC = StatisticsSpec(views=3, architecture="mlp:width=8", moments=3, augment=False)


def _gathered(*classes: int, weights: torch.Tensor | None = None) -> AggregatedSets:
    rows = torch.cat([DATA.indices_of(label)[:6] for label in classes])
    return AggregatedSets(SyntheticSet.of_real(DATA.subset(rows)), weights, (0,), (1,) * 4)


def _memory(per_class: int, *, reserve: bool = True, distiller: object = None) -> SetMemory:
    chosen = distiller or CoreSet(Random())
    kept = DistilledMemory(
        bytes_of_counts([per_class] * 4, DATA, 8),
        distiller=chosen,  # type: ignore[arg-type]
        budget=Budget(steps=2),
        redistil=not isinstance(chosen, CoreSet),
    )
    return SetMemory(kept, DATA, reserve)


def test_reserved_classes_have_their_final_size_at_once_and_stay_as_they_are():
    memory = _memory(3)
    memory.add(_gathered(0, 1))
    first = memory.recall()
    assert first.class_counts.tolist() == [3, 3, 0, 0]
    memory.add(_gathered(2, 3))
    held = memory.recall()
    assert held.class_counts.tolist() == [3, 3, 3, 3]
    old = held.subset((held.hard_labels < 2).nonzero().flatten())
    assert torch.equal(old.samples(), first.samples())


def test_without_reserve_few_classes_share_all_bytes():
    memory = _memory(3, reserve=False)
    memory.add(_gathered(0, 1))
    assert memory.recall().class_counts.tolist() == [5, 6, 0, 0]  # unequal counts take a byte for each class
    memory.add(_gathered(2, 3))
    assert memory.recall().class_counts.tolist() == [3, 3, 3, 3]
    assert memory.bytes_kept <= bytes_of_counts([3] * 4, DATA, 8)


def test_distilled_sets_that_leave_the_range_of_pixels_unite_with_later_ones():
    method = build_method("dm", architecture="mlp:width=8", learning_rate=50.0, clamp=False)
    memory = _memory(2, distiller=method)
    for pair in ((0, 1), (2, 3), (0, 3)):
        memory.add(_gathered(*pair))
    held = memory.recall()
    assert held.class_counts.tolist() == [2, 2, 2, 2]
    assert held.value_range == DATA.value_range


def test_new_sets_and_memory_are_learned_from_together_and_classes_weigh_the_same():
    memory = _memory(2)
    memory.add(_gathered(0, 1))
    whole = memory.beside(_gathered(2))
    assert whole.synthetic.class_counts.tolist() == [2, 2, 6, 0]
    even = WeightedSet(whole.synthetic, balanced(whole))
    assert even.class_weights.tolist() == pytest.approx([1, 1, 1, 0])


def test_weights_of_clients_survive_within_a_class():
    weights = torch.tensor([1.0, 2, 3, 4, 5, 6], dtype=torch.float64)
    whole = _memory(2).beside(_gathered(1, weights=weights))
    assert balanced(whole).tolist() == pytest.approx((weights / 21).tolist())


def test_what_memories_hold_survives_a_checkpoint():
    memory, other = _memory(3), _memory(3)
    memory.add(_gathered(0, 1))
    other.restore(memory.state())
    for one in (memory, other):
        one.add(_gathered(2))
    assert torch.equal(memory.recall().samples(), other.recall().samples())


def _sums(rows: torch.Tensor):
    return class_statistics(DATA.subset(rows), SPEC)


def test_sums_of_stages_and_clients_are_those_of_all_data():
    """Two stages of two clients against one pass over everything."""
    memory = SumMemory(StatisticsExpectation(SPEC, DATA.spec), 100_000)
    early, late = torch.arange(0, 30), torch.arange(30, 48)
    memory.add([_sums(early[::2]), _sums(early[1::2])])
    total = memory.add([_sums(late[:5]), _sums(late[5:])])
    pooled = class_statistics(DATA, SPEC)
    assert torch.equal(total.class_counts, pooled.class_counts)
    for name, sums in pooled.sums.items():
        assert torch.allclose(total.sums[name].means, sums.means, atol=1e-5), name


def test_a_class_that_does_not_come_back_keeps_its_means_to_the_bit():
    memory = SumMemory(StatisticsExpectation(SPEC, DATA.spec), 100_000)
    before = memory.add([_sums(DATA.indices_of(0))])
    after = memory.add([_sums(torch.cat([DATA.indices_of(1), DATA.indices_of(2)]))])
    for name, sums in before.sums.items():
        kept = sums.means[:, 0].float()
        assert torch.equal(after.sums[name].means[:, 0].float(), kept), name


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_bytes_of_sums_bound_what_is_kept(bits):
    needed = bytes_of_sums(SPEC, DATA.spec, bits)
    memory = SumMemory(StatisticsExpectation(SPEC, DATA.spec), needed, bits)
    memory.add([_sums(torch.arange(48))])
    assert 0.8 * needed < memory.bytes_kept <= needed
    with pytest.raises(SettingsError, match=f"take {needed} bytes.*fewer views"):
        SumMemory(StatisticsExpectation(SPEC, DATA.spec), needed - 1, bits)


def test_more_views_than_the_budget_holds_are_refused_before_any_client_is_asked():
    settings = quick(strategy="statistics", strategy_settings={"views": 500, "architecture": "mlp:width=8"})
    with pytest.raises(SettingsError, match="fewer views"):
        live(settings)


def test_sums_keep_old_classes_known():
    settings = quick(
        strategy="statistics",
        strategy_settings={"views": 10, "architecture": "mlp:width=8"},
        memory_bytes=50_000,
        distil_steps=20,
    )
    result = live(settings)
    assert result.matrix.average_accuracy > 0.9
    assert result.matrix.rows[-1][0] > 0.9
    assert 0 < result.stages[0].server_bytes < result.stages[-1].server_bytes <= 50_000
    _, test = train_and_test()
    assert dataclasses.replace(settings, memory_bytes=None).memory_budget(test) < 50_000
