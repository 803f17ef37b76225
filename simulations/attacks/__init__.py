"""Clients that attack: what they learn from, what they send, and which clients they are. To measure defences by."""

from simulations.attacks.base import Attack
from simulations.attacks.registry import ATTACKS, build_attack, list_attacks
from simulations.attacks.settings import AttackedSettings

__all__ = ["ATTACKS", "Attack", "AttackedSettings", "build_attack", "list_attacks"]
