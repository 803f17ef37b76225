"""How a network is trained on the real data where a method needs one and its caller names no recipe."""

from __future__ import annotations

from fedcl_distill.augmentation import augmentation_for
from fedcl_distill.data.labelled import LabelledData
from fedcl_distill.training import Recipe

_MOST_SAMPLES = 200_000  # passes multiplied: four over 50,000 images, a few minutes on a small machine
_MOST_EPOCHS = 50
_MANY_SAMPLES = 2_000


def recipe_for_real(data: LabelledData) -> Recipe:
    """A recipe for ``data``: passes so that about 200,000 samples are seen, at most 50, and at least one.

    SGD with rate 0.02 falling to 0 along a half cosine, and the augmentation that suits the data; batches of 256, of 32
    where there are fewer than 2,000 samples, so that small data give enough steps.
    """
    epochs = max(1, min(_MOST_EPOCHS, _MOST_SAMPLES // max(len(data), 1)))
    batch_size = 256 if len(data) >= _MANY_SAMPLES else 32
    return Recipe(
        epochs=epochs,
        learning_rate=0.02,
        batch_size=batch_size,
        schedule="cosine",
        augmentation=augmentation_for(data),
    )
