"""The balanced loss against the plain one."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from strategies.continual.losses import BalancedCrossEntropy

SCORES = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
LOSS = BalancedCrossEntropy()


def test_it_is_the_plain_loss_where_classes_are_equally_many():
    labels = torch.tensor([0, 1, 3]).repeat(4)
    torch.testing.assert_close(LOSS(SCORES, labels), F.cross_entropy(SCORES, labels))


def test_each_class_present_weighs_the_same():
    labels = torch.tensor([0] * 9 + [1] * 2 + [3])
    by_class = [F.cross_entropy(SCORES[labels == c], labels[labels == c]) for c in (0, 1, 3)]
    torch.testing.assert_close(LOSS(SCORES, labels), torch.stack(by_class).mean())


def test_soft_labels_that_are_certain_count_as_hard_ones():
    labels = torch.tensor([0] * 9 + [1] * 2 + [3])
    torch.testing.assert_close(LOSS(SCORES, F.one_hot(labels, 4).float()), LOSS(SCORES, labels))


def test_one_sample_is_enough():
    labels = torch.tensor([2])
    torch.testing.assert_close(LOSS(SCORES[:1], labels), F.cross_entropy(SCORES[:1], labels))
