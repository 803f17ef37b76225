"""What kind of data statistics are about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from fedcl_distill.data.labelled import LabelledData, Normalisation


@dataclass(frozen=True)
class Domain:
    """What kind of data statistics are about: everything of :class:`LabelledData` but the samples.

    Attributes:
        sample_shape: (channels, height, width) or (features,).
        class_names, normalisation, value_range, mirrorable: as in :class:`LabelledData`.
    """

    sample_shape: tuple[int, ...]
    class_names: tuple[str, ...]
    normalisation: Normalisation
    value_range: tuple[float, float] = (0.0, 1.0)
    mirrorable: bool = True

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @classmethod
    def of(cls, data: LabelledData) -> Domain:
        """The domain of ``data``."""
        return cls(data.sample_shape, data.class_names, data.normalisation, data.value_range, data.mirrorable)

    def blank(self, counts: Sequence[int]) -> LabelledData:
        """Data of this kind with so many samples a class, none of which says anything: all are the same zeros.

        They stand where only the kind of data and their counts are asked for; a single one takes up memory.
        """
        total = sum(counts)
        dtype = torch.uint8 if len(self.sample_shape) == 3 else torch.float32
        zeros = torch.zeros((1, *self.sample_shape), dtype=dtype).expand(total, *self.sample_shape)
        return LabelledData(
            samples=zeros,
            labels=torch.arange(self.num_classes).repeat_interleave(torch.tensor(counts)),
            class_names=self.class_names,
            normalisation=self.normalisation,
            value_range=self.value_range,
            name="statistics",
            mirrorable=self.mirrorable,
        )
