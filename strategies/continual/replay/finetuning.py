"""Fine-tuning on the memory alone, after each experience."""

from __future__ import annotations

from typing import Any

import torch
from avalanche.core import SupervisedPlugin

from fedcl_distill.seeding import derive_seed
from fedcl_distill.training import TrainConfig, fit
from strategies.continual.replay.balance import balanced_weights
from strategies.continual.replay.plugin import Replay


class FineTuning(SupervisedPlugin):  # type: ignore[misc]
    """Balanced fine-tuning (Castro et al. 2018, EEIL): at the end of an experience, some epochs on the memory alone.

    Whatever the stream did to the model, new and old classes then have the same say. It suits distilled memories: they
    teach more than as many real samples, to which a model was fitted long before (docs/continual.md).

    Args:
        replay: whose memory it is; it must come earlier among the plugins.
        train_config: of each fine-tuning.
        seed: fixes the order and the augmentation of samples.
    """

    def __init__(self, replay: Replay, train_config: TrainConfig, *, seed: int) -> None:
        super().__init__()
        self._replay = replay
        self._train_config = train_config
        self._seed = seed

    def after_training_exp(self, strategy: Any, *args: Any, **kwargs: Any) -> None:
        """Fine-tune, where there is something to do it on."""
        held = self._replay.memory.recall()
        if held is None:
            return
        seed = derive_seed(self._seed, len(self._replay.bytes_kept))
        weights = balanced_weights(held.hard_labels, torch.float64)
        with torch.enable_grad():
            fit(strategy.model, held.inputs(), held.labels, self._train_config, seed=seed, weights=weights)
