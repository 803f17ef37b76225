"""The augmentation that suits a data set."""

from __future__ import annotations

from fedcl_distill.augmentation.base import Augmentation, NoAugmentation
from fedcl_distill.augmentation.siamese import OPERATIONS, SiameseAugmentation
from fedcl_distill.data.labelled import LabelledData


def augmentation_for(data: LabelledData) -> Augmentation:
    """DSA for images, without flips where a mirrored image is another class; nothing for feature vectors."""
    if not data.is_image:
        return NoAugmentation()
    if data.mirrorable:
        return SiameseAugmentation()
    return SiameseAugmentation(operations=tuple(name for name in OPERATIONS if name != "flip"))
