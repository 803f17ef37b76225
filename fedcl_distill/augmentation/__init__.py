"""Augmentations whose parameters are drawn once and applied alike to both sides."""

from fedcl_distill.augmentation.base import Augmentation, Draw, NoAugmentation
from fedcl_distill.augmentation.cutmix import cutmix
from fedcl_distill.augmentation.default import augmentation_for
from fedcl_distill.augmentation.sequence import InSequence
from fedcl_distill.augmentation.siamese import SiameseAugmentation

__all__ = ["Augmentation", "Draw", "InSequence", "NoAugmentation", "SiameseAugmentation", "augmentation_for", "cutmix"]
