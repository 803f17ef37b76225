"""Memories of distilled samples: their bytes, their shares, and what they hold."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import blobs
from fedcl_distill.engine import Budget
from fedcl_distill.engine.size import bytes_of_counts
from fedcl_distill.errors import SettingsError
from fedcl_distill.methods import build_method
from fedcl_distill.synthetic import encode
from strategies.continual import DistilledMemory

SHAPES = {"grey": (1, 8, 8), "colour, not square": (3, 8, 12), "features": (9,)}


def _only(data, *labels):
    return data.subset(torch.isin(data.labels, torch.tensor(labels)).nonzero().flatten())


def _memory(byte_budget, method="dm", **changes):
    own = {"architecture": "mlp:width=8", "real_batch_per_class": 8} if method == "dm" else {}
    return DistilledMemory(byte_budget, distiller=build_method(method, **own), budget=Budget(steps=2), **changes)


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("bits", [4, 8, 16, 32])
@pytest.mark.parametrize("byte_budget", [3001, 4444, 8191])
@pytest.mark.parametrize("redistil", [True, False])
def test_what_is_kept_is_what_encoding_takes_and_never_exceeds_the_budget(shape, bits, byte_budget, redistil):
    data = blobs(shape, classes=6, per_class=12)
    memory = _memory(byte_budget, bits=bits, redistil=redistil)
    for labels in [(0, 1), (2,), (3, 4, 5)]:
        memory.add(_only(data, *labels))
        held = memory.recall()
        assert memory.bytes_kept == len(encode(held, bits, provenance=False, coding="fixed")) <= byte_budget
        seen = labels[-1] + 1
        assert len(held.hard_labels.unique()) == min(len(held), seen), "no class is left out while there is room"


def test_the_budget_is_used_up():
    data = blobs((1, 8, 8), classes=6, per_class=100)
    memory = _memory(5000)
    for labels in [(0, 1), (2, 3), (4, 5)]:
        memory.add(_only(data, *labels))
        assert memory.bytes_kept > 5000 - 64 - 16, "another sample of 64 bytes would have fitted"


def test_classes_share_evenly_and_old_ones_shrink():
    data = blobs((1, 8, 8), classes=4, per_class=100)
    memory = _memory(60 + 20 * 64)
    memory.add(_only(data, 0, 1))
    first = memory.recall().class_counts.tolist()
    memory.add(_only(data, 2, 3))
    second = memory.recall().class_counts.tolist()
    assert first[2:] == [0, 0]
    assert first[0] in (10, 11)
    assert max(second) - min(second) <= 1
    assert sum(second) == sum(first)


@pytest.mark.parametrize("method", ["dm", "herding"])
def test_final_shares_are_distilled_once_and_stay(method):
    data = blobs((1, 8, 8), classes=6, per_class=100)
    memory = _memory(bytes_of_counts([2] * 6, data, 8), method, final_shares=True)
    held = []
    for labels, counts in [((4, 5), [0, 0, 0, 0, 2, 2]), ((0, 1), [2, 2, 0, 0, 2, 2]), ((2, 3), [2] * 6)]:
        memory.add(_only(data, *labels))
        held.append(memory.recall())
        assert held[-1].class_counts.tolist() == counts
    for before, after in itertools.pairwise(held):
        old = torch.isin(after.hard_labels, before.hard_labels)
        torch.testing.assert_close(after.inputs()[old], before.inputs(), atol=0.05, rtol=0)  # of another 8-bit range


def test_final_shares_need_room_for_a_sample():
    data = blobs((1, 8, 8), classes=4, per_class=5)
    memory = _memory(190, final_shares=True)
    with pytest.raises(SettingsError, match="190 bytes hold no sample of every class"):
        memory.add(_only(data, 0, 1))


def test_a_class_with_one_sample_gives_its_share_to_others():
    data = blobs((1, 8, 8), classes=2, per_class=100)
    memory = _memory(60 + 20 * 64)
    memory.add(data.subset(torch.cat([data.indices_of(0)[:1], data.indices_of(1)])))
    one, many = memory.recall().class_counts.tolist()
    assert one == 1
    assert many >= 19


def test_a_budget_of_one_sample_holds_one_and_says_what_is_lost(caplog):
    data = blobs((1, 8, 8), classes=4, per_class=5)
    memory = _memory(190)
    for labels in [(0, 1), (2, 3)]:  # more classes than samples
        memory.add(_only(data, *labels))
        assert len(memory.recall()) in (1, 2)
        assert memory.bytes_kept <= 190
    lost = set(range(4)) - set(memory.recall().hard_labels.tolist())
    assert caplog.messages[-1] == f"190 bytes hold no sample of the classes {sorted(lost)}: they will be forgotten"


def test_a_budget_below_one_sample_is_refused_and_leaves_the_memory_empty():
    memory = _memory(100)
    with pytest.raises(SettingsError, match="100 bytes hold no sample"):
        memory.add(blobs())
    assert memory.recall() is None
    assert memory.bytes_kept == 0


def test_a_seed_fixes_every_byte():
    data = blobs((1, 8, 8), classes=4, per_class=30)

    def payload(seed):
        memory = _memory(3000, seed=seed)
        memory.add(_only(data, 0, 1))
        memory.add(_only(data, 2, 3))
        return encode(memory.recall())

    assert payload(1) == payload(1)
    assert payload(1) != payload(2)


@pytest.mark.usefixtures("untouched_global_rng")
def test_the_global_generator_is_left_alone():
    data = blobs((1, 8, 8), classes=4, per_class=30)
    memory = _memory(1500)
    memory.add(_only(data, 0, 1))
    memory.add(_only(data, 2, 3))


def test_a_core_set_keeps_real_samples_through_all_stages():
    data = blobs((1, 8, 8), classes=4, per_class=30)
    memory = _memory(1500, "herding")
    memory.add(_only(data, 0, 1))
    memory.add(_only(data, 2, 3))
    held = memory.recall()
    distance = torch.cdist(held.samples().flatten(1), data.unit().flatten(1))
    nearest = distance.min(dim=1)
    assert nearest.values.max() < 0.1, "every kept sample is a real one, up to 8 bits"
    assert torch.equal(data.labels[nearest.indices], held.hard_labels)


def test_distilling_moves_class_means_closer_than_random_samples_are():
    """The truth DM promises, seen through the memory: means of what is kept approach the real means."""
    data = blobs((1, 8, 8), classes=4, per_class=60)

    def error(method, steps):
        settings = {"architecture": "mlp:width=64", "augmentation": "none"} if method == "dm" else {}
        memory = DistilledMemory(1000, distiller=build_method(method, **settings), budget=Budget(steps=steps))
        for labels in [(0, 1), (2, 3)]:
            memory.add(_only(data, *labels))
        held = memory.recall()
        means = [held.samples()[held.hard_labels == c].mean(0) - data.unit(data.labels == c).mean(0) for c in range(4)]
        return float(torch.stack(means).norm())

    assert error("dm", 150) < 0.8 * error("random", 0)


@pytest.mark.parametrize(
    "method",
    [
        build_method("frepo", architecture="mlp:width=8", real_batch_size=16),
        build_method("random", labels="teacher:temperature=2,architecture=mlp:width=4"),
    ],
    ids=["learned", "teacher"],
)
def test_soft_labels_are_kept_and_count(method):
    data = blobs((1, 8, 8), classes=4, per_class=30)
    memory = DistilledMemory(1500, distiller=method, budget=Budget(steps=2))
    memory.add(_only(data, 0, 1))
    memory.add(_only(data, 2, 3))
    held = memory.recall()
    assert held.labels.shape == (len(held), 4)
    assert memory.bytes_kept == len(encode(held, 8, provenance=False, coding="fixed")) <= 1500
    hard = DistilledMemory(1500, distiller=build_method("random"))
    hard.add(_only(data, 0, 1))
    assert len(held) < len(hard.recall()), "labels take the bytes of samples"


@pytest.mark.parametrize("redistil", [True, False])
def test_tiles_hold_four_samples_in_the_bytes_of_one_and_shrink_by_whole_images(redistil):
    data = blobs((1, 8, 8), classes=4, per_class=100)
    method = build_method("dm", architecture="mlp:width=8", real_batch_per_class=8, parameterization="tiles")
    memory = DistilledMemory(2000, distiller=method, budget=Budget(steps=2), redistil=redistil)
    pixels = _memory(2000, redistil=redistil)
    for labels in [(0, 1), (2, 3)]:
        memory.add(_only(data, *labels))
        pixels.add(_only(data, *labels))
    held = memory.recall()
    assert memory.bytes_kept <= 2000
    assert abs(len(held) - 4 * len(pixels.recall())) <= 4
    assert all(count % 4 == 0 for count in held.class_counts.tolist())
    means = torch.stack([data.unit(data.labels == c).mean(0) for c in range(4)])
    nearest = torch.cdist(held.samples().flatten(1), means.flatten(1)).argmin(dim=1)
    assert (nearest == held.hard_labels).float().mean() > 0.9, "samples went to the labels of their class"


@pytest.mark.parametrize("parameterization", ["addressing", "low-rank"])
def test_other_storage_keeps_the_budget_with_every_header(parameterization):
    data = blobs((1, 8, 8), classes=4, per_class=100)
    method = build_method("dm", architecture="mlp:width=8", real_batch_per_class=8, parameterization=parameterization)
    memory = DistilledMemory(3000, distiller=method, budget=Budget(steps=2))
    for labels in [(0, 1), (2,), (3,)]:
        memory.add(_only(data, *labels))
        assert 2000 < memory.bytes_kept <= 3000
    assert set(memory.recall().hard_labels.tolist()) == {0, 1, 2, 3}


def test_samples_that_share_storage_cannot_be_dropped():
    with pytest.raises(SettingsError, match="addressing"):
        DistilledMemory(1500, distiller=build_method("dm", parameterization="addressing"), redistil=False)


@pytest.mark.parametrize("redistil", [True, False])
def test_a_class_that_returns_keeps_the_share_of_its_past(redistil):
    """Three experiences of the same classes, each brighter: a third of the memory each, whatever came last."""
    data = blobs((1, 8, 8), classes=2, per_class=50)
    levels = [replace(data, samples=(data.samples.float() / 8 + 80 * step).to(torch.uint8)) for step in range(3)]
    memory = _memory(60 + 24 * 64, "random", redistil=redistil)
    for level in levels:
        memory.add(level)
    brightness = memory.recall().samples().flatten(1).mean(dim=1) * 255
    counts = [int(((brightness >= 80 * step) & (brightness < 80 * step + 40)).sum()) for step in range(3)]
    assert sum(counts) == len(memory.recall())
    assert max(counts) - min(counts) <= 4, "two classes, rounded twice"


def test_exemplars_that_stay_are_the_first_of_the_greedy_choice():
    """Rebuffi et al. 2017, algorithms 4 and 5, worked out plainly here."""
    data = blobs((5,), classes=4, per_class=20)
    memory = DistilledMemory(1200, 32, distiller=build_method("herding"), redistil=False)
    for labels in [(0, 1), (2, 3)]:
        memory.add(_only(data, *labels))
    held = memory.recall()
    for label in range(4):
        own = data.inputs()[data.labels == label]
        chosen = []
        for _ in range(int(held.class_counts[label])):
            gaps = [
                float("inf") if index in chosen else float((own.mean(0) - own[[*chosen, index]].mean(0)).norm())
                for index in range(len(own))
            ]
            chosen.append(gaps.index(min(gaps)))
        torch.testing.assert_close(held.inputs()[held.hard_labels == label], own[chosen])


@settings(max_examples=40, deadline=None)
@given(
    byte_budget=st.integers(700, 6000),
    bits=st.sampled_from([4, 8, 16, 32]),
    groups=st.lists(st.sets(st.integers(0, 4), min_size=1), min_size=1, max_size=4),
    redistil=st.booleans(),
)
def test_no_stream_exceeds_the_bytes(byte_budget, bits, groups, redistil):
    data = blobs((1, 5, 7), classes=5, per_class=9)
    memory = DistilledMemory(byte_budget, bits, distiller=build_method("random"), redistil=redistil)
    seen = set()
    for labels in groups:
        memory.add(_only(data, *labels))
        seen |= labels
        assert memory.bytes_kept == len(encode(memory.recall(), bits, provenance=False, coding="fixed")) <= byte_budget
        assert set(memory.recall().hard_labels.tolist()) <= seen


def test_a_memory_goes_on_from_its_state():
    data = blobs((1, 8, 8), classes=4, per_class=30)
    first, second = _memory(2000), _memory(2000)
    first.add(_only(data, 0, 1))
    second.restore(first.state())
    for memory in (first, second):
        memory.add(_only(data, 1, 2))
    assert encode(first.recall()) == encode(second.recall())
