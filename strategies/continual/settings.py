"""Every setting of a continual run, and what it leaves behind."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from fedcl_distill.errors import SettingsError
from fedcl_distill.methods import known_settings
from fedcl_distill.registry import Registry, parse
from fedcl_distill.settings import Count, Momentum, Natural, NonNegative, Positive, settings, suggest
from fedcl_distill.synthetic import SyntheticSet
from fedcl_distill.synthetic.quantise import Bits

if TYPE_CHECKING:
    from strategies.continual.memory import Memory
    from strategies.continual.registry import StrategyParts

SCENARIOS = ("class", "task", "domain")

MEMORIES: Registry[Memory] = Registry("memory", "fedcl_distill.memories")
"""Memories by name, for every strategy that has one, on the command line and on the nodes of a federation.

What is registered is a :class:`~strategies.continual.Memory` or a function that makes an empty one. Of ``byte_budget``,
``bits``, ``seed`` and ``settings`` (:class:`ContinualSettings`) it is given those that it has parameters for.
"""

CONTINUAL_STRATEGIES: Registry[StrategyParts] = Registry("continual strategy", "fedcl_distill.continual_strategies")
"""Continual strategies by name.

What is registered is a function of a :class:`~strategies.continual.Setup`, and of settings by keyword, that returns
:class:`~strategies.continual.StrategyParts`.
"""


@settings
class ContinualSettings:
    """Settings of one run.

    Attributes:
        strategy: "naive" (fine-tuning), "joint" (all experiences at once: the ceiling),
            "cumulative" (after each, all so far once more: it forgets what any model must), plain replay from a memory
            ("reservoir", "balanced", "herding": real samples; "distilled", made by ``method``; "hybrid", of both;
            "condensed", real samples distilled as they pass), or another of ``CONTINUAL_STRATEGIES``.
        strategy_settings: of the strategy alone, as JSON values: alpha and beta of "der++", the memory of "gdumb", ….
        seed: fixes the result (same machine and thread count, distillation budget in steps).

        data: name of the data set.
        data_root: folder to search first; a place on this computer, and no part of :meth:`as_record`.
        train_limit: at most so many training samples; None for all.
        scenario: what changes from one experience to the next: the "class"es, the classes of a known "task", or the
            "domain" (how the same classes look).
        domain: "rotation", "permutation" or "inversion".
        online: every sample is seen once, in mini-batches of ``batch_size``, and no boundary between experiences is
            told (task-free).
        experiences: into which the classes are divided, or how many domains there are.
        order_seed: draws the order of classes; None keeps it as numbered.

        method: by which a distilled memory is made: a distillation method or a core set.
        method_settings: in place of its defaults.
        images_per_class: size of the memory, as samples for each of all classes; the bytes that these take at
            ``bits`` are the budget from the first experience on.
        byte_budget: of the memory, in place of ``images_per_class``.
        bits: a stored value takes.
        distil_steps, distil_seconds: of each distillation; the method's own where both are None.
        redistil: shrink what is held of old classes by distilling it again, instead of dropping samples.

        replay_ratio: remembered samples for each current one.
        replay_augment: augment remembered samples as suits the data. Off: on digits and Fashion-MNIST it cost time and
            brought nothing.
        finetune_epochs: over the memory alone, at the end of each experience, at 0.3 times the learning rate and less.
        balanced: give every class of a batch the same weight in the loss, so that few new classes do not outweigh many
            old ones.

        architecture: of the model, such as "convnet:width=64"; None takes a ConvNet (an MLP for features).
        epochs: for each experience.
        learning_rate, momentum, weight_decay: of SGD.
        batch_size: current samples a step.
        device: where to compute.

    Raises:
        SettingsError: on construction, if a value is out of range or unknown.
    """

    strategy: str = "distilled"
    strategy_settings: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

    data: str = "digits"
    data_root: str | None = None
    train_limit: Count | None = None
    scenario: Literal["class", "task", "domain"] = "class"
    domain: Literal["rotation", "permutation", "inversion"] = "rotation"
    online: bool = False
    experiences: Count = 5
    order_seed: int | None = None

    method: str = "dm"
    method_settings: Mapping[str, Any] = field(default_factory=dict)
    images_per_class: Count = 10
    byte_budget: Count | None = None
    bits: Bits = 8
    distil_steps: Natural | None = None
    distil_seconds: NonNegative | None = None
    redistil: bool = True

    replay_ratio: Positive = 1.0
    replay_augment: bool = False
    finetune_epochs: Natural = 0
    balanced: bool = True

    architecture: str | None = None
    epochs: Count = 5
    learning_rate: Positive = 0.01
    momentum: Momentum = 0.9
    weight_decay: NonNegative = 5e-4
    batch_size: Count = 64
    device: str = "cpu"

    def __post_init__(self) -> None:
        known = [name for name in CONTINUAL_STRATEGIES.settings_of(self.strategy) if name != "setup"]
        for name in self.strategy_settings:
            if name not in known:
                raise SettingsError(f"strategy {self.strategy!r}: {suggest('setting', name, known)}")
        own = known_settings(self.method)
        for name in self.method_settings:
            if name not in own:
                raise SettingsError(f"method {self.method!r}: {suggest('setting', name, own)}")
        if self.finetune_epochs and self.online:
            raise SettingsError("fine-tuning must know where experiences end; an online stream does not say it")

    @property
    def label(self) -> str:
        """What tables and plots call the run."""
        named = uses_method(self.strategy, self.strategy_settings)
        return f"{self.strategy} ({self.method})" if named else self.strategy

    def as_record(self) -> dict[str, Any]:
        """JSON values that name the experiment: everything but places on this computer."""
        record = asdict(self)
        del record["data_root"]
        return record


def uses_method(strategy: str, strategy_settings: Mapping[str, Any]) -> bool:
    """Whether the memory of the strategy is made by ``method``."""
    return memory_name(strategy_settings.get("memory", strategy)) in ("distilled", "hybrid", "condensed")


def memory_name(memory: Any) -> str:
    """The name of a memory that is given as a text or a mapping; "" for an object."""
    plain = parse(memory) if isinstance(memory, str) else memory
    return str(plain.get("name")) if isinstance(plain, Mapping) else ""


@dataclass(frozen=True)
class AccuracyMatrix:
    """``rows[i][j]`` is the accuracy, in [0, 1], on the test data of experience j after training on experience i.

    ``untrained`` are the accuracies of the model before any training, where they were measured. ``learned_at[j]`` is
    the row after which experience j had been trained on for the first time, the number of rows if it never was; without
    it, experience j was trained on just before row j.

    All numbers below are computed from this matrix: Avalanche's own stream forgetting is 0 on some streams.
    """

    rows: tuple[tuple[float, ...], ...]
    untrained: tuple[float, ...] = ()
    learned_at: tuple[int, ...] = ()

    @property
    def average_accuracy(self) -> float:
        """Mean accuracy over all experiences after the last one (Lopez-Paz and Ranzato 2017, ACC)."""
        return statistics.fmean(self.rows[-1])

    @property
    def average_by_stage(self) -> tuple[float, ...]:
        """After each row, the mean accuracy over the experiences seen so far; 0 where there is none yet."""
        seen = [[row[j] for j, first in enumerate(self._firsts) if first <= i] for i, row in enumerate(self.rows)]
        return tuple(statistics.fmean(one) if one else 0.0 for one in seen)

    @property
    def forgetting(self) -> float:
        """Mean, over all experiences but the last, of best earlier minus final accuracy (Chaudhry et al. 2018).

        The best is taken from the time an experience was trained to before the last row; 0 for a single row.
        """
        last = len(self.rows) - 1
        lost = [max(self.rows[i][j] for i in range(first, last)) - self.rows[last][j] for j, first in self._earlier]
        return statistics.fmean(lost) if lost else 0.0

    @property
    def backward_transfer(self) -> float:
        """Mean of final minus just-trained accuracy over all experiences but the last (Lopez-Paz and Ranzato 2017)."""
        gained = [self.rows[-1][j] - self.rows[first][j] for j, first in self._earlier]
        return statistics.fmean(gained) if gained else 0.0

    @property
    def forward_transfer(self) -> float | None:
        """Mean, over all experiences but the first, of accuracy before its training minus that of the untrained model.

        Lopez-Paz and Ranzato 2017, FWT; None where the untrained model was not measured or training was all at once.
        """
        if len(self.untrained) != len(self.rows[0]) or (len(self.rows) == 1 and len(self.untrained) > 1):
            return None
        later = [(j, first) for j, first in enumerate(self._firsts) if 0 < first < len(self.rows)]
        gained = [self.rows[first - 1][j] - self.untrained[j] for j, first in later]
        return statistics.fmean(gained) if gained else 0.0

    @property
    def _firsts(self) -> tuple[int, ...]:
        return self.learned_at or tuple(range(len(self.rows[0])))

    @property
    def _earlier(self) -> list[tuple[int, int]]:
        """Experiences that were learned before the last row, and when."""
        return [(j, first) for j, first in enumerate(self._firsts) if first < len(self.rows) - 1]


@dataclass(frozen=True)
class ContinualResult:
    """Outcome of one run.

    Attributes:
        matrix: accuracy on every experience after every experience.
        test_accuracy: on all test samples together, after the last experience.
        classes: names of the classes of each experience.
        bytes_kept: after each experience, of all that the strategy keeps beside the model: samples, scores, older
            weights, or all data where these are trained on again; 0 for nothing.
        train_seconds, memory_seconds: training (memory excluded) and taking in, for each experience.
        memory_cpu_seconds: of taking in, by the processor: they hang less on what else the machine does.
        replayed: remembered samples that were added to training batches, in all.
        memory: what is remembered at the end, or None.
    """

    matrix: AccuracyMatrix
    test_accuracy: float
    classes: tuple[tuple[str, ...], ...]
    bytes_kept: tuple[int, ...]
    train_seconds: tuple[float, ...]
    memory_seconds: tuple[float, ...]
    memory_cpu_seconds: tuple[float, ...]
    replayed: int
    memory: SyntheticSet | None

    def as_record(self) -> dict[str, Any]:
        """JSON values for a result line."""
        return {
            "matrix": [list(row) for row in self.matrix.rows],
            "average_accuracy": self.matrix.average_accuracy,
            "average_by_stage": list(self.matrix.average_by_stage),
            "forgetting": self.matrix.forgetting,
            "backward_transfer": self.matrix.backward_transfer,
            "forward_transfer": self.matrix.forward_transfer,
            "test_accuracy": self.test_accuracy,
            "classes": [list(names) for names in self.classes],
            "memory_bytes": list(self.bytes_kept),
            "memory_counts": [] if self.memory is None else self.memory.class_counts.tolist(),
            "train_seconds": [round(seconds, 3) for seconds in self.train_seconds],
            "memory_seconds": [round(seconds, 3) for seconds in self.memory_seconds],
            "memory_cpu_seconds": [round(seconds, 3) for seconds in self.memory_cpu_seconds],
            "replayed": self.replayed,
        }
