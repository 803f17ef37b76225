"""A memory as one of Avalanche's storage policies, for its own plugins."""

from __future__ import annotations

from typing import Any

from avalanche.benchmarks.utils import AvalancheDataset, as_classification_dataset
from avalanche.benchmarks.utils.classification_dataset import (
    _make_taskaware_classification_dataset as with_tasks,
)
from avalanche.training.storage_policy import ExemplarsBuffer

from fedcl_distill.data import LabelledData
from fedcl_distill.errors import SettingsError
from strategies.continual.benchmarks import InputsDataset, inputs_dataset, labelled_data
from strategies.continual.memory import Memory


class MemoryBuffer(ExemplarsBuffer):  # type: ignore[misc]
    """Keeps a memory behind the interface of Avalanche's buffers.

    For instance ``ReplayPlugin(mem_size=policy.max_size, storage_policy=policy)`` replays a distilled memory.

    Args:
        memory: distilled, reservoir, or any other.
        like: data of the same kind as the benchmark's.
        max_size: what Avalanche calls the size, in samples; the memory's bytes bound it in truth.
    """

    def __init__(self, memory: Memory, like: LabelledData, max_size: int) -> None:
        super().__init__(max_size)
        self.memory = memory
        self._like = like

    def post_adapt(self, agent_state: Any, exp: Any) -> None:
        """Take in the experience."""
        self.memory.add(labelled_data(exp.dataset, self._like))
        held = self.memory.recall()
        if held is not None:
            self.buffer = _in_the_image_of(exp.dataset, inputs_dataset(held))

    def resize(self, strategy: Any, new_size: int) -> None:
        """Refuse: a memory is bounded in bytes when it is made.

        Raises:
            SettingsError: ``new_size`` is another than ``max_size``.
        """
        if new_size != self.max_size:
            raise SettingsError(f"a memory of bytes keeps its bound; asked to go from {self.max_size} to {new_size}")


def _in_the_image_of(dataset: AvalancheDataset, held: InputsDataset) -> AvalancheDataset:
    """``held`` with items of the same parts as ``dataset``'s: with a task label exactly where it has one.

    Avalanche concatenates buffer and experience, and fails later, inside a collate function, where they differ.
    """
    item = dataset[0]
    return with_tasks(held, task_labels=int(item[2])) if len(item) > 2 else as_classification_dataset(held)
