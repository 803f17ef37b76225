"""Truth: the parts drawn and applied by hand."""

from __future__ import annotations

import torch

from fedcl_distill.augmentation import InSequence, NoAugmentation, SiameseAugmentation, as_augmentation
from fedcl_distill.registry import describe

COLOUR, CUTOUT = (SiameseAugmentation(operations=(name,)) for name in ("color", "cutout"))


def test_all_parts_are_applied_in_order() -> None:
    inputs, groups = torch.randn(4, 3, 8, 8), torch.tensor([0, 0, 1, 2])
    generator = torch.Generator().manual_seed(1)
    first, second = COLOUR.draw(3, (3, 8, 8), generator), CUTOUT.draw(3, (3, 8, 8), generator)
    both = InSequence((COLOUR, CUTOUT)).draw(3, (3, 8, 8), torch.Generator().manual_seed(1))
    assert torch.equal(both(inputs, groups), second(first(inputs, groups), groups))
    assert not torch.equal(both(inputs, groups), first(inputs, groups))


def test_one_draw_does_the_same_to_both_sides() -> None:
    draw = InSequence((COLOUR, CUTOUT)).draw(2, (1, 8, 8), torch.Generator().manual_seed(0))
    inputs, groups = torch.randn(2, 1, 8, 8), torch.tensor([0, 1])
    assert torch.equal(draw(inputs, groups), draw(inputs.clone(), groups))


def test_no_parts_leave_samples_as_they_are() -> None:
    inputs = torch.randn(2, 5)
    draw = InSequence((NoAugmentation(),)).draw(2, (5,), torch.Generator())
    assert torch.equal(draw(inputs, torch.tensor([0, 1])), inputs)


def test_settings_name_all_parts() -> None:
    both = InSequence((COLOUR, CUTOUT))
    assert as_augmentation(describe(both)) == both
