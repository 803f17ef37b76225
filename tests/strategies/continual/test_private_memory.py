"""Truth: one release an experience, bytes within their budget, and nothing else of the data."""

from __future__ import annotations

import pytest
import torch

from builders import blobs
from fedcl_distill.engine import Budget
from fedcl_distill.errors import PrivacyError
from fedcl_distill.methods.private import private_statistics
from fedcl_distill.privacy import PrivacyBudget
from fedcl_distill.synthetic import encode
from strategies.continual import ContinualSettings, PrivateMemory
from strategies.continual.memory_registry import named_memory

DATA = blobs(classes=4, per_class=400)


def experience(*labels):
    return DATA.subset(torch.isin(DATA.labels, torch.tensor(labels)).nonzero().flatten())


def memory(ledger=None, epsilon=8.0):
    method = private_statistics(
        epsilon=epsilon, views=3, dimensions=8, architecture="convnet:width=4", moments=3, ledger=ledger
    )
    return PrivateMemory(2_000, method=method, budget=Budget(steps=5), disjoint=True)


def test_every_experience_is_released_once_and_kept_in_its_bytes(tmp_path):
    ledger = PrivacyBudget(tmp_path / "ledger", 8.0, 1e-5)
    one = memory(ledger)
    for labels in [(0, 1), (2, 3)]:
        one.add(experience(*labels))
        assert 0 < one.bytes_kept <= 2_000
        assert set(one.recall().hard_labels.tolist()) == set(range(labels[-1] + 1))
    assert [each.part for each in ledger.releases()] == ["experience 0", "experience 1"]
    assert ledger.spent() <= 8.0  # parts have no record in common
    assert one.guarantee.epsilon == 8.0
    before = one.bytes_kept
    again = memory(ledger)
    with pytest.raises(PrivacyError):
        again.add(experience(0, 1))  # a second memory of the same records is not covered
    assert one.bytes_kept == before


def test_what_is_recalled_looks_like_the_stream():
    one = memory(epsilon=50.0)
    one.add(experience(0, 1))
    held = one.recall()
    assert held.normalisation == DATA.normalisation
    for label in (0, 1):
        real = DATA.inputs(DATA.indices_of(label)).mean(dim=0)
        near, far = ((held.inputs()[held.labels == each].mean(dim=0) - real).norm() for each in (label, 1 - label))
        assert near < far / 2
    assert len(encode(held, 8, provenance=False, coding="fixed")) < 2_500


def test_a_memory_goes_on_from_its_state():
    one, other = memory(), memory()
    one.add(experience(0, 1))
    other.restore(one.state())
    assert torch.equal(one.recall().inputs(), other.recall().inputs())
    assert other.guarantee == one.guarantee
    other.add(experience(2, 3))
    assert set(other.recall().hard_labels.tolist()) == {0, 1, 2, 3}
    assert memory(epsilon=None).guarantee is None


def test_it_has_a_name():
    named = named_memory("private:epsilon=2", ContinualSettings(), 5_000)
    assert isinstance(named, PrivateMemory)
    assert named.method.target.epsilon == 2


def test_a_few_records_may_leave_nothing_at_all():
    one = memory(epsilon=1.0)
    for start in range(0, 15, 3):
        one.add(DATA.subset(torch.arange(start, start + 3)))
        assert one.bytes_kept <= 2_000
    assert one.guarantee.epsilon == 1.0
