"""Settings of a federated run in which some clients attack."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

import torch

from fedcl_distill.errors import SettingsError
from fedcl_distill.seeding import derive_seed, generator_for
from fedcl_distill.settings import Natural, settings
from simulations.attacks.base import Attack
from simulations.attacks.registry import build_attack
from simulations.settings import FederatedSettings

_MODEL_STRATEGIES = frozenset(
    {"fedavg", "fedprox", "fedavgm", "fedadam", "scaffold", "dynafed", "one-shot-average"}
    | {"krum", "bulyan", "trimmed-mean", "median"}
)


@settings
class AttackedSettings(FederatedSettings):
    """Settings of a run and of those who attack it.

    Attributes:
        attack: what attackers do, one of ``list_attacks()``; "" for nothing.
        attack_settings: in place of its defaults, as JSON values.
        attackers: how many of the clients attack; which ones, the seed decides.

    Raises:
        SettingsError: on construction, if a value is out of range or unknown, or the attack has nothing to change in
            what the strategy's nodes send.
    """

    attack: str = ""
    attack_settings: Mapping[str, Any] = field(default_factory=dict)
    attackers: Natural = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.attackers > self.clients or bool(self.attack) != (self.attackers > 0):
            raise SettingsError(
                f"an attack needs a name and between 1 and {self.clients} attackers, "
                f"got {self.attack!r} and {self.attackers}"
            )
        chosen = self.chosen_attack
        if chosen is not None and chosen.needs_model and self.strategy not in _MODEL_STRATEGIES:
            raise SettingsError(
                f"attack {self.attack!r} changes models, and nodes of {self.strategy!r} send none as such"
            )

    @property
    def chosen_attack(self) -> Attack | None:
        """What attackers do."""
        return build_attack(self.attack, self.attack_settings) if self.attack else None

    @property
    def malicious(self) -> tuple[int, ...]:
        """Partitions of the clients that attack, ascending."""
        order = torch.randperm(self.clients, generator=generator_for(self.seed, "attackers"))
        return tuple(sorted(order[: self.attackers].tolist()))

    def attack_seed(self, partition: int) -> int:
        """Of what one attacker draws."""
        return derive_seed(self.seed, "attack", partition)

    def as_record(self) -> dict[str, Any]:
        """As of :class:`FederatedSettings`; the attack is part of it where there is one."""
        record = super().as_record()
        if not self.attack:
            for name in ("attack", "attack_settings", "attackers"):
                del record[name]
        return record
