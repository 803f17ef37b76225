"""Hybrid and condensed memories: their bytes, and that both parts, or condensing, do something."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import blobs
from fedcl_distill.engine import Budget
from fedcl_distill.errors import SettingsError
from fedcl_distill.methods import build_method
from fedcl_distill.synthetic import encode
from strategies.continual import (
    MEMORIES,
    CondensedMemory,
    ContinualSettings,
    DistilledMemory,
    HybridMemory,
    ReservoirMemory,
    memory_bytes,
    named_memory,
)
from strategies.continual.memory_registry import bytes_beside_logits

QUICK_DM = {"architecture": "mlp:width=8", "real_batch_per_class": 8}


def _condensed(byte_budget=4000, method="dm", **changes):
    own = {"augmentation": "none", "architecture": "mlp:width=32"} if method == "dm" else {}
    return CondensedMemory(
        byte_budget, distiller=build_method(method, **own), budget=changes.pop("budget", Budget(steps=5)), **changes
    )


def _batches(data, size, seed=0):
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    return [data.subset(rows) for rows in torch.split(order, size)]


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(sorted(set(MEMORIES.names()) - {"private"})),
    byte_budget=st.integers(2500, 6000),
    size=st.sampled_from([3, 17, 60]),
)
def test_no_memory_exceeds_its_bytes(name, byte_budget, size):
    """The private one, which a few samples leave empty, has a test of its own."""
    data = blobs((1, 4, 6), classes=3, per_class=20)
    chosen = ContinualSettings(method_settings=QUICK_DM, distil_steps=1)
    memory = named_memory(name, chosen, byte_budget)
    for batch in _batches(data, size)[:5]:
        memory.add(batch)
        assert 0 < memory.bytes_kept <= byte_budget


def test_a_hybrid_memory_holds_both_and_adds_up_their_bytes():
    data = blobs((1, 8, 8), classes=4, per_class=30)
    real = ReservoirMemory(1500)
    made = DistilledMemory(1500, distiller=build_method("dm", **QUICK_DM), budget=Budget(steps=3))
    memory = HybridMemory((real, made))
    assert memory.recall() is None
    for labels in [(0, 1), (2, 3)]:
        memory.add(data.subset(torch.isin(data.labels, torch.tensor(labels)).nonzero().flatten()))
    assert memory.bytes_kept == real.bytes_kept + made.bytes_kept
    assert len(memory.recall()) == len(real.recall()) + len(made.recall())
    copy = HybridMemory((ReservoirMemory(1500), DistilledMemory(1500, distiller=made.distiller, budget=made.budget)))
    copy.restore(memory.state())
    assert encode(copy.recall()) == encode(memory.recall())


def test_a_condensed_memory_draws_its_samples_towards_what_passed():
    """Truth: class means. Without condensing, the samples stay the first that came."""
    data = blobs((1, 8, 8), classes=2, per_class=100)

    def error(steps):
        memory = _condensed(1700, budget=Budget(steps=steps), buffer_size=16, buffer_share=0.4)
        for batch in _batches(data, 10):
            memory.add(batch)
        held = memory._held()[0]  # without buffered real samples
        means = [held.samples()[held.hard_labels == c].mean(0) - data.unit(data.labels == c).mean(0) for c in (0, 1)]
        return float(torch.stack(means).norm())

    assert error(20) < 0.7 * error(0)


def test_buffers_empty_when_full_and_count_among_the_bytes():
    data = blobs((1, 8, 8), classes=2, per_class=40)
    memory = _condensed(3000, buffer_size=8)
    sizes = []
    for batch in _batches(data, 4):
        memory.add(batch)
        held = memory._held()
        assert memory.bytes_kept == sum(len(encode(one, 8, provenance=False, coding="fixed")) for one in held) <= 3000
        sizes.append(len(held[1]) if len(held) > 1 else 0)
    assert max(sizes) < 16, "no class has a full buffer"
    assert memory._condensations >= 2


def test_without_buffers_a_single_sample_of_each_class_fits_the_bytes_of_one():
    data = blobs((1, 8, 8), classes=10, per_class=6)
    memory = _condensed(memory_bytes(ContinualSettings(images_per_class=1), data), buffer_share=0.0)
    for batch in _batches(data, 20):
        memory.add(batch)
    assert memory.recall().class_counts.tolist() == [1] * 10


def test_condensing_refuses_what_cannot_go_on_from_given_samples():
    with pytest.raises(SettingsError, match="selects samples"):
        _condensed(method="herding")
    with pytest.raises(SettingsError, match="must store pixels"):
        _condensed(method="idc")
    with pytest.raises(SettingsError, match="no synthetic sample of every class"):
        _condensed(900).add(blobs((1, 8, 8), classes=10, per_class=3))


@settings(max_examples=12, deadline=None)
@given(byte_budget=st.integers(800, 8000), bits=st.sampled_from([4, 8, 32]), classes=st.integers(2, 12))
def test_logits_find_room_beside_any_memory(byte_budget, bits, classes):
    data = blobs((3,), classes=classes, per_class=60)
    chosen = ContinualSettings(byte_budget=byte_budget, bits=bits)
    memory = named_memory("reservoir", chosen, bytes_beside_logits(chosen, data, "reservoir"))
    for batch in _batches(data, 50):
        memory.add(batch)
        assert memory.bytes_kept + len(memory.recall()) * classes + 8 <= byte_budget


def test_an_unknown_memory_or_setting_is_refused():
    for text in ("other", "hybrid:real_share=2", "reservoir:size=3", "hybrid:real_share"):
        with pytest.raises(SettingsError):
            named_memory(text, ContinualSettings(), 4000)
