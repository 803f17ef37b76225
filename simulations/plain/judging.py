"""How the field judges a synthetic set (Zhao et al. 2021): networks trained on it one after the other."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from fedcl_distill.augmentation import SiameseAugmentation
from fedcl_distill.data import LabelledData
from fedcl_distill.seeding import derive_seed, generator_for
from simulations.plain.network import PlainConvNet

_BATCH = 256


class PlainJudge:
    """One network: SGD 0.01, momentum 0.9, weight decay 5e-4, DSA drawn anew for every image, batches of 256.

    Args:
        sample_shape: (channels, height, width).
        num_classes: of the data.
        width: of the network.
        seed: fixes weights, batch order and augmentation.
    """

    def __init__(self, sample_shape: tuple[int, ...], num_classes: int, width: int = 128, seed: int = 0) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(derive_seed(seed, "plain judge"))
            self.network = PlainConvNet(sample_shape, num_classes, width)
        self.optimiser = torch.optim.SGD(self.network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
        self.augmentation = SiameseAugmentation()
        self.generator = generator_for(seed, "plain judge")

    def train(self, inputs: Tensor, labels: Tensor, *, epochs: int = 1000) -> None:
        """Pass ``epochs`` times over ``inputs`` (n, …) and ``labels`` (n,); the rate falls to a tenth half way."""
        schedule = torch.optim.lr_scheduler.StepLR(self.optimiser, step_size=epochs // 2 + 1, gamma=0.1)
        for _ in range(epochs):
            for batch in torch.split(torch.randperm(len(inputs), generator=self.generator), _BATCH):
                draw = self.augmentation.draw(len(batch), tuple(inputs.shape[1:]), self.generator)
                scores = self.network(draw(inputs[batch], torch.arange(len(batch))))
                self.optimiser.zero_grad()
                F.cross_entropy(scores, labels[batch]).backward()  # type: ignore[no-untyped-call]
                self.optimiser.step()
            schedule.step()

    @torch.no_grad()
    def accuracy(self, test: LabelledData) -> float:
        """Fraction of ``test`` classified correctly, in [0, 1]."""
        right = [
            (self.network(test.inputs(rows)).argmax(dim=1) == test.labels[rows]).sum()
            for rows in torch.split(torch.arange(len(test)), _BATCH)
        ]
        return float(torch.stack(right).sum()) / len(test)
