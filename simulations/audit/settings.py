"""Every setting of an audit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from fedcl_distill.engine import Budget
from fedcl_distill.errors import SettingsError
from fedcl_distill.methods import build_method
from fedcl_distill.networks import Architecture
from fedcl_distill.synthetic import check_bits

KIND = "audit"
DISTIL = "distil"
"""The strategy of whoever has all data and distils them; every other name is a federated strategy."""

ATTACKS = (
    "loss",
    "loss, by class",
    "LiRA",
    "LiRA offline",
    "nearest pixels",
    "pixels, relative",
    "nearest features",
    "LiRA on pixels",
)
"""Names of the attacks, in the order of tables: first those on models, then those on samples."""


@dataclass(frozen=True)
class AuditSettings:
    """What is released, and how it is attacked.

    Attributes:
        data: name of the data set, or path of an .npz file or image folder.
        data_root: folder to search first; a place on this computer, and no part of a result's settings.
        candidates: training samples of which a fair coin makes each a member or not, anew for every release.
        releases: how many are made. Each is attacked in turn, with the others as shadows.
        strategy: who makes a release: ``distil``, or a federated strategy such as ``fedavg`` or ``one-shot``.
        strategy_settings: what the strategy shall do in its own way.
        federated: further settings of the federated run, such as ``clients=4`` or ``rounds=10``.
        method: of distillation or selection.
        method_settings: what the method shall do in its own way, such as ``init=noise``; ``dm.clamp=true`` is for
            dm alone.
        images_per_class: synthetic samples of each class.
        distil_steps: optimisation steps; the method's own number by default.
        bits: of each released value, 2, 4, 8, 16 or 32.
        architecture: of the networks that the attacker trains on released sets, and of released models.
        attack_epochs: for which the attacker trains on a released set, without augmentation.
        delta: for which ε is bounded; a claimed one goes first.
        confidence: of intervals and of the bound.
        device: where to compute.
        seed: fixes coins, releases and attacks.

    Raises:
        SettingsError: on construction, if a value is out of range or unknown.
    """

    data: str = "digits"
    data_root: str | None = None
    candidates: int = 4000
    releases: int = 9
    strategy: str = DISTIL
    strategy_settings: Mapping[str, Any] = field(default_factory=dict)
    federated: Mapping[str, Any] = field(default_factory=dict)
    method: str = "dm"
    method_settings: Mapping[str, Any] = field(default_factory=dict)
    images_per_class: int = 10
    distil_steps: int | None = None
    bits: int = 8
    architecture: str = "convnet:width=16"
    attack_epochs: int = 60
    delta: float = 1e-5
    confidence: float = 0.95
    device: str = "cpu"
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"candidates": 20, "releases": 1, "images_per_class": 1, "attack_epochs": 1}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise SettingsError(f"{name} must be at least {bound}, got {getattr(self, name)}")
        if not 0 <= self.delta < 1 or not 0 < self.confidence < 1:
            raise SettingsError(
                f"expected delta in [0, 1) and confidence in (0, 1), got {self.delta}, {self.confidence}"
            )
        check_bits(self.bits)
        Architecture.parse(self.architecture)
        if self.strategy == DISTIL:
            build_method(self.method, **self.method_settings)
            _ = self.budget
            if self.federated or self.strategy_settings:
                raise SettingsError("federated and strategy settings need a federated strategy")

    @property
    def budget(self) -> Budget | None:
        """Steps; None for the method's own."""
        return Budget.if_given(self.distil_steps, None)

    def as_record(self) -> dict[str, Any]:
        """JSON values that name the experiment: everything but places on this computer."""
        record = asdict(self)
        del record["data_root"]
        return record

    def __str__(self) -> str:
        who = self.method if self.strategy == DISTIL else self.strategy
        return f"audit of {who} · {self.data} · {self.candidates} candidates · seed {self.seed}"
