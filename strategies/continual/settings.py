"""Every setting of a continual run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from fedcl_distill.errors import SettingsError
from fedcl_distill.synthetic import check_bits

# Registered in strategies.continual.registry, which needs Avalanche; the names are known without it.
STRATEGIES = (
    "naive",
    "joint",
    "cumulative",
    "reservoir",
    "balanced",
    "herding",
    "distilled",
    "hybrid",
    "condensed",
    "gdumb",
    "icarl",
    "der++",
    "er-ace",
    "mir",
    "a-gem",
    "ewc",
    "lwf",
)
SCENARIOS = ("class", "task", "domain")


@dataclass(frozen=True)
class ContinualSettings:
    """Settings of one run.

    Attributes:
        strategy: "naive" (fine-tuning), "joint" (all experiences at once: the ceiling),
            "cumulative" (after each, all so far once more: it forgets what any model must), plain replay from a memory
            ("reservoir", "balanced", "herding": real samples; "distilled", made by ``method``; "hybrid", of both;
            "condensed", real samples distilled as they pass), or another of ``STRATEGIES``.
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
    train_limit: int | None = None
    scenario: str = "class"
    domain: str = "rotation"
    online: bool = False
    experiences: int = 5
    order_seed: int | None = None

    method: str = "dm"
    method_settings: Mapping[str, Any] = field(default_factory=dict)
    images_per_class: int = 10
    byte_budget: int | None = None
    bits: int = 8
    distil_steps: int | None = None
    distil_seconds: float | None = None
    redistil: bool = True

    replay_ratio: float = 1.0
    replay_augment: bool = False
    finetune_epochs: int = 0
    balanced: bool = True

    architecture: str | None = None
    epochs: int = 5
    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    batch_size: int = 64
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise SettingsError(f"unknown strategy {self.strategy!r}; known: {', '.join(STRATEGIES)}")
        if self.scenario not in SCENARIOS:
            raise SettingsError(f"unknown scenario {self.scenario!r}; known: {', '.join(SCENARIOS)}")
        for name in ("experiences", "images_per_class", "epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.finetune_epochs < 0:
            raise SettingsError(f"finetune_epochs must not be negative, got {self.finetune_epochs}")
        if self.finetune_epochs and self.online:
            raise SettingsError("fine-tuning must know where experiences end; an online stream does not say it")
        check_bits(self.bits)
        if self.replay_ratio <= 0 or self.learning_rate <= 0:
            raise SettingsError("replay_ratio and learning_rate must be positive")

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
    memory = str(strategy_settings.get("memory", strategy))
    return memory.partition(":")[0] in ("distilled", "hybrid", "condensed")
