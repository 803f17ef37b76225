"""A model in a stream: its strategy, what was measured so far, and all that it takes to go on later."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from avalanche.benchmarks.utils.utils import concat_datasets
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.supervised import Cumulative

from fedcl_distill.networks import Network
from fedcl_distill.seeding import derive_seed
from strategies.continual.settings import ContinualSettings
from strategies.continual.setup import Plan
from strategies.continual.streams.benchmark import in_mini_batches


class StreamTrainer:
    """Learns one experience after the other.

    Random numbers come from torch's global generator, as Avalanche has it: use it under ``isolated_rng``.

    Attributes:
        rows: accuracies after each experience; whoever measures them appends here.
        bytes_kept: after each experience.
        train_seconds, memory_seconds, memory_cpu_seconds: of each experience; the last by the processor, not the wall.
    """

    def __init__(self, settings: ContinualSettings, network: Network, plan: Plan) -> None:
        self.rows: list[tuple[float, ...]] = []
        self.bytes_kept: list[int] = []
        self.train_seconds: list[float] = []
        self.memory_seconds: list[float] = []
        self.memory_cpu_seconds: list[float] = []
        self._settings = settings
        self._network = network
        self._plan = plan
        self._seen = 0
        self._strategy = avalanche_strategy(settings, network, plan)

    def learn(self, experience: Any) -> None:
        """Train on an experience, or on the whole stream where the strategy does that."""
        started, before = time.monotonic(), self._spent_on_memory()
        seed = derive_seed(self._settings.seed, "order", len(self.rows))
        size = self._settings.batch_size
        online = self._settings.online
        self._strategy.train(in_mini_batches(experience, size, seed=seed) if online else experience)
        spent, spent_by_processor = (now - then for now, then in zip(self._spent_on_memory(), before, strict=True))
        self.memory_seconds.append(spent)
        self.memory_cpu_seconds.append(spent_by_processor)
        self.train_seconds.append(time.monotonic() - started - spent)
        self._seen += samples_in(experience)
        self.bytes_kept.append(self._plan.bytes_kept + self._seen * self._plan.sample_bytes)

    def state(self) -> dict[str, Any]:
        """Everything that the next experience hangs on, and what was measured."""
        return {
            "rows": [list(row) for row in self.rows],
            "bytes_kept": self.bytes_kept,
            "train_seconds": self.train_seconds,
            "memory_seconds": self.memory_seconds,
            "memory_cpu_seconds": self.memory_cpu_seconds,
            "network": self._network.state_dict(),
            "optimiser": self._strategy.optimizer.state_dict(),
            "clock": {name: value for name, value in vars(self._strategy.clock).items() if type(value) is int},
            "generator": torch.random.get_rng_state(),
            "replay": None if self._plan.replay is None else self._plan.replay.state(),
            "keepers": [keeper.state() for keeper in self._plan.keepers],
        }

    def restore(self, state: dict[str, Any], learned: Sequence[Any]) -> None:
        """Go on from another life's :meth:`state`, with the same settings, after the experiences it has ``learned``."""
        self.rows = [tuple(row) for row in state["rows"]]
        self.bytes_kept = state["bytes_kept"]
        self.train_seconds, self.memory_seconds = state["train_seconds"], state["memory_seconds"]
        self.memory_cpu_seconds = state["memory_cpu_seconds"]
        self._network.load_state_dict(state["network"])
        # Avalanche wipes the optimiser's state when it first meets the model: let it do so now.
        self._strategy.make_optimizer(reset_optimizer_state=True)
        self._strategy.optimizer.load_state_dict(state["optimiser"])
        vars(self._strategy.clock).update(state["clock"])
        torch.random.set_rng_state(state["generator"])
        if self._plan.replay is not None:
            self._plan.replay.restore(state["replay"])
        self._seen = sum(map(samples_in, learned))
        if isinstance(self._strategy, Cumulative):
            self._strategy.dataset = concat_datasets([experience.dataset for experience in learned])
        for keeper, one in zip(self._plan.keepers, state["keepers"], strict=True):
            keeper.restore(one, self._network)

    def _spent_on_memory(self) -> tuple[float, float]:
        """Seconds so far, by the wall and by the processor."""
        replay = self._plan.replay
        return (sum(replay.seconds), sum(replay.cpu_seconds)) if replay else (0.0, 0.0)


def samples_in(stage: Any) -> int:
    """How many samples there are in an experience, or in all of a stream."""
    return sum(len(one.dataset) for one in (stage if isinstance(stage, Iterable) else [stage]))


def avalanche_strategy(settings: ContinualSettings, network: Network, plan: Plan) -> Any:
    """Plain training by Avalanche, with what ``plan`` adds to it."""
    optimiser = torch.optim.SGD(
        network.parameters(),
        lr=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
    )
    return plan.template(
        model=network,
        optimizer=optimiser,
        criterion=plan.loss,
        train_mb_size=settings.batch_size,
        train_epochs=1 if settings.online else settings.epochs,
        device=settings.device,
        plugins=plan.plugins,
        evaluator=EvaluationPlugin(),  # accuracies come from whole tensors, which is much faster
    )


@contextmanager
def without_deprecations() -> Iterator[None]:
    """Avalanche 0.6 warns about its own use of its older interfaces."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", UserWarning)
        yield
