"""What whoever trains on a set elsewhere must know: the space of its values, and a way of training that suits it."""

from __future__ import annotations

from typing import Any

from fedcl_distill.registry import describe
from fedcl_distill.synthetic.set import SyntheticSet
from fedcl_distill.training import FAST


def recipe(synthetic: SyntheticSet) -> dict[str, Any]:
    """How to train on ``synthetic``, as JSON values that stand in its file and beside its exports.

    The training is that by which sets are judged here (:data:`~fedcl_distill.training.FAST`); where the method learned
    learning rates, they are in the provenance.

    Returns:
        values: what samples are, and how network inputs are made of them.
        mean, std: one number a channel, or a feature.
        train: optimiser and its settings, epochs, batch, schedule and augmentation, in the plain form of a
            :class:`~fedcl_distill.training.TrainConfig`.
        advice: what differs from usual training, in words.

    Example:
        >>> import torch
        >>> from fedcl_distill import LabelledData
        >>> data = LabelledData.from_tensors(torch.rand(4, 3), torch.tensor([0, 1, 0, 1]))
        >>> recipe(SyntheticSet.of_real(data))["train"]["schedule"]
        'cosine'
    """
    what = "pixels in [0, 1]" if synthetic.is_image else "features in the units of the real data"
    train = describe(FAST.train_config_for(synthetic.as_labelled_data(), len(synthetic)))
    soft = synthetic.labels.ndim == 2
    return {
        "values": f"network inputs are ({what} - mean) / std; test data must be normalised by the same mean and std",
        "mean": list(synthetic.normalisation.mean),
        "std": list(synthetic.normalisation.std),
        "may_be_mirrored": synthetic.allow_hflip,
        "labels": "probabilities of classes, for cross-entropy with soft targets" if soft else "numbers of classes",
        "train": {key: value for key, value in train.items() if value is not None and key != "name"},
        "advice": (
            f"{len(synthetic)} samples: many passes with augmentation, drawn anew for every sample of every batch, as "
            "much of the set in a batch as fits, and a learning rate that falls"
        ),
    }


def as_text(synthetic: SyntheticSet) -> str:
    """:func:`recipe` in one line, for the texts of pictures."""
    found = recipe(synthetic)
    mean, std = (", ".join(f"{one:.6g}" for one in found[key][:4]) for key in ("mean", "std"))
    settings = ", ".join(f"{key} {value}" for key, value in found["train"].items() if key != "augmentation")
    return f"{found['values']} (mean {mean}; std {std}). Training: {settings}. {found['advice']}."
