"""Losses that treat remembered samples otherwise, against sums worked out by hand."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import nn
from torch.nn import functional as F

from strategies.continual import ERACE, DERppLoss, MaskedLoss

LOGITS = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([3, 4, 3, 4, 0, 1, 3])
CURRENT = 4
ONCE = torch.randn(10, 5, generator=torch.Generator().manual_seed(1))
ROWS = torch.tensor([7, 2, 2])


def _replay(rows=ROWS):
    batch = None if rows is None else SimpleNamespace(rows=rows)
    return SimpleNamespace(batch=batch, logits_of=lambda rows: ONCE[rows], several_heads=False)


def test_er_ace_lets_current_samples_compete_among_current_classes_alone():
    loss = ERACE(_replay(), nn.CrossEntropyLoss())(LOGITS, LABELS)
    current = F.cross_entropy(LOGITS[:CURRENT][:, [3, 4]], torch.tensor([0, 1, 0, 1]))
    torch.testing.assert_close(loss, current + F.cross_entropy(LOGITS[CURRENT:], LABELS[CURRENT:]))


def test_er_ace_sends_no_gradient_of_current_samples_to_absent_classes():
    logits = LOGITS.clone().requires_grad_()
    ERACE(_replay(None), nn.CrossEntropyLoss())(logits, torch.tensor([3, 4] * 3 + [3])).backward()
    assert (logits.grad[:, :3] == 0).all()
    assert (logits.grad[:, 3:] != 0).all()


def test_der_plus_plus_is_three_terms():
    loss = DERppLoss(_replay(), nn.CrossEntropyLoss(), alpha=0.3, beta=0.7)(LOGITS, LABELS)
    distance = (LOGITS[CURRENT:] - ONCE[ROWS]).square().sum() / 15
    expected = (
        F.cross_entropy(LOGITS[:CURRENT], LABELS[:CURRENT])
        + 0.3 * distance
        + 0.7 * F.cross_entropy(LOGITS[CURRENT:], LABELS[CURRENT:])
    )
    torch.testing.assert_close(loss, expected)


def test_without_remembered_samples_der_is_the_plain_loss():
    loss = DERppLoss(_replay(None), nn.CrossEntropyLoss(), alpha=1.0, beta=1.0)
    torch.testing.assert_close(loss(LOGITS, LABELS), F.cross_entropy(LOGITS, LABELS))


def test_within_a_task_other_tasks_have_no_say():
    loss = MaskedLoss(nn.CrossEntropyLoss(), [[0, 1], [3, 4]])
    first, second = LABELS < 2, LABELS >= 3
    parts = torch.cat(
        [
            F.cross_entropy(LOGITS[first][:, [0, 1]], LABELS[first], reduction="none"),
            F.cross_entropy(LOGITS[second][:, [3, 4]], LABELS[second] - 3, reduction="none"),
        ]
    )
    torch.testing.assert_close(loss(LOGITS, LABELS), parts.mean())
    soft = 0.9 * F.one_hot(LABELS, 5) + 0.1 * F.one_hot(torch.where(first, 1 - LABELS, 7 - LABELS), 5)
    leaking = 0.5 * soft + 0.1 / 5
    kept = torch.where(soft > 0, leaking, 0)
    kept = kept / kept.sum(dim=1, keepdim=True)
    plain = MaskedLoss(nn.CrossEntropyLoss(), [[0, 1], [3, 4]])(LOGITS, kept)
    torch.testing.assert_close(loss(LOGITS, leaking), plain)
    assert torch.isfinite(plain)
    assert plain < 100
