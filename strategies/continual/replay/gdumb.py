"""GDumb (Prabhu et al. 2020): the model learns from the memory alone, each time from the start."""

from __future__ import annotations

from typing import Any

from torch import nn

from fedcl_distill.data import LabelledData
from strategies.continual.memories.base import Memory
from strategies.continual.replay.plugin import Replay


class GDumb(Replay):
    """Takes in each experience before training, resets the model, and replaces current batches by remembered ones.

    Thus a model takes as many steps as under any other strategy. With a distilled memory this is what the field of
    dataset distillation does: training from scratch on a synthetic set. Avalanche's plugin goes through its memory once
    an epoch instead, which for a small one is a handful of steps.

    Args:
        memory, like, settings: see :class:`Replay`; the ratio says how large batches are beside current ones.
        network: what is trained; its weights now are those that each experience starts from.
    """

    def __init__(self, memory: Memory, like: LabelledData, network: nn.Module, **settings: Any) -> None:
        super().__init__(memory, like, early=True, **settings)
        self._start = {name: tensor.clone() for name, tensor in network.state_dict().items()}

    def before_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        strategy.model.load_state_dict(self._start)
        strategy.optimizer.state.clear()
        super().before_training_exp(strategy)

    def before_forward(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        count = len(strategy.mbatch[0])
        super().before_forward(strategy)
        if self.batch is not None:
            strategy.mbatch = [part[count:] for part in strategy.mbatch]
