"""Memories of distilled samples: their bytes, their shares, and what they hold."""

from __future__ import annotations

import pytest
import torch

from builders import blobs
from fedcl_distill.engine import Budget
from fedcl_distill.errors import SettingsError
from fedcl_distill.methods import build_method
from fedcl_distill.synthetic import encode
from strategies.continual import DistilledMemory

SHAPES = {"grey": (1, 8, 8), "colour, not square": (3, 8, 12), "features": (9,)}


def _only(data, *labels):
    return data.subset(torch.isin(data.labels, torch.tensor(labels)).nonzero().flatten())


def _memory(byte_budget, method="dm", **changes):
    settings = {"architecture": "mlp:width=8", "real_per_class": 8} if method == "dm" else {}
    return DistilledMemory(byte_budget, distiller=build_method(method, **settings), budget=Budget(steps=2), **changes)


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
        assert memory.bytes_kept == len(encode(held, bits, provenance=False)) <= byte_budget
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
    memory = _memory(400 + 20 * 64)
    memory.add(_only(data, 0, 1))
    first = memory.recall().class_counts.tolist()
    memory.add(_only(data, 2, 3))
    second = memory.recall().class_counts.tolist()
    assert first[2:] == [0, 0]
    assert first[0] in (10, 11)
    assert max(second) - min(second) <= 1
    assert sum(second) == sum(first)


def test_a_class_with_one_sample_gives_its_share_to_others():
    data = blobs((1, 8, 8), classes=2, per_class=100)
    memory = _memory(400 + 20 * 64)
    memory.add(data.subset(torch.cat([data.indices_of(0)[:1], data.indices_of(1)])))
    one, many = memory.recall().class_counts.tolist()
    assert one == 1
    assert many >= 19


def test_a_budget_of_one_sample_holds_one():
    data = blobs((1, 8, 8), classes=4, per_class=5)
    memory = _memory(450)
    for labels in [(0, 1), (2, 3)]:  # more classes than samples
        memory.add(_only(data, *labels))
        assert len(memory.recall()) in (1, 2)
        assert memory.bytes_kept <= 450


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


def test_labels_are_kept_as_classes_within_the_budget():
    data = blobs((1, 8, 8), classes=4, per_class=30)
    for method in (
        build_method("frepo", architecture="mlp:width=8", real_per_batch=16),
        build_method("random", labels="teacher:temperature=2,architecture=mlp:width=4"),
    ):
        memory = DistilledMemory(1500, distiller=method, budget=Budget(steps=2))
        memory.add(_only(data, 0, 1))
        memory.add(_only(data, 2, 3))
        assert memory.recall().labels.dtype == torch.int64
        assert memory.bytes_kept <= 1500


def test_shared_storage_is_refused():
    with pytest.raises(SettingsError, match="parameterization=pixels"):
        DistilledMemory(1500, distiller=build_method("dm", parameterization="tiles"))
